"""The curves of runs as one HTML page that loads nothing and runs nothing: drawn as SVG, with the numbers below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from athena.durable import write_file
from athena.page import render
from athena.train.runs_metrics import Point, read_points, thinned
from athena.train.runs_record import Run
from athena.train.runs_view import RunView, compare, view_of

_TEMPLATE = Path(__file__).with_name("curves.html.j2")
_WIDTH, _HEIGHT = 640.0, 220.0  # of the drawn area, in the units of the SVG
_MOST_POINTS = 400  # of a curve: more than a screen shows apart, little enough for a page of many runs
COLOURS = 8  # told apart in the style sheet; further runs are drawn in the same ones, dashed


@dataclass(frozen=True)
class Line:
    """A run's curve: the ends of its values and a polyline in the drawn area."""

    run: str
    colour: int
    dashed: bool
    points: str
    first: float
    last: float


@dataclass(frozen=True)
class Chart:
    """One quantity over tokens. Marks are (place in the drawn area, label)."""

    title: str
    about: str
    lines: tuple[Line, ...]
    marks_x: tuple[tuple[float, str], ...]
    marks_y: tuple[tuple[float, str], ...]


def write_curves(path: Path, runs: Sequence[Run]) -> None:
    """Writes the page. The same runs at the same step give the same bytes."""
    points = [thinned(read_points(run.folder), _MOST_POINTS) for run in runs]
    charts = [
        _chart("Loss", "Nats a token, on the batch of each step; less is better.", runs, points, lambda p: p.loss),
        _chart("Learning rate", "Its peak, then where it was led.", runs, points, lambda p: p.lr),
        _chart("Gradient norm", "Before clipping.", runs, points, lambda p: p.gradient_norm),
    ]
    views: list[RunView] = [view_of(run) for run in runs]
    page = render(
        _TEMPLATE,
        charts=[chart for chart in charts if chart.lines],
        runs=views,
        comparison=compare(runs),
        width=_WIDTH,
        height=_HEIGHT,
        colours=COLOURS,
    )
    write_file(path, page)


def _chart(
    title: str,
    about: str,
    runs: Sequence[Run],
    points: Sequence[Sequence[Point]],
    value: Callable[[Point], float],
) -> Chart:
    curves = [[(p.tokens, value(p)) for p in found if math.isfinite(value(p))] for found in points]
    values = [y for curve in curves for _, y in curve]
    most_tokens = max((x for curve in curves for x, _ in curve), default=1)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    span = (high - low) or 1.0

    def place(y: float) -> float:
        return _HEIGHT - _HEIGHT * (y - low) / span

    lines = tuple(
        Line(
            run=run.name,
            colour=index % COLOURS,
            dashed=index >= COLOURS,
            points=" ".join(f"{_WIDTH * x / most_tokens:.1f},{place(y):.1f}" for x, y in curve),
            first=curve[0][1],
            last=curve[-1][1],
        )
        for index, (run, curve) in enumerate(zip(runs, curves, strict=True))
        if curve
    )
    return Chart(
        title=title,
        about=about,
        lines=lines,
        marks_x=tuple((_WIDTH * x / most_tokens, short(x)) for x in nice_ticks(0, most_tokens) if x <= most_tokens),
        marks_y=tuple((place(y), short(y)) for y in ticks),
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that hold the span: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: 1.5M, 20k, 0.003."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
