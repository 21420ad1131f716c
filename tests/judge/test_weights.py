import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from athena.errors import BadInput
from athena.judge.rules import rules_of
from athena.judge.weights import Judged, abandoned, account, judged, multiplier, pay
from athena.protocol import Effect

RULES = rules_of("1")
P = RULES.pay


def work(effect, count=10, block=0, units=1.0):
    return [Judged(f"{i:032x}", block, "pass", units=units, effect=effect) for i in range(count)]


def by_hand(effects, ages_days):
    """The formula of the design, term by term."""
    a = [0.5 ** (days / 14) for days in ages_days]
    v = P.sigma_seed**2 * (1 / 3 + 1 / 6) + P.sigma_task**2
    m = sum(x * d for x, d in zip(a, effects, strict=True)) / sum(a)
    big_v = v * sum(x * x for x in a) / sum(a) ** 2
    p = 0.005
    q = m * p**2 / (p**2 + big_v)
    s = (1 / p**2 + 1 / big_v) ** -0.5
    return max(0.0, 1 + 4 * min(1, max(0, q - 1.645 * s) / 0.02) - 8 * min(1, max(0, -(q + 1.645 * s)) / 0.02))


@pytest.mark.parametrize("effects", [[0.0], [0.03] * 10, [0.02, -0.01, 0.03, 0.015], [-0.03] * 8, [0.001] * 40])
def test_multiplier_is_the_published_formula(effects):
    ages = [3 * i for i in range(len(effects))]
    now = 1_000_000
    entries = [
        Judged(f"{i:032x}", now - 7200 * days, "pass", units=1.0, effect=effect)
        for i, (effect, days) in enumerate(zip(effects, ages, strict=True))
    ]
    found = account(entries, RULES, now_block=now)
    assert found.multiplier == pytest.approx(by_hand(effects, ages))
    assert found.units == pytest.approx(sum(0.5 ** (days / 14) for days in ages))


def test_canonical_earns_one_per_unit_and_better_work_more():
    earned = [account(work(effect), RULES, now_block=0).multiplier for effect in (-0.03, 0.0, 0.01, 0.03)]
    assert earned[0] == 0.0 and earned[1] == 1.0 and 2.0 <= earned[2] < earned[3] <= 5.0


def test_canonical_noise_is_hardly_paid():
    dice = random.Random(1)
    sd = math.sqrt(P.sigma_seed**2 * 0.5 + P.sigma_task**2)
    earned = sorted(
        account(
            [Judged(f"{i:032x}", 0, "pass", 1.0, dice.gauss(0, sd)) for i in range(10)], RULES, now_block=0
        ).multiplier
        for _ in range(10_000)
    )
    assert abs(sum(earned) / len(earned) - 1) <= 0.05
    assert earned[int(0.99 * len(earned))] <= 1.2


def test_splitting_over_keys_does_not_pay():
    together = pay({"one": work(0.01, 12), "honest": work(0.0, 12)}, RULES, now_block=0).weights["one"]
    parts = work(0.01, 12)
    split = pay({f"k{i}": parts[i::6] for i in range(6)} | {"honest": work(0.0, 12)}, RULES, now_block=0).weights
    assert sum(weight for key, weight in split.items() if key != "honest") <= together


def test_submitting_only_the_best_half_does_not_pay():
    effects = [0.01 * (i % 2) for i in range(20)]
    entries = [Judged(f"{i:032x}", 0, "pass", 1.0, effect) for i, effect in enumerate(effects)]
    best = [entry if entry.effect else abandoned(entry.task_id, 0, RULES) for entry in entries]
    assert account(best, RULES, now_block=0).weight < account(entries, RULES, now_block=0).weight


def test_nobody_earns_then_burn():
    payout = pay({"a": [abandoned("0" * 32, 5, RULES)], "b": []}, RULES, now_block=10)
    assert payout.burn and payout.weights == {}
    assert pay({}, RULES, now_block=0).burn


def test_failed_work_has_no_units_and_spoils_the_mean(make_sheet):
    failed = judged(make_sheet(outcome="fail", units=0.0, effect=None), RULES)
    assert (failed.units, failed.effect) == (0.0, P.abandoned_effect)
    owed = judged(make_sheet(outcome="none", units=0.0, effect=None), RULES)
    assert owed.effect is None
    assert judged(make_sheet(effect=None), RULES).effect is None  # nothing to compare on: units alone


