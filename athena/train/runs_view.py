"""Runs as people look at them: where each is, how fast, and what sets several apart. Reads; decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import JsonValue

from athena.protocol import Noun
from athena.train.runs_metrics import Point, last_points, loss_at, read_points, tokens_per_second
from athena.train.runs_record import PLAN_FILE, Run, RunKind, RunState


class RunView(Noun):
    """A run's row and the last line of its metrics; what is not known yet is null. Loss in nats a token."""

    name: str
    kind: RunKind
    state: RunState
    cancelling: bool
    step: int
    steps: int | None
    loss: float | None
    learning_rate: float | None
    tokens: int | None
    tokens_per_second: float | None
    seconds_left: float | None
    devices: tuple[str, ...]
    devices_wanted: int
    parent: str | None
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deaths: int
    error: str | None
    result: str | None
    folder: str
    config: dict[str, JsonValue]
    lineage: dict[str, JsonValue]


class ComparedRun(Noun):
    """One column of a comparison: `last_loss` is over the run's last steps, `loss` at the tokens that all reached."""

    name: str
    state: RunState
    steps: int
    tokens: int
    loss: float | None
    last_loss: float | None
    lowest_loss: float | None
    tokens_per_second: float | None


class Comparison(Noun):
    """`differing`: by setting or lineage field, each run's value as JSON; fields that all share are left out."""

    tokens: int
    """The tokens up to which every run got: what their losses are compared at."""
    runs: tuple[ComparedRun, ...]
    differing: dict[str, tuple[str, ...]]


def view_of(run: Run) -> RunView:
    points = last_points(run.folder)
    last = points[-1] if points else None
    steps = _planned_steps(run)
    left = None
    if last is not None and steps is not None and run.state == "running" and len(points) > 1:
        recent = points[1:][-50:]
        left = (steps - last.step) * sum(point.seconds for point in recent) / len(recent)
    return RunView(
        name=run.name,
        kind=run.spec.kind,
        state=run.state,
        cancelling=run.cancelling,
        step=last.step if last else run.step,
        steps=steps,
        loss=last.loss if last else None,
        learning_rate=last.lr if last else None,
        tokens=last.tokens if last else None,
        tokens_per_second=tokens_per_second(points[-50:]),
        seconds_left=left,
        devices=run.held,
        devices_wanted=run.spec.devices,
        parent=run.spec.parent,
        queued_at=_time(run.queued_at),
        started_at=None if run.started_at is None else _time(run.started_at),
        ended_at=None if run.ended_at is None else _time(run.ended_at),
        deaths=run.deaths,
        error=run.error,
        result=run.result,
        folder=run.spec.folder,
        config=run.spec.config,
        lineage=run.spec.lineage,
    )


def compare(runs: Sequence[Run]) -> Comparison:
    """Several runs side by side, their losses at equal tokens."""
    curves = [list(read_points(run.folder)) for run in runs]
    tokens = min((points[-1].tokens if points else 0 for points in curves), default=0)
    fields = [_flat({**run.spec.config, "lineage": run.spec.lineage}) for run in runs]
    names = sorted({name for found in fields for name in found})
    rows = {name: tuple(json.dumps(found.get(name)) for found in fields) for name in names}
    return Comparison(
        tokens=tokens,
        runs=tuple(_compared(run, points, tokens) for run, points in zip(runs, curves, strict=True)),
        differing={name: values for name, values in rows.items() if len(set(values)) > 1},
    )


def _compared(run: Run, points: Sequence[Point], tokens: int) -> ComparedRun:
    return ComparedRun(
        name=run.name,
        state=run.state,
        steps=points[-1].step if points else 0,
        tokens=points[-1].tokens if points else 0,
        loss=loss_at(points, tokens),
        last_loss=loss_at(points, points[-1].tokens) if points else None,
        lowest_loss=min((point.loss for point in points), default=None),
        tokens_per_second=tokens_per_second(points),
    )


def _planned_steps(run: Run) -> int | None:
    """As its settings say, or the plan in its folder, which a trunk has once its data is there."""
    planned = run.spec.config.get("steps")
    if planned is None:
        try:
            planned = json.loads((run.folder / PLAN_FILE).read_bytes()).get("steps")
        except (FileNotFoundError, ValueError):
            return None
    return planned if isinstance(planned, int) else None


def _flat(fields: Mapping[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    """Nested objects' fields under dotted names."""
    flat: dict[str, JsonValue] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
