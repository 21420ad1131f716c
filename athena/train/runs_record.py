"""A run as the table knows it, and the lock that says that a process of it lives. No torch here."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from athena.errors import BadInput
from athena.protocol import Noun

PLAN_FILE = "plan.json"
"""In a run's folder: what its loop does (athena.train.plan)."""
LOCK_FILE = "run.lock"
"""In a run's folder: locked while a process of the run lives."""

RunName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
RunKind = Literal["single", "trunk", "branch"]
RunState = Literal["queued", "running", "done", "failed", "cancelled"]


class RunSpec(Noun):
    """What a run is, besides what lies in its folder."""

    name: RunName
    kind: RunKind = "single"
    """trunk: a run at a stable learning rate that grows; branch: cut from one to anneal; single: neither."""
    folder: str
    devices: Annotated[int, Field(ge=1)] = 1
    """Devices that it needs at a time."""
    parent: RunName | None = None
    """The trunk that a branch is cut from."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """How it trains, for people and for comparisons."""
    lineage: dict[str, JsonValue] = Field(default_factory=dict)
    """What it trains on, and what it goes on from."""


@dataclass(frozen=True)
class Run:
    """A row. Times are Unix seconds; `step` is the last that is known, `result` what became of a finished run."""

    spec: RunSpec
    state: RunState
    queued_at: float
    started_at: float | None
    ended_at: float | None
    deaths: int
    step: int
    cancelling: bool
    error: str | None
    result: str | None
    due_at: float
    held: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def folder(self) -> Path:
        return Path(self.spec.folder)


def spec_of_folder(folder: Path, name: str | None, devices: int) -> RunSpec:
    """A single run that lies in a folder: plan.json in it, if there is one, tells its settings.

    Raises BadInput for a name that is none, or a plan that is no JSON object.
    """
    plan = folder / PLAN_FILE
    try:
        config = json.loads(plan.read_bytes()) if plan.is_file() else {}
        return RunSpec(name=name or folder.name.lower(), folder=str(folder), devices=devices, config=config)
    except ValueError as error:  # pydantic's is one
        raise BadInput(f"{folder} cannot be queued: {error}", remedy="name it with --name, check plan.json") from error


def is_alive(folder: Path) -> bool:
    """Whether a process of the run in this folder lives, on this machine."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_run(folder: Path) -> int | None:
    """Locks a run's folder; the descriptor that holds the lock, None where another process does.

    flock's lock belongs to the open file: a child that inherits the descriptor goes on holding it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
