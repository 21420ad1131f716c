"""What a process did, one JSON line an event: read by the demo's live view, by operators and by tests.

Watching never decides: a line that cannot be written is dropped, and no part of Athena acts on what it reads here.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class EventLog:
    """Appends `{"at": unix seconds, "pid": …, "event": name, **fields}` to one file per process; survives kill -9."""

    def __init__(self, path: Path | None) -> None:
        self._fd: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def emit(self, event: str, **fields: Any) -> None:
        if self._fd is None:
            return
        line = json.dumps({"at": round(time.time(), 3), "pid": os.getpid(), "event": event, **fields}, default=str)
        with contextlib.suppress(OSError):
            os.write(self._fd, line.encode() + b"\n")  # one write: lines of several threads never interleave


class Tail:
    """The events that a growing log got since the last look; a line cut off by a kill is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def __iter__(self) -> Iterator[Event]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


def read_events(path: Path) -> Iterator[Event]:
    """Every event of a log so far."""
    return iter(Tail(path))