def test_work_before_registration_belongs_to_another(make_sheet):
    history = {"new": work(0.0, 3, block=10), "old": work(0.0, 3, block=10), "gone": work(0.0, 3, block=10)}
    payout = pay(history, RULES, now_block=20, registered={"new": 15, "old": 5})
    assert payout.weights == {"old": 1.0}


def test_decay_waits_for_a_verdict_that_is_owed_but_not_for_ever():
    day = 7200
    settled = Judged("a" * 32, 0, "pass", 1.0, 0.0)
    owed = [Judged("b" * 32, block, "none") for block in (14 * day - 500, 0)]
    plain, paused, capped = (
        account([settled, *extra], RULES, now_block=14 * day).units for extra in ([], owed[:1], owed[1:])
    )
    assert plain == pytest.approx(0.5)
    assert paused == pytest.approx(0.5 ** ((14 * day - 500) / (14 * day)))
    assert capped == pytest.approx(0.5 ** ((14 * day - 1080) / (14 * day)))


def test_a_settled_verdict_replaces_the_one_still_owed():
    owed = Judged("a" * 32, 10, "none")
    settled = Judged("a" * 32, 10, "pass", 1.0, 0.0)
    for order in ([owed, settled], [settled, owed]):
        assert pay({"k": order}, RULES, now_block=10).accounts["k"].units == 1.0


def test_domain_harm_takes_the_bonus(make_sheet):
    harmful = Effect(mean=0.03, low=0.02, high=0.04, by_domain={"web": 0.5, "books": -0.5})
    assert judged(make_sheet(effect=harmful), RULES).effect == 0.0


# Whatever a sheet and a chain can hold: blocks are JSON integers, numbers go down to the smallest there is.
blocks = st.integers(0, 2**53)
quantities = st.floats(0, 32) | st.sampled_from([0.0, 5e-324, 1e-300])
entries = st.builds(
    Judged,
    task_id=st.integers(0, 9).map(lambda i: f"{i:032x}"),
    block=blocks | st.integers(0, 200_000),
    outcome=st.sampled_from(["pass", "fail", "none"]),
    units=quantities,
    effect=st.none() | st.floats(-0.03, 0.03) | st.floats(-64, 64),
)
histories = st.dictionaries(st.sampled_from("abcdef"), st.lists(entries, max_size=8))


@given(histories, blocks | st.just(200_000), st.randoms())
@settings(max_examples=60)
def test_weights_are_a_distribution_whatever_the_history(history, now, dice):
    payout = pay(history, RULES, now_block=now)
    assert payout.burn == (not payout.weights)
    assert all(math.isfinite(w) and 0 < w <= 1 for w in payout.weights.values())
    if payout.weights:
        assert sum(payout.weights.values()) == pytest.approx(1.0)
    mixed = {key: dice.sample(history[key], len(history[key])) for key in dice.sample(sorted(history), len(history))}
    assert pay(mixed, RULES, now_block=now) == payout


@given(histories, blocks, st.permutations("abcdef"))
@settings(max_examples=40)
def test_names_of_hotkeys_do_not_matter(history, now, order):
    renamed = dict(zip("abcdef", order, strict=True))
    weights = pay(history, RULES, now_block=now).weights
    others = pay({renamed[key]: judged for key, judged in history.items()}, RULES, now_block=now).weights
    assert others == {renamed[key]: weight for key, weight in weights.items()}


num_tasks = st.integers(1, 12)


@given(st.data(), num_tasks)
def test_better_data_is_never_paid_less(data, count):
    ages = data.draw(st.lists(st.integers(0, 600_000), min_size=count, max_size=count))
    effects = data.draw(st.lists(st.floats(-0.03, 0.03), min_size=count, max_size=count))
    better = [effect + data.draw(st.floats(0, 0.02)) for effect in effects]

    def found(given):
        tasks = enumerate(zip(ages, given, strict=True))
        return [Judged(f"{i:032x}", 600_000 - age, "pass", 1.0, effect) for i, (age, effect) in tasks]

    low, high = (account(found(given), RULES, now_block=600_000) for given in (effects, better))
    assert low.multiplier <= high.multiplier * (1 + 1e-12)
    shares = [
        pay({"a": found(given), "b": work(0.0)}, RULES, now_block=600_000).weights.get("a", 0.0)
        for given in (effects, better)
    ]
    assert shares[0] <= shares[1] * (1 + 1e-12)


