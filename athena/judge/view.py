"""A score sheet as people look at it: domains with their intervals, runs, and what such work would be paid. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from athena.judge import score
from athena.judge.proxy.measured import Measured
from athena.judge.rules import Rules
from athena.judge.weights import Judged, account
from athena.protocol import Arm, ScoreSheet

MOST_TASKS = 40


@dataclass(frozen=True)
class Domain:
    """How much better than canonical text a model gets on a domain, bits per byte, with a 95 % interval.

    `canonical` and `miner` are means over seeds. `harmed`: significantly worse, so that no bonus is paid.
    """

    name: str
    canonical: float
    miner: float
    difference: float
    low: float
    high: float
    harmed: bool


@dataclass(frozen=True)
class Runs:
    """All runs of one kind of text: their bits per byte, each the mean over domains, and the mean of those."""

    name: str
    bits_per_byte: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class LearningCurve:
    """How models learnt from one kind of text: bits per byte of what they just read, at each of `tokens` read.

    `runs` are single models, of which `mean` is the mean. Different text is harder or easier to learn: the curves say
    how training went, not which text is better.
    """

    name: str
    tokens: tuple[int, ...]
    runs: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]


@dataclass(frozen=True)
class PayCurve:
    """What a unit pays, in units of canonical work, once so many tasks came out like this one; by 1, 2, 3, … tasks.

    `low` and `high` are for work whose effect lies at the ends of this sheet's interval.
    """

    low: tuple[float, ...]
    mean: tuple[float, ...]
    high: tuple[float, ...]


def domains(sheet: ScoreSheet, rules: Rules) -> tuple[Domain, ...]:
    """By name; none where nothing was compared."""
    if sheet.effect is None:
        return ()
    theirs, ours = (score.mean_by_domain(score.arms_named(sheet.arms, name)) for name in (score.MINER, score.CANONICAL))
    errors, harmed = score.domain_errors(sheet.effect, rules), score.harmed(sheet.effect, rules)
    return tuple(
        Domain(
            name=name,
            canonical=ours[name],
            miner=theirs[name],
            difference=value,
            low=value - score.TWO_SIDED_95 * errors[name],
            high=value + score.TWO_SIDED_95 * errors[name],
            harmed=name in harmed,
        )
        for name, value in sorted(sheet.effect.by_domain.items())
    )


def runs(arms: Sequence[Arm]) -> tuple[Runs, ...]:
    """The best kind of text first."""
    by_name = {
        name: tuple(sorted(score.mean(arm.bits_per_byte) for arm in score.arms_named(arms, name)))
        for name in {arm.name for arm in arms}
    }
    found = (Runs(name, values, sum(values) / len(values)) for name, values in by_name.items())
    return tuple(sorted(found, key=lambda runs: (runs.mean, runs.name)))


def learning_curves(measured: Sequence[Measured]) -> tuple[LearningCurve, ...]:
    """Of canonical text, then of the miner's; a kind without any curve is left out."""
    found = []
    for name in (score.CANONICAL, score.MINER):
        curves = [m.curve for m in measured if m.arm.name == name and m.curve]
        axes = [tuple(point.tokens for point in curve) for curve in curves]
        runs = tuple(
            tuple(point.bits_per_byte for point in curve)
            for curve, axis in zip(curves, axes, strict=True)
            if axis == axes[0]
        )
        if runs:
            mean = tuple(sum(values) / len(values) for values in zip(*runs, strict=True))
            found.append(LearningCurve(name, axes[0], runs, mean))
    return tuple(found)


def pay_curve(sheet: ScoreSheet, rules: Rules) -> PayCurve | None:
    """None where nothing was compared: such work is paid like canonical work."""
    if sheet.effect is None:
        return None
    credited = score.credited(sheet.effect, rules)
    margin = (sheet.effect.high - sheet.effect.low) / 2
    low, mean, high = (
        tuple(_multiplier(effect, tasks, rules) for tasks in range(1, MOST_TASKS + 1))
        for effect in (credited - margin, credited, credited + margin)
    )
    return PayCurve(low, mean, high)


def _multiplier(effect: float, tasks: int, rules: Rules) -> float:
    entries = [Judged(str(number), 0, "pass", units=1.0, effect=effect) for number in range(tasks)]
    return account(entries, rules, now_block=0).multiplier
