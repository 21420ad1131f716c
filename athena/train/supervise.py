"""Keeps a run alive: starts its processes, and starts them again from the last good checkpoint when they die.

A run that diverged, or that was given something wrong, is not started again: it would end the same. No torch here.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from athena.errors import AthenaError, Unavailable
from athena.events import EventLog
from athena.train.runs_metrics import last_step

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
DEATHS_ON_THE_SPOT = 5
"""A run that dies this often without a step further is given up."""


class RunFailed(AthenaError):
    """The run ended with an error that a restart does not mend, or dies again and again at one step."""

    code = "run-failed"


def worker_command(folder: Path, processes: int, events: Path | None = None) -> list[str]:
    """What starts a run's processes on this machine; more than one through torchrun."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    told = [] if events is None else ["--events", str(events)]
    return [sys.executable, "-m", *launcher, "athena.train.worker", "--run", str(folder), *told]


def supervise(command: Sequence[str], folder: Path, events: EventLog) -> None:
    """Runs `command` until it ends well. Raises RunFailed."""
    deaths, furthest = 0, last_step(folder)
    while True:
        code = subprocess.run(command, check=False).returncode
        if code == 0:
            return
        if code > 0 and code != Unavailable.exit_code and not _was_killed(code, command):
            raise RunFailed(f"the run in {folder} ended with exit code {code}", remedy="see what it wrote last")
        step = last_step(folder)
        deaths, furthest = (0, step) if step > furthest else (deaths + 1, furthest)
        events.emit("train.died", code=code, step=step, deaths=deaths)
        if deaths >= DEATHS_ON_THE_SPOT:
            raise RunFailed(f"the run in {folder} died {deaths} times at step {step}", remedy="see what it wrote last")
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**deaths) if deaths else 0.0
        log.warning("the run died at step %d (exit code %d); it goes on in %.0f s", step, code, pause)
        time.sleep(pause)


def _was_killed(code: int, command: Sequence[str]) -> bool:
    """torchrun ends with 1 whatever ended its processes: only what they left tells a death from a refusal."""
    return code == 1 and "torch.distributed.run" in command
