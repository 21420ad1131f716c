import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.judge.rules import rules_of
from athena.judge.score import (
    CANONICAL,
    MINER,
    RAW,
    SHUFFLED,
    canaries,
    credited,
    effect,
    time_factor,
    units,
    yield_ratio,
)
from athena.protocol import Effect

RULES = rules_of("1")


def test_effect_is_the_mean_of_clipped_differences(make_arm):
    arms = [make_arm(CANONICAL, 1, web=2.0, books=3.0), make_arm(CANONICAL, 2, web=2.2, books=3.0)]
    arms += [make_arm(MINER, 3, web=2.09, books=1.0)]
    found = effect(arms, RULES.pay)
    assert found.by_domain == pytest.approx({"web": 0.01, "books": 2.0})
    assert found.mean == pytest.approx((0.01 + 0.03) / 2)
    margin = 1.96 * RULES.pay.sigma_seed * math.sqrt(1 / 1 + 1 / 2)
    assert (found.low, found.high) == pytest.approx((found.mean - margin, found.mean + margin))


@given(st.permutations(range(5)))
def test_effect_does_not_depend_on_the_order_of_arms(order):
    from athena.protocol import Arm

    arms = [
        Arm(name=(CANONICAL, MINER)[i % 2], seed=f"{i:064x}", tokens=1, bits_per_byte={"a": 2 + 0.001 * i, "b": 3.0})
        for i in range(5)
    ]
    assert effect([arms[i] for i in order], RULES.pay) == effect(arms, RULES.pay)


def test_no_bonus_where_a_domain_is_significantly_worse():
    def found(worst: float) -> Effect:
        return Effect(mean=0.02, low=0.01, high=0.03, by_domain={"web": 0.06, "books": worst})

    assert credited(found(-0.005), RULES) == 0.02
    assert credited(found(-0.03), RULES) == 0.0
    assert credited(found(-0.03).model_copy(update={"mean": -0.01}), RULES) == -0.01


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


def test_yield_is_linear_and_capped():
    assert [yield_ratio(n, 100) for n in (0, 30, 100, 900)] == [0.0, 0.3, 1.0, 1.0]
    assert yield_ratio(0, 0) == 1.0


def test_time_factor():
    assert [time_factor(t, 100, 200, RULES.pay) for t in (0, 100, 150, 200, 900)] == pytest.approx(
        [1.0, 1.0, 0.95, 0.9, 0.9]
    )
    assert time_factor(200, 200, 200, RULES.pay) == 1.0  # everybody came at the deadline


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
