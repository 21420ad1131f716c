import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athena.judge.proxy.measured import Measured
from athena.judge.rules import rules_of
from athena.judge.score import (
    CANONICAL,
    MINER,
    RAW,
    SHUFFLED,
    canaries,
    credited,
    document_errors,
    effect,
    effect_of_arms,
    harmed,
    resamples,
    spread,
    time_factor,
    units,
    yield_ratio,
)
from athena.protocol import Arm, Effect

RULES = rules_of("1")
SEED = bytes(32)


def test_effect_is_the_mean_of_clipped_differences(make_arm):
    arms = [make_arm(CANONICAL, 1, web=2.0, books=3.0), make_arm(CANONICAL, 2, web=2.2, books=3.0)]
    arms += [make_arm(MINER, 3, web=2.09, books=1.0)]
    found = effect_of_arms(arms, {"web": 0.002}, RULES.pay)
    assert found.by_domain == pytest.approx({"web": 0.01, "books": 2.0})
    assert found.errors == {"web": 0.002}
    assert found.mean == pytest.approx((0.01 + 0.03) / 2)
    margin = 1.96 * RULES.pay.sigma_seed * math.sqrt(1 / 1 + 1 / 2)
    assert (found.low, found.high) == pytest.approx((found.mean - margin, found.mean + margin))


@pytest.fixture(scope="module")
def runs():
    """Five runs of two arms on two domains of ten documents."""
    dice = np.random.default_rng(0)
    sizes = {domain: [int(n) for n in dice.integers(100, 2000, 10)] for domain in ("web", "books")}
    return [
        Measured.of(
            (CANONICAL, MINER)[number % 2], f"{number:064x}", 1,
            {domain: list(dice.normal(1.5, 0.1, 10) * sizes[domain]) for domain in sizes}, sizes,
        )
        for number in range(5)
    ]  # fmt: skip


@given(st.permutations(range(5)))
@settings(max_examples=20)
def test_effect_does_not_depend_on_the_order_of_arms(runs, order):
    assert effect([runs[i] for i in order], RULES.pay, SEED) == effect(runs, RULES.pay, SEED)


def test_effect_is_that_of_its_arms(runs):
    found = effect(runs, RULES.pay, SEED)
    assert effect_of_arms([run.arm for run in runs], found.errors, RULES.pay) == found
    assert effect(runs, RULES.pay, bytes(31) + b"1").errors != found.errors


@given(st.data())
@settings(max_examples=40)
def test_text_that_teaches_more_never_has_a_lower_effect(data):
    bits = st.floats(0.5, 4)
    ours, theirs = ({domain: data.draw(bits) for domain in "abc"} for _ in range(2))
    better = {domain: value - data.draw(st.floats(0, 0.5)) for domain, value in theirs.items()}
    errors = {domain: data.draw(st.floats(0, 0.05)) for domain in "abc"}

    def found(miner):
        arms = [
            Arm(name=name, seed="0" * 64, tokens=1, bits_per_byte=b) for name, b in ((CANONICAL, ours), (MINER, miner))
        ]
        return effect_of_arms(arms, errors, RULES.pay)

    assert found(better).mean >= found(theirs).mean
    assert credited(found(better), RULES) >= credited(found(theirs), RULES)
    assert abs(found(better).mean) <= RULES.pay.clip


def test_errors_of_documents_are_those_of_a_ratio_of_sums(make_measured):
    """Against the linear approximation of a ratio's variance (W. G. Cochran, Sampling Techniques, 1977, §6.4)."""
    dice = np.random.default_rng(1)
    sizes = dice.integers(200, 2000, 64)
    gained = dice.normal(0.01, 0.05, 64) * sizes
    miner, canonical = (
        make_measured(MINER, 0, sizes, web=3 * sizes),
        make_measured(CANONICAL, 1, sizes, web=3 * sizes + gained),
    )
    found = document_errors([miner], [canonical], 2000, SEED)
    residuals = gained - gained.sum() / sizes.sum() * sizes
    assert found["web"] == pytest.approx(math.sqrt((residuals**2).sum()) / sizes.sum(), rel=0.1)
    assert document_errors([canonical], [canonical], 10, SEED) == {"web": 0.0}


def test_more_seeds_and_more_documents_give_smaller_errors(make_measured):
    dice = np.random.default_rng(2)

    def error(num_seeds, num_documents):
        sizes = np.full(num_documents, 1000)
        arms = [
            [make_measured(name, i, sizes, web=dice.normal(1500, 100, num_documents)) for i in range(num_seeds)]
            for name in (MINER, CANONICAL)
        ]
        return document_errors(*arms, 400, SEED)["web"]

    assert error(1, 20) > 1.5 * error(4, 20) > 2 * error(4, 160)


def test_resamples_are_drawn_evenly():
    picked = resamples(SEED, 7, 5000)
    assert picked.shape == (5000, 7)
    assert np.bincount(picked.ravel().astype(int), minlength=7) == pytest.approx(5000, rel=0.05)


