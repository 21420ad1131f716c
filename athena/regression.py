"""The regression gate: is a model worse than the one before it, on the very same documents? Pure, and without torch.

Item by item the two are subtracted, and the items are drawn with replacement: what all documents of a domain share
cancels, and the interval is over documents. Intervals are simultaneous over all metrics that count, so an equal model
is called worse at most one time in twenty, however many metrics there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from athena.bootstrap import Numbers, deviations, interval
from athena.evaluation import RULER, Evaluation, Metric
from athena.protocol import Hex64, Noun

RELATIVE_TOLERANCE = 0.01
"""A metric may be this much worse, relative, before it alone holds a model back; the mean over domains may not."""
CONFIDENCE = 0.95

Verdict = Literal["better", "equal", "worse"]


class MetricChange(Noun):
    """`difference` and its interval are positive where the new one is better."""

    name: str
    old: float
    new: float
    difference: float
    low: float
    high: float
    items: int
    verdict: Verdict


class Regression(Noun):
    """What `compare` found. `old` and `new` are digests of the evaluations; `reasons` say what decided.

    The first of `metrics` is the mean over domains of bits per byte.
    """

    format: Literal["athena-regression/1"] = "athena-regression/1"
    old: Hex64
    new: Hex64
    verdict: Literal["better", "equal", "worse", "incomparable"]
    reasons: tuple[str, ...]
    metrics: tuple[MetricChange, ...] = ()

    @property
    def needs_approval(self) -> bool:
        """Whether the new one may only follow the old one with a person's name and reason: it is not better."""
        return self.verdict != "better"


def compare(old: Evaluation, new: Evaluation) -> Regression:
    """The new model against the old one.

    worse: a metric is, by its interval and by over 1 %, or the mean over domains of bits per byte is, by its interval.
    better: that mean is, and no metric is worse. incomparable: other documents, or what was measured of the old one
    was not measured of the new one.
    """
    before, after = _counting(old), _counting(new)
    hindrances = _hindrances(old, new, before, after)
    if hindrances:
        return Regression(old=old.digest(), new=new.digest(), verdict="incomparable", reasons=tuple(hindrances))
    level = 1 - (1 - CONFIDENCE) / (1 + len(before))
    overall = _overall(before, after, level)
    changes = (overall, *(_change(name, before[name], after[name], level) for name in before))
    worse = [change for change in changes if change.verdict == "worse"]
    return Regression(
        old=old.digest(),
        new=new.digest(),
        verdict="worse" if worse else overall.verdict,
        reasons=tuple(map(_sentence, worse or [overall])),
        metrics=changes,
    )


def _counting(evaluation: Evaluation) -> dict[str, Metric]:
    """The metrics that can be compared item by item."""
    return {name: metric for name, metric in evaluation.metrics.items() if metric.items and metric.better is not None}


def _hindrances(
    old: Evaluation, new: Evaluation, before: Mapping[str, Metric], after: Mapping[str, Metric]
) -> list[str]:
    """Why the two cannot be compared; empty where they can."""
    names = {"eval_pack": "evaluation pack", "seed": "seed", "per_domain": "number of documents", "window": "window"}
    found = [f"measured with another {what}" for field, what in names.items() if _differ(old, new, field)]
    if not old.domains or old.domains.keys() != new.domains.keys():
        found.append("measured on other domains")
    if not all(score.document_bits for e in (old, new) for score in e.domains.values()):
        found.append("an evaluation does not hold its results by document")
    if found:
        return found
    for suite, result in old.suites.items():
        counts = any(name.startswith(f"{suite}/") for name in before)
        if counts and suite in new.suites and new.suites[suite].material != result.material:
            found.append(f"{suite} was measured on other material")
    missing = sorted(before.keys() - after.keys())
    if missing and not found:
        found.append(f"not measured of the new model: {', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}")
    unlike = [name for name in before.keys() & after.keys() if _unlike(before[name], after[name])]
    found += [f"{name} was measured on other items" for name in sorted(unlike)]
    return found


def _differ(old: Evaluation, new: Evaluation, field: str) -> bool:
    return bool(getattr(old, field) != getattr(new, field))


def _unlike(old: Metric, new: Metric) -> bool:
    return (len(old.items), old.weights, old.better) != (len(new.items), new.weights, new.better)


def _change(name: str, old: Metric, new: Metric, level: float) -> MetricChange:
    spread = _deviations(name, old, new)
    return _judged(name, old.value, new.value, _gain(old.value, new.value, old), spread, level, len(old.items))


def _overall(before: Mapping[str, Metric], after: Mapping[str, Metric], level: float) -> MetricChange:
    """The plain mean over domains. Every domain's documents are drawn on their own."""
    domains = [name for name in before if name.startswith(f"{RULER}/")]
    spreads = [_deviations(name, before[name], after[name]) for name in domains]
    known = [spread for spread in spreads if spread is not None]
    spread = np.mean(known, axis=0) if len(known) == len(spreads) else None
    old, new = (_mean(metrics[name].value for name in domains) for metrics in (before, after))
    items = sum(len(before[name].items) for name in domains)
    return _judged(RULER, old, new, old - new, spread, level, items, tolerance=0.0)


def _deviations(name: str, old: Metric, new: Metric) -> Numbers | None:
    """Of the gain, over items drawn with replacement, the same ones of both."""

    def gain(sums: Numbers) -> Numbers:
        first, second = sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]
        return np.abs(first) - np.abs(second) if old.better == "zero" else _sign(old) * (second - first)

    weights = old.weights or (1.0,) * len(old.items)
    return deviations((old.items, new.items, weights), gain, f"athena-regression:{name}".encode())


def _gain(old: float, new: float, metric: Metric) -> float:
    return abs(old) - abs(new) if metric.better == "zero" else _sign(metric) * (new - old)


def _sign(metric: Metric) -> float:
    return 1.0 if metric.better == "higher" else -1.0


def _judged(
    name: str,
    old: float,
    new: float,
    difference: float,
    spread: Numbers | None,
    level: float,
    items: int,
    tolerance: float = RELATIVE_TOLERANCE,
) -> MetricChange:
    """One item alone proves nothing: its interval is as wide as its values."""
    reach = abs(old) + abs(new)
    low, high = interval(difference, spread, level) if spread is not None else (-reach, reach)
    verdict: Verdict = "equal"
    if low > 0:
        verdict = "better"
    elif high < 0 and -difference > tolerance * abs(old):
        verdict = "worse"
    return MetricChange(
        name=name, old=old, new=new, difference=difference, low=low, high=high, items=items, verdict=verdict
    )


def _sentence(change: MetricChange) -> str:
    interval_ = f"{change.difference:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
    return f"{change.name} is {change.verdict}: {change.old:.4f} before, {change.new:.4f} now, {interval_}"


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
