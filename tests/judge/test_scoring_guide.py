"""The formulas of docs/scoring.md are evaluated as they stand there, and must give what the code gives."""

import re
from dataclasses import fields
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from athena import draw
from athena.judge import score
from athena.judge.rules import PayRules, ProxyRules, rules_of
from athena.judge.weights import Judged, account
from athena.protocol import Effect

GUIDE = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text("utf-8")
CONSTANTS = re.findall(r"^\| (\S+) \| (\w+) \| ([-\d.]+) \|", GUIDE, re.MULTILINE)
RULES = rules_of("1")
P = RULES.pay
IN_PYTHON = {"·": "*", "−": "-", "²": "**2", "^": "**", "√": "sqrt"}
NUM_CASES = 50
SEEDS = ((score.MINER, RULES.proxy.miner_seeds), (score.CANONICAL, RULES.proxy.canonical_seeds))


def evaluated(block, **given):
    """The names that a formula block of the guide defines, from the guide's constants and what is `given`."""
    names = {symbol: float(value) for symbol, _, value in CONSTANTS}
    functions = {
        "Σ": np.sum, "sum": np.sum, "mean": np.mean, "sqrt": np.sqrt, "clip": np.clip, "any": np.any,
        "std": lambda values: np.std(values, ddof=1), "quantile": NormalDist().inv_cdf,
    }  # fmt: skip
    names |= functions | given
    (formulas,) = re.findall(rf"```{block}\n(.*?)```", GUIDE, re.DOTALL)
    for formula in formulas.strip().splitlines():
        for sign, python in IN_PYTHON.items():
            formula = formula.replace(sign, python)
        exec(formula, names)
    return names


@pytest.fixture
def dice():
    return np.random.default_rng(5)


def test_the_constants_are_those_of_version_1():
    of_rules = {name: getattr(part, name) for part in (RULES.pay, RULES.proxy) for name in map(_name, fields(part))}
    assert {name: float(value) for _, name, value in CONSTANTS} == {name: of_rules[name] for _, name, _ in CONSTANTS}
    explained = {name for _, name, _ in CONSTANTS}
    assert set(map(_name, fields(PayRules))) - explained == {"max_pause_blocks"}  # three epochs, in words
    assert explained & set(map(_name, fields(ProxyRules))) == {"miner_seeds", "canonical_seeds"}


def _name(field):
    return field.name


def test_effect(dice, make_arm):
    for _ in range(NUM_CASES):
        bits = {name: dice.normal(1.5, 0.03, (count, 8)) for name, count in SEEDS}
        arms = [make_arm(name, **_by_domain(row)) for name, rows in bits.items() for row in rows]
        found = score.effect_of_arms(arms, {}, P)
        guide = evaluated("effect", bpb_miner=bits[score.MINER].mean(0), bpb_canonical=bits[score.CANONICAL].mean(0))
        assert (found.mean, found.low, found.high) == pytest.approx((guide["δ"], guide["low"], guide["high"]))
        assert list(found.by_domain.values()) == pytest.approx(list(guide["d"]))


def _by_domain(values):
    return {f"d{index}": float(value) for index, value in enumerate(values)}


def test_errors_of_the_documents(dice, make_measured):
    seed = bytes(32)
    for _ in range(5):
        sizes = dice.integers(50, 2000, 12)
        miner, canonical = (dice.normal(1.5, 0.1, (count, 12)) * sizes for count in (3, 6))
        runs = [
            [make_measured(name, number, sizes, web=row) for number, row in enumerate(rows)]
            for name, rows in ((score.MINER, miner), (score.CANONICAL, canonical))
        ]
        found = score.document_errors(*runs, P.bootstrap_draws, seed)
        resamples = score.resamples(draw.seed_of(seed.hex(), "documents", "web"), 12, P.bootstrap_draws)
        guide = evaluated("bootstrap", g=canonical.mean(0) - miner.mean(0), b=sizes, resamples=resamples)
        assert len(resamples) == guide["B"]
        assert found["web"] == pytest.approx(guide["e"])


def test_what_is_credited(dice):
    seen = set()
    for _ in range(NUM_CASES):
        d, e, delta = dice.normal(0.005, 0.01, 8), dice.uniform(0, 0.005, 8), float(dice.normal(0.005, 0.01))
        guide = evaluated("credited", d=d, e=e, δ=delta, num_domains=8)
        found = Effect(mean=delta, low=delta, high=delta, by_domain=_by_domain(d), errors=_by_domain(e))
        assert list(score.domain_errors(found, RULES).values()) == pytest.approx(list(guide["e_d"]))
        assert score.credited(found, RULES) == guide["credited"]
        seen.add(bool(score.harmed(found, RULES)))
    assert seen == {True, False}


def test_units(dice):
    for _ in range(NUM_CASES):
        unique, canonical, median, limit, elapsed = (int(n) for n in dice.integers(1, 1000, 5))
        limit += median
        guide = evaluated(
            "units", unique_tokens=unique, canonical_tokens=canonical, t=elapsed, t_median=median, t_limit=limit,
            n_warcs=8,
        )  # fmt: skip
        late, kept = score.time_factor(elapsed, median, limit, P), score.yield_ratio(unique, canonical)
        assert (kept, late, score.units(8, kept, late)) == pytest.approx((guide["y"], guide["τ"], guide["u"]))


def test_pay(dice):
    now, seen = 1_000_000, set()
    for _ in range(4 * NUM_CASES):
        count, level = int(dice.integers(1, 30)), float(dice.choice([-0.03, -0.006, -0.005, 0.0, 0.01]))
        age, units = dice.integers(0, 500_000, count), dice.uniform(0, 32, count)
        effects = dice.normal(level, 0.005, count)
        entries = [
            Judged(f"{i:032x}", now - int(age[i]), "pass", units=float(units[i]), effect=float(effects[i]))
            for i in range(count)
        ]
        found = account(entries, RULES, now_block=now)
        guide = evaluated("pay", age=age, u=units, δ=effects)
        assert (found.quality, found.spread) == pytest.approx((guide["q"], guide["s"]))
        assert (found.multiplier, found.weight) == pytest.approx((guide["M"], guide["W"]))
        seen.add((found.multiplier > 0, np.sign(found.multiplier - 1)))
    assert seen == {(False, -1), (True, -1), (True, 0), (True, 1)}  # nothing, less, as canonical, more
