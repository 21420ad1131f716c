"""An evaluation, and how it stands to the one before it, as one HTML file that loads nothing and runs nothing."""

from __future__ import annotations

import math
from pathlib import Path

from athena.durable import write_file
from athena.evaluation import Evaluation, Metric, domain_metric
from athena.evaluations.table import better, interval_of, number, shown
from athena.page import render
from athena.regression import Regression

_TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_report(path: Path, name: str, evaluation: Evaluation, regression: Regression | None = None) -> None:
    """`name` says which model. Equal arguments give equal bytes."""
    domains = {domain: domain_metric(score) for domain, score in evaluation.domains.items()}
    changes = regression.metrics if regression is not None else ()
    page = render(
        _TEMPLATE,
        name=name,
        evaluation=evaluation,
        mean=_mean(domains),
        domains=domains,
        regression=regression,
        reach=max((max(abs(c.low), abs(c.high)) / _scale(c.old) for c in changes), default=1.0) or 1.0,
        scale=_scale,
        shown=shown,
        number=number,
        interval_of=interval_of,
        better=better,
    )
    write_file(path, page)


def _mean(domains: dict[str, Metric]) -> float:
    return math.fsum(metric.value for metric in domains.values()) / len(domains)


def _scale(old: float) -> float:
    """Changes are drawn relative to what was; of what was near zero, as they are."""
    return max(abs(old), 0.1)