@given(st.lists(st.floats(0, 16), min_size=1, max_size=8), st.floats(0, 16), st.floats(-0.03, 0.03))
def test_more_of_the_same_data_is_never_paid_less(units, more, effect):
    def share(given):
        mine = [Judged(f"{i:032x}", 0, "pass", u, effect) for i, u in enumerate(given)]
        return pay({"a": mine, "b": work(0.0)}, RULES, now_block=0).weights.get("a", 0.0)

    assert share(units) <= share([units[0] + more, *units[1:]]) * (1 + 1e-12)


@given(histories, st.sampled_from([2.0**-10, 0.5]))
@settings(max_examples=40)
def test_only_proportions_of_work_count(history, scale):
    smaller = {key: [replace(e, units=e.units * scale) for e in judged] for key, judged in history.items()}
    before, after = (pay(h, RULES, now_block=200_000).weights for h in (history, smaller))
    noticeable = {key for key, weight in before.items() if weight > 1e-9}
    if math.fsum(a.weight for a in pay(history, RULES, now_block=200_000).accounts.values()) > 1e-290:
        assert {key: after[key] for key in noticeable} == pytest.approx({key: before[key] for key in noticeable})


@pytest.mark.parametrize("units", [math.nan, math.inf, -1.0, 33.0, 1e308])
def test_units_that_no_dataset_has_are_refused(units, make_sheet):
    with pytest.raises(BadInput):
        Judged("0" * 32, 0, "pass", units, 0.0)
    with pytest.raises(ValidationError):
        make_sheet(units=units)


@pytest.mark.parametrize("effect", [math.nan, math.inf, -math.inf, 65.0, -1e308])
def test_effects_that_no_text_has_are_refused(effect):
    with pytest.raises(BadInput):
        Judged("0" * 32, 0, "pass", 1.0, effect)
    usual = {"mean": 0.0, "low": 0.0, "high": 0.0, "by_domain": {"web": 0.0}, "errors": {"web": 0.0}}
    for field, value in [(name, effect) for name in ("mean", "low", "high")] + [
        (name, {"web": effect}) for name in ("by_domain", "errors")
    ]:
        with pytest.raises(ValidationError):
            Effect(**{**usual, field: value})


def test_old_work_fades_to_nothing_and_spoils_nothing():
    day = 7200
    for days in (14 * 500, 14 * 1000, 14 * 10_000, 10**10):  # 0.5^500 squared is no number, 0.5^10000 is none
        old = account(work(-0.03, 3), RULES, now_block=days * day)
        assert old.units < 1e-100
        both = pay({"old": work(0.0, 3), "new": work(0.0, 3, block=days * day)}, RULES, now_block=days * day)
        assert both.weights["new"] == pytest.approx(1.0)


@given(st.floats(-0.1, 0.1), st.floats(0, 0.05), st.floats(1e-4, 0.01))
def test_multiplier_rises_with_quality(quality, more, spread):
    assert multiplier(quality, spread, RULES) <= multiplier(quality + more, spread, RULES)


def test_256_equal_miners_share_equally():
    payout = pay({f"m{i}": work(0.0, 2) for i in range(256)}, RULES, now_block=0)
    assert set(payout.weights.values()) == {1 / 256}


def test_two_tasks_tell_lazy_work_apart_under_the_demo_rules():
    """With the measured noise, unfiltered text earns nothing, and equal work is hardly touched by luck."""
    rules, dice = rules_of("demo-1"), random.Random(2)

    def earned(effect: float, noise: float) -> list[float]:
        draws = ([Judged(f"{i:032x}", 0, "pass", 1.0, dice.gauss(effect, noise)) for i in range(2)] for _ in range(500))
        return sorted(account(entries, rules, now_block=0).multiplier for entries in draws)

    assert earned(-0.4, 0.09)[-1] < 0.1
    canonical = earned(0.0, 0.02)
    assert canonical[5] > 0.8 and canonical[-5] < 1.2
