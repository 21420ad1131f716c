import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        for _ in range(2000)
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


entries = st.builds(
    Judged,
    task_id=st.integers(0, 30).map(lambda i: f"{i:032x}"),
    block=st.integers(0, 200_000),
    outcome=st.sampled_from(["pass", "fail", "none"]),
    units=st.floats(0, 100, allow_nan=False),
    effect=st.none() | st.floats(-0.03, 0.03),
)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(entries, max_size=8)), st.randoms())
def test_weights_are_a_distribution_whatever_the_history(history, dice):
    payout = pay(history, RULES, now_block=200_000)
    assert payout.burn == (not payout.weights)
    assert all(math.isfinite(w) and 0 < w <= 1 for w in payout.weights.values())
    if payout.weights:
        assert sum(payout.weights.values()) == pytest.approx(1.0)
    mixed = {key: dice.sample(history[key], len(history[key])) for key in dice.sample(sorted(history), len(history))}
    assert pay(mixed, RULES, now_block=200_000) == payout


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
