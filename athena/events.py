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


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of an event log; a line cut off by a kill is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record
