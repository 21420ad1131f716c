"""The live view of runs: one row each, drawn from the table and from what the runs wrote. It decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from athena.client_http import printable
from athena.train.runs_metrics import Point, last_points, thinned
from athena.train.runs_record import Run
from athena.train.runs_view import RunView, view_of

_STYLES = {"queued": "dim", "running": "bold cyan", "done": "green", "failed": "bold red", "cancelled": "yellow"}
_BARS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 24


def render_runs(runs: Sequence[Run]) -> RenderableType:
    """A table of the runs as they are now."""
    table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
    for name in ("run", "state", "on", "step", "", "loss", "its last steps", "tokens/s", "left"):
        table.add_column(name, no_wrap=name not in ("run", "state"))
    for run in runs:
        table.add_row(*_row(run, view_of(run)))
    return table


def _row(run: Run, view: RunView) -> list[RenderableType]:
    state = Text("stopping" if view.cancelling else view.state, _STYLES[view.state])
    if view.error:
        state.append(f" {printable(view.error)[:60]}", "dim")
    steps = f"{view.step:,}" + (f" of {view.steps:,}" if view.steps else "")
    bar = ProgressBar(total=view.steps or 1, completed=min(view.step, view.steps or 0), width=16)
    return [
        Text(view.name),
        state,
        Text(", ".join(view.devices) or "-"),
        Text(steps),
        bar,
        Text("-" if view.loss is None else f"{view.loss:.4f}"),
        Text(sparkline(last_points(run.folder)), "cyan"),
        Text("-" if view.tokens_per_second is None else f"{view.tokens_per_second:,.0f}"),
        Text("-" if view.seconds_left is None else str(timedelta(seconds=round(view.seconds_left)))),
    ]


def sparkline(points: Sequence[Point]) -> str:
    """The losses of some steps as a line of bars, the highest for the highest loss."""
    losses = [point.loss for point in thinned(points, _SPARK_WIDTH)]
    if not losses or not (max(losses) - min(losses) < float("inf")):
        return ""
    low, span = min(losses), (max(losses) - min(losses)) or 1.0
    return "".join(_BARS[round((loss - low) / span * (len(_BARS) - 1))] for loss in losses)
