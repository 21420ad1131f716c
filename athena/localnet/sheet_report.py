"""What a judge found about one dataset, for people: tables on a terminal, or one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from athena.client_http import printable
from athena.durable import write_file
from athena.judge import view
from athena.judge.proxy.measured import Measured
from athena.judge.rules import Rules
from athena.page import render
from athena.protocol import ScoreSheet

_TEMPLATE = Path(__file__).with_name("sheet.html.j2")
_PAY_STEPS = (1, 3, 10, 30)
_BARS = "▁▂▃▄▅▆▇█"


def print_report(sheet: ScoreSheet, rules: Rules, console: Console, measured: Sequence[Measured] = ()) -> None:
    """Verdicts with their reasons; where proxies ran, domains with intervals, runs, how those learnt where `measured`
    says so, and what such work is paid."""
    verdicts = Table("gate", "verdict", "why", box=None)
    for verdict in sheet.gates:
        why = verdict.reason or evidence_line(verdict.evidence)
        verdicts.add_row(Text(printable(verdict.gate)), verdict.outcome, Text(printable(why)))
    console.print(verdicts)
    if sheet.effect is None:
        return
    domains = Table("domain", "canonical", "dataset", "better by", "95 % interval", "", box=None)
    for domain in view.domains(sheet, rules):
        domains.add_row(
            Text(printable(domain.name)), f"{domain.canonical:.4f}", f"{domain.miner:.4f}",
            f"{domain.difference:+.4f}", Text(f"[{domain.low:+.4f}, {domain.high:+.4f}]"),
            "harmed" if domain.harmed else "",
        )  # fmt: skip
    console.print(domains)
    runs = Table("runs on", "seeds", "bits per byte", box=None)
    for kind in view.runs(sheet.arms):
        runs.add_row(Text(printable(kind.name)), str(len(kind.bits_per_byte)), f"{kind.mean:.4f}")
    console.print(runs)
    _print_curves(view.learning_curves(measured), console)
    effect = sheet.effect
    console.print(
        f"{effect.mean:+.4f} [{effect.low:+.4f}, {effect.high:+.4f}] bits per byte better than canonical, "
        f"yield {sheet.yield_ratio:.2f}, time factor {sheet.time_factor:.3f}: {sheet.units:.3f} units",
        highlight=False, markup=False,
    )  # fmt: skip
    curve = view.pay_curve(sheet, rules)
    if curve is not None:
        paid = ", ".join(f"{curve.mean[tasks - 1]:.2f} after {tasks}" for tasks in _PAY_STEPS)
        console.print(f"pay for a unit of such work, canonical work is paid 1: {paid} tasks", highlight=False)


def _print_curves(curves: Sequence[view.LearningCurve], console: Console) -> None:
    """A bar for each stretch of training, all on one scale."""
    if not curves:
        return
    low, high = _span([value for curve in curves for value in curve.mean])
    table = Table("learnt on", "bits per byte of it, from the first tokens to the last", "first", "last", box=None)
    for curve in curves:
        bars = "".join(_BARS[int(len(_BARS) * (value - low) / (high - low))] for value in curve.mean)
        table.add_row(curve.name, bars, f"{curve.mean[0]:.4f}", f"{curve.mean[-1]:.4f}")
    console.print(table)


def write_page(path: Path, sheet: ScoreSheet, rules: Rules, measured: Sequence[Measured] = ()) -> None:
    """The same and more as one HTML file that loads nothing and runs nothing; equal values give equal bytes."""
    domains, runs, curve = view.domains(sheet, rules), view.runs(sheet.arms), view.pay_curve(sheet, rules)
    learnt = view.learning_curves(measured)
    page = render(
        _TEMPLATE,
        sheet=sheet,
        evidence=[[(name, _plain(value)) for name, value in verdict.evidence.items()] for verdict in sheet.gates],
        domains=domains,
        reach=max((abs(end) for domain in domains for end in (domain.low, domain.high)), default=1.0) or 1.0,
        runs=runs,
        span=_span([value for kind in runs for value in kind.bits_per_byte]),
        learnt=[_drawn(found, learnt) for found in learnt],
        scale=_span([value for found in learnt for values in found.runs for value in values]),
        most_tokens=max((found.tokens[-1] for found in learnt), default=0),
        curve=curve,
        lines=[] if curve is None else [_points(values, rules) for values in (curve.low, curve.high, curve.mean)],
        most_paid=1 + rules.pay.bonus,
        most_tasks=view.MOST_TASKS,
    )
    write_file(path, page)


def evidence_line(evidence: Mapping[str, JsonValue]) -> str:
    """The numbers of a verdict in one line."""
    return ", ".join(f"{name} {_plain(value)}" for name, value in evidence.items())


def _plain(value: JsonValue) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """From where to where a scale goes that holds the values."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.01
    return low - margin, high + margin


@dataclass(frozen=True)
class _Drawn:
    """A learning curve in a box of 100 by 40: points of its mean, and of each run a polyline."""

    curve: view.LearningCurve
    mean: tuple[tuple[str, str], ...]
    runs: tuple[str, ...]

    @property
    def line(self) -> str:
        return " ".join(map(",".join, self.mean))


def _drawn(curve: view.LearningCurve, among: Sequence[view.LearningCurve]) -> _Drawn:
    """On the scales of all the curves: tokens to the right, bits per byte upwards."""
    low, high = _span([value for other in among for values in other.runs for value in values])
    most = max(other.tokens[-1] for other in among)

    def placed(values: Sequence[float]) -> tuple[tuple[str, str], ...]:
        return tuple(
            (f"{100 * tokens / most:.2f}", f"{40 - 40 * (value - low) / (high - low):.2f}")
            for tokens, value in zip(curve.tokens, values, strict=True)
        )

    return _Drawn(curve, placed(curve.mean), tuple(" ".join(map(",".join, placed(run))) for run in curve.runs))


def _points(values: Sequence[float], rules: Rules) -> str:
    """A polyline in a box of 100 by 40: tasks to the right, pay upwards."""
    most = 1 + rules.pay.bonus
    step = 100 / (len(values) - 1)
    return " ".join(f"{index * step:.2f},{40 - 40 * value / most:.2f}" for index, value in enumerate(values))
