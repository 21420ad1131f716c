"""This side of the process that forks refinery workers: `athena.refine.worker` is the other."""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

from athena.errors import AthenaError, Unavailable
from athena.optout import LeftOut
from athena.refine.recipe import Recipe
from athena.refine.worker import FailSafe, Fork, Load, Reap

_STARTS = 2  # a server that was killed is started again; one that keeps dying is a fault of the machine
# One core per worker: what libraries would start threads for is done by more workers instead.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


class Server:
    """The process that forks workers. It ends with this one, and is started again if it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._owner = 0

    def fork(self, recipe: Recipe, left_out: LeftOut, fail_safe: FailSafe) -> tuple[int, Connection]:
        """A new worker's process id and connection. Raises what loading the recipe raises, else Unavailable."""
        with self._lock:
            for _ in range(_STARTS):
                try:
                    return self._fork(recipe, left_out, fail_safe)
                except (EOFError, OSError):
                    self._stop()
        raise Unavailable("the process that starts refinery workers keeps dying", remedy="see its messages above")

    def reap(self, pid: int) -> int:
        """How a worker ended: its exit code, negative for a signal; 1 where nobody can tell any more."""
        with self._lock:
            try:
                return int(self._ask(Reap(pid)))
            except (EOFError, OSError):
                self._stop()
                return 1

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _fork(self, recipe: Recipe, left_out: LeftOut, fail_safe: FailSafe) -> tuple[int, Connection]:
        if self._owner != os.getpid():  # a fork of the owner must not talk on its connection
            self._start()
        load = Load(pickle.dumps(recipe), recipe.hash)
        error = self._ask(load)
        if isinstance(error, AthenaError):
            raise error
        ours, theirs = Pipe()
        with theirs:
            assert self._control is not None and self._process is not None
            self._control.send(Fork(load, left_out, fail_safe))
            send_handle(self._control, theirs.fileno(), self._process.pid)
            return int(self._control.recv()), ours

    def _ask(self, request: Load | Reap) -> Any:
        if self._control is None:
            raise EOFError
        self._control.send(request)
        return self._control.recv()

    def _start(self) -> None:
        ours, theirs = Pipe()
        with theirs:
            modules = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from athena.refine.worker import main; main({theirs.fileno()})"],
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": modules},
            )  # fmt: skip
        self._control, self._owner = ours, os.getpid()

    def _stop(self) -> None:
        if self._owner != os.getpid():
            return
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None
        self._owner = 0


SERVER = Server()
"""One per process: a second dataset need not load the recipes again."""
atexit.register(SERVER.close)
