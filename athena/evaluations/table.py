"""Evaluations as a table of a model card. No torch."""

from __future__ import annotations

from athena.evaluation import Evaluation, Metric, domain_metric


def card_table(after: Evaluation, before: Evaluation | None = None) -> str:
    """Markdown: a row for each domain, with what the model read there before its first step where that is known, then
    a row for each number of the suites that has a better and a worse side, then what did not run and why."""
    lines = _domains(after, before)
    rows = [
        f"| {suite}: {name} | {shown(metric)} | {interval_of(metric)} | {better(metric)} |"
        for suite, result in after.suites.items()
        for name, metric in result.metrics.items()
        if metric.better is not None
    ]
    if rows:
        lines += ["", "| measure | value | 95 % interval | better |", "|---|---:|---:|---|", *rows]
    skipped = [f"- {suite}: {result.not_run}" for suite, result in after.suites.items() if result.not_run is not None]
    if skipped:
        lines += ["", "Not run:", "", *skipped]
    return "\n".join(lines)


def shown(metric: Metric) -> str:
    return f"{number(metric.value)} {metric.unit}".strip()


def number(value: float) -> str:
    """Four decimals, one of what is large, none of what is larger."""
    decimals = 4 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{decimals}f}"


def interval_of(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return "-"
    return f"{number(metric.low)} to {number(metric.high)}"


def better(metric: Metric) -> str:
    return {"lower": "lower", "higher": "higher", "zero": "nearer to zero", None: "-"}[metric.better]


def _domains(after: Evaluation, before: Evaluation | None) -> list[str]:
    lines = [
        "| domain | documents | bytes | untrained | trained | 95 % interval |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for domain, score in after.domains.items():
        untrained = before.domains.get(domain) if before is not None else None
        start = "-" if untrained is None else f"{untrained.bits_per_byte:.4f}"
        interval = interval_of(domain_metric(score))
        lines.append(
            f"| {domain} | {score.documents:,} | {score.bytes:,} | {start} | {score.bits_per_byte:.4f} | {interval} |"
        )
    return lines
