"""Starts queued runs as devices free up, each as a process of its own; takes dead ones back, and stops cancelled ones.

The processes die with the scheduler, even if that is killed with -9 (Linux): the next one takes their runs back, and
they go on from their checkpoints.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from athena.errors import BadInput, Unavailable
from athena.events import EventLog
from athena.train.runs_metrics import last_step
from athena.train.runs_record import Run
from athena.train.runs_table import Claim, RunTable

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # before any fork: a child of a process with threads can load nothing safely
STOP_SECONDS = 20.0  # what a process has after SIGTERM, before SIGKILL
LOG_FILE = "run.log"
"""In a run's folder: what its processes wrote."""
_LAST_WORDS_BYTES = 2000

Command = Callable[[Run], Sequence[str]]


def command_of(run: Run, events: Path | None = None) -> list[str]:
    """The process of a run. `events`: the file that it appends one JSON line per event to."""
    told = [] if events is None else ["--events", str(events)]
    size = ["--processes", str(run.spec.devices)]
    return [sys.executable, "-m", "athena.train.runs_process", "--run", str(run.folder), *size, *told]


def devices_here() -> tuple[str, ...]:
    """This machine's devices: `cuda:N` for each GPU that this process may use, else one `cpu:0`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    if visible is not None:
        indices = [index.strip() for index in visible.split(",") if index.strip()] if indices else []
    return tuple(f"cuda:{index}" for index in sorted(indices)) or ("cpu:0",)


def parse_devices(text: str) -> tuple[str, ...]:
    """`auto`, `cpu:2` (two runs at a time on the processor), or `0,1,2` (GPUs by index). Raises BadInput."""
    if text == "auto":
        return devices_here()
    kind, _, number = text.partition(":")
    if kind == "cpu" and number.isdecimal() and 0 < int(number) <= 1024:
        return tuple(f"cpu:{i}" for i in range(int(number)))
    indices = text.split(",")
    if all(index.isdecimal() for index in indices) and len(set(indices)) == len(indices):
        return tuple(f"cuda:{index}" for index in indices)
    raise BadInput(f"no devices are named by {text!r}", remedy="write auto, cpu:2 or GPU indices as 0,1,2")


@dataclass
class _Started:
    run: Run
    lock: int
    process: subprocess.Popen[bytes]
    told_at: float | None = None


class Scheduler:
    """Context manager over the processes of one table's runs on one machine; one thread's.

    Several may share a table: no run is started twice and no device given twice. `command` is for tests.
    """

    def __init__(
        self, table: RunTable, devices: Sequence[str], events: EventLog, *, command: Command | None = None
    ) -> None:
        self._table = table
        self._devices = tuple(devices)
        self._events = events
        self._command = command or command_of
        self._started: list[_Started] = []
        self._too_large: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether a run of this scheduler runs."""
        return bool(self._started)

    def tick(self) -> None:
        """Settles what ended, stops what is cancelled, takes back what died elsewhere, starts what fits."""
        for started in list(self._started):
            if started.process.poll() is not None:
                self._settle(started)
            elif self._table.run(started.run.name).cancelling:
                self._stop(started)
        for run in self._table.orphans():
            step = last_step(run.folder)
            self._table.put_back(run.name, now=time.time(), step=step, reason="its scheduler ended", give_up=True)
            self._events.emit("runs.reclaimed", run=run.name)
        while (claim := self._table.claim(self._devices, now=time.time())) is not None:
            self._start(claim)
        self._name_too_large()

    def _name_too_large(self) -> None:
        for run in self._table.runs():
            if run.state == "queued" and run.spec.devices > len(self._devices) and run.name not in self._too_large:
                self._too_large.add(run.name)
                log.warning("%s needs %d devices of %d: it waits", run.name, run.spec.devices, len(self._devices))

    def _start(self, claim: Claim) -> None:
        run = claim.run
        with (run.folder / LOG_FILE).open("ab") as output:
            process = subprocess.Popen(
                self._command(run),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_environment(run)},
                pass_fds=(claim.lock,),
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._started.append(_Started(run, claim.lock, process))
        self._events.emit("runs.started", run=run.name, child=process.pid, devices=list(run.held))
        log.info("%s runs on %s", run.name, ", ".join(run.held))

    def _settle(self, started: _Started) -> None:
        run, code = started.run, started.process.returncode
        now, step = time.time(), last_step(run.folder)
        words = _last_words(run.folder / LOG_FILE)
        if code < 0 or code == Unavailable.exit_code or self._table.run(run.name).cancelling:
            reason = f"killed by signal {-code}" if code < 0 else words
            self._table.put_back(run.name, now=now, step=step, reason=reason, give_up=code < 0)
        elif code == 0:
            self._table.finish(run.name, now=now, step=step)
        else:
            self._table.fail(run.name, words or f"exit code {code}", now=now, step=step)
        self._let_go(started)

    def _stop(self, started: _Started) -> None:
        now = time.monotonic()
        if started.told_at is None:
            started.told_at = now
            started.process.terminate()
        elif now - started.told_at > STOP_SECONDS:
            started.process.kill()

    def _let_go(self, started: _Started) -> None:
        """Only now another may start the run: its row says what became of it."""
        os.close(started.lock)
        self._started.remove(started)
        state = self._table.run(started.run.name).state
        self._events.emit("runs.ended", run=started.run.name, state=state)
        log.info("%s is %s", started.run.name, state)

    def close(self) -> None:
        """Stops all processes; their runs are queued again, at their old places."""
        living = [started for started in self._started if started.process.poll() is None]
        for ended in [started for started in self._started if started not in living]:
            self._settle(ended)
        for started in living:
            started.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for started in living:
            try:
                started.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop in time: killed", started.run.name)
                started.process.kill()
                started.process.wait()
            self._table.put_back(started.run.name, now=time.time(), step=last_step(started.run.folder))
            self._let_go(started)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _environment(run: Run) -> dict[str, str]:
    """A run sees the devices that it holds, and no others."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(device.removeprefix("cuda:") for device in run.held if "cuda" in device)}


def _last_words(path: Path) -> str:
    """The last line that a process wrote."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _LAST_WORDS_BYTES))
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _die_with_parent() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
