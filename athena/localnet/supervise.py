"""Runs the processes of a local network: starts them, restarts what dies, stops all of them, leaves none behind."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from athena.errors import AthenaError, Unavailable
from athena.events import EventLog, read_events

log = logging.getLogger("athena.localnet")
PR_SET_PDEATHSIG = 1  # linux/prctl.h
MAX_RESTARTS = 5
STOP_SECONDS = 10.0


class ProcessFailed(AthenaError):
    """A process of the local network ended with an error that a restart does not mend."""

    code = "process-failed"


@dataclass(frozen=True)
class Room:
    """One process: `module` is run with `python -m`. Its output goes to `log_file`, its events to `event_file`."""

    name: str
    module: str
    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log_file(self) -> Path:
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def event_file(self) -> Path:
        return self.folder / "events" / f"{self.name}.jsonl"

    def events(self, name: str | None = None) -> Iterator[dict[str, Any]]:
        return (e for e in read_events(self.event_file) if name is None or e["event"] == name)

    def last_words(self, lines: int = 5) -> str:
        """The end of the log, for error messages."""
        return "\n".join(self.log_file.read_text("utf-8", "replace").splitlines()[-lines:])


@dataclass
class _Running:
    room: Room
    process: subprocess.Popen[bytes]
    restarts: int = 0


class Supervisor:
    """Context manager over a set of rooms. Every child has a session of its own, so that a Ctrl-C at the terminal
    reaches the supervisor alone, and dies with the supervisor even if that is killed with -9 (Linux)."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._running: dict[str, _Running] = {}

    def start(self, room: Room) -> None:
        room.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._running[room.name] = _Running(room, self._spawn(room))

    def _spawn(self, room: Room) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", room.module, *room.arguments]
        with room.log_file.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **room.environment},
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._events.emit("room.started", room=room.name, child=process.pid)
        return process

    def pid(self, name: str) -> int:
        return self._running[name].process.pid

    def watch(self) -> None:
        """Restarts what was killed or died. Raises ProcessFailed for what refuses to run."""
        for running in self._running.values():
            code = running.process.poll()
            if code is None or code == 0:
                continue
            room = running.room
            _kill_group(running.process.pid, signal.SIGKILL)  # whatever the dead process had started
            if (code > 0 and code not in (1, Unavailable.exit_code)) or running.restarts >= MAX_RESTARTS:
                raise ProcessFailed(
                    f"{room.name} ended with exit code {code}:\n{room.last_words()}", remedy=f"see {room.log_file}"
                )
            running.restarts += 1
            log.warning("%s ended (%s): restart %d", room.name, code, running.restarts)
            running.process = self._spawn(room)

    def finished(self, name: str) -> bool:
        """Whether a room ended by itself and in order."""
        return self._running[name].process.poll() == 0

    def wait(self, done: Callable[[], bool], *, what: str, seconds: float, pause: float = 0.1) -> None:
        """Watches until `done()`. Raises Unavailable after `seconds`."""
        deadline = time.monotonic() + seconds
        while not done():
            self.watch()
            if time.monotonic() > deadline:
                raise Unavailable(f"{what} took longer than {seconds:.0f} s", remedy="see the logs folder")
            time.sleep(pause)

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to what is left after ten seconds, and to whatever their groups still hold."""
        for running in self._running.values():
            if running.process.poll() is None:
                running.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for running in self._running.values():
            try:
                running.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop in time: killed", running.room.name)
            _kill_group(running.process.pid, signal.SIGKILL)
            running.process.wait()
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the clean-up
        try:
            self.stop()
        finally:
            signal.signal(signal.SIGINT, previous)


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
