"""What a run wrote about its steps: one line of metrics.jsonl each, which the loop appends. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from athena.events import Tail

METRICS_FILE = "metrics.jsonl"
_LAST_BYTES = 1 << 16


@dataclass(frozen=True)
class Point:
    """One step: loss in nats a token, tokens since step 0, seconds of this step, the Unix time at its end."""

    step: int
    loss: float
    lr: float
    gradient_norm: float
    tokens: int
    seconds: float
    at: float


def metrics_file(folder: Path) -> Path:
    """Where the run in this folder writes them: beside its checkpoints."""
    below = folder / "checkpoints" / METRICS_FILE
    return below if below.exists() else folder / METRICS_FILE


def last_points(folder: Path) -> list[Point]:
    """The last few hundred steps of a run, in order; none before the first. Reads the end of the file only."""
    try:
        with metrics_file(folder).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LAST_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    points: list[Point] = []
    for line in lines:
        try:
            point = _point(json.loads(line))
        except ValueError:  # cut off by a kill, or by the seek
            continue
        if point is not None:
            points.append(point)
    return points


def last_step(folder: Path) -> int:
    """The number of steps that a run has made."""
    points = last_points(folder)
    return points[-1].step if points else 0


def read_points(folder: Path) -> Iterator[Point]:
    """Every step so far, in order; a step that was made again after a kill once."""
    last = 0
    for record in Tail(metrics_file(folder)):
        point = _point(record)
        if point is not None and point.step > last:
            last = point.step
            yield point


def thinned(points: Iterable[Point], most: int) -> list[Point]:
    """At most `most` points over the same steps: each the mean of its neighbours' losses, at the last one's step.

    The first and the last step stand for themselves, so that a curve begins and ends where the run did.
    """
    every = list(points)
    if len(every) <= most:
        return every
    inner = every[1:-1]
    size = math.ceil(len(inner) / (most - 2))
    blocks = [inner[i : i + size] for i in range(0, len(inner), size)]
    return [every[0], *map(_mean, blocks), every[-1]]


def tokens_per_second(points: Sequence[Point]) -> float | None:
    """Over the steps given; None for fewer than two. The first only says where they begin: it may have compiled."""
    seconds = sum(point.seconds for point in points[1:])
    return (points[-1].tokens - points[0].tokens) / seconds if seconds > 0 else None


def loss_at(points: Sequence[Point], tokens: int, share: float = 0.05) -> float | None:
    """The mean loss over the last `share` of the steps before that many tokens; None where the run has not got there.

    One step's loss is that of one batch: noise of several percent, which hides what two runs differ by.
    """
    before = [point.loss for point in points if point.tokens <= tokens]
    if not before or points[-1].tokens < tokens:
        return None
    last = before[-max(1, round(share * len(before))) :]
    return sum(last) / len(last)


def _mean(block: list[Point]) -> Point:
    count = len(block)
    return Point(
        step=block[-1].step,
        loss=sum(p.loss for p in block) / count,
        lr=sum(p.lr for p in block) / count,
        gradient_norm=sum(p.gradient_norm for p in block) / count,
        tokens=block[-1].tokens,
        seconds=sum(p.seconds for p in block),
        at=block[-1].at,
    )


def _point(record: Mapping[str, Any]) -> Point | None:
    """None for a line that is no step."""
    try:
        return Point(
            step=int(record["step"]),
            loss=float(record["loss"]),
            lr=float(record["lr"]),
            gradient_norm=float(record["gradient_norm"]),
            tokens=int(record["tokens"]),
            seconds=float(record["seconds"]),
            at=float(record["at"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