def test_one_interval_in_twenty_excludes_zero_where_nothing_differs(make_arm):
    """The null: with noise of σ_B over seeds and no difference, 5 % of the intervals declare one."""
    dice, draws, declared = np.random.default_rng(3), 3000, 0
    names = [MINER] * RULES.proxy.miner_seeds + [CANONICAL] * RULES.proxy.canonical_seeds
    # Bits by domain with σ_B as the deviation of their mean: noise of an arm as a whole, and of each domain.
    whole, alone = 0.8 * RULES.pay.sigma_seed, 0.6 * RULES.pay.sigma_seed * math.sqrt(4)
    for bits in 1.5 + dice.normal(0, whole, (draws, len(names), 1)) + dice.normal(0, alone, (draws, len(names), 4)):
        arms = [make_arm(name, **dict(zip("abcd", row, strict=True))) for name, row in zip(names, bits, strict=True)]
        found = effect_of_arms(arms, {}, RULES.pay)
        declared += not found.low <= 0 <= found.high
    assert declared / draws == pytest.approx(0.05, abs=0.012)


def test_harmless_data_seldom_loses_its_bonus():
    dice, draws, lost = np.random.default_rng(4), 4000, 0
    documents = 0.004
    seeds = spread(RULES.pay.sigma_domain, RULES.proxy.miner_seeds, RULES.proxy.canonical_seeds)
    for values in dice.normal(0, math.hypot(seeds, documents), (draws, 8)):
        by_domain = {f"d{index}": float(value) for index, value in enumerate(values)}
        found = Effect(mean=0, low=0, high=0, by_domain=by_domain, errors=dict.fromkeys(by_domain, documents))
        lost += bool(harmed(found, RULES))
    assert lost / draws == pytest.approx(0.05, abs=0.012)


def test_no_bonus_where_a_domain_is_significantly_worse():
    def found(worst: float, error: float = 0.0) -> Effect:
        by_domain = {"web": 0.06, "books": worst}
        return Effect(mean=0.02, low=0.01, high=0.03, by_domain=by_domain, errors={"books": error})

    assert credited(found(-0.005), RULES) == 0.02
    assert credited(found(-0.03), RULES) == 0.0
    assert credited(found(-0.03, error=0.02), RULES) == 0.02  # other documents might have said otherwise
    assert credited(found(-0.03).model_copy(update={"mean": -0.01}), RULES) == -0.01
    assert harmed(found(-0.03), RULES) == ["books"]
    assert harmed(Effect(mean=0, low=0, high=0, by_domain={}), RULES) == []


@pytest.mark.parametrize(
    ("canonical", "raw", "shuffled", "outcome"),
    [
        (2.0, 2.2, 3.0, "pass"),
        (2.0, 2.0, 3.0, "pass"),  # a tie is no wrong order: a WARC file may hold clean pages only
        (2.0, 2.6, 2.3, "pass"),  # raw text in another language may be worse than shuffled words
        (2.2, 2.0, 3.0, "none"),
        (2.0, 2.2, 2.0, "none"),
        (2.0, 2.2, 1.9, "none"),
    ],
)
def test_canaries(make_arm, canonical, raw, shuffled, outcome):
    arms = [make_arm(CANONICAL, web=canonical), make_arm(RAW, web=raw), make_arm(SHUFFLED, web=shuffled)]
    assert canaries(arms, RULES).outcome == outcome


def test_sound_canaries_seldom_make_a_validator_abstain(make_arm):
    """Where raw text teaches exactly as much as canonical, the worst case, about one in twenty draws abstains."""
    dice, draws, abstained = np.random.default_rng(6), 2000, 0
    counts = {CANONICAL: RULES.proxy.canonical_seeds, RAW: RULES.proxy.canary_seeds, SHUFFLED: RULES.proxy.canary_seeds}
    for _ in range(draws):
        arms = [
            make_arm(name, web=dice.normal(1.5 + 0.2 * (name == SHUFFLED), RULES.pay.sigma_seed))
            for name, count in counts.items()
            for _ in range(count)
        ]
        abstained += canaries(arms, RULES).outcome == "none"
    assert abstained / draws == pytest.approx(0.05, abs=0.015)


def test_yield_is_linear_and_capped():
    assert [yield_ratio(n, 100) for n in (0, 30, 100, 900)] == [0.0, 0.3, 1.0, 1.0]
    assert yield_ratio(0, 0) == 1.0


def test_time_factor():
    assert [time_factor(t, 100, 200, RULES.pay) for t in (0, 100, 150, 200, 900)] == pytest.approx(
        [1.0, 1.0, 0.95, 0.9, 0.9]
    )
    assert time_factor(200, 200, 200, RULES.pay) == 1.0  # everybody came at the deadline


times = st.integers(0, 10**6)


@given(times, times, times, times, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_units_rise_with_yield_and_fall_with_time(elapsed, later, median, limit, unique, more, canonical):
    factor = time_factor(elapsed, median, limit, RULES.pay)
    assert 1 - RULES.pay.max_time_penalty <= time_factor(elapsed + later, median, limit, RULES.pay) <= factor <= 1
    kept = yield_ratio(unique, canonical)
    assert 0 <= kept <= yield_ratio(unique + more, canonical) <= 1
    assert 0 <= units(32, kept, factor) <= units(32, yield_ratio(unique + more, canonical), factor) <= 32


def test_units_are_linear_in_warcs():
    assert units(8, 0.5, 0.9) == pytest.approx(3.6)


@pytest.mark.parametrize("version", ["1", "demo-1"])
def test_rules_are_consistent(version):
    rules = rules_of(version)
    assert rules.version == version and rules_of(version) is rules
    assert rules.proxy.hidden_size % (2 * rules.proxy.num_heads) == 0
    assert rules.gates.provenance_rows <= rules.gates.provenance_rows_on_suspicion
    with pytest.raises(dataclasses.FrozenInstanceError):
        rules.version = "2"
