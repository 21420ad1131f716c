"""Arms of the proxy comparison: jobs, and the processes that do them. No torch.

What others need of the proxy is found here: the text of arms, evaluation sets, jobs, workers and what they measured.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from athena.errors import Unavailable
from athena.judge.proxy.evaluation import EvalSet
from athena.judge.proxy.measured import Measured
from athena.judge.proxy.texts import Ids, load_documents, proxy_tokenizer, save_documents, tokenize
from athena.judge.rules import ProxyRules
from athena.protocol import Arm, Hex64

__all__ = [
    "EvalSet", "Ids", "Job", "Measured", "ProxyWorkers", "devices_here", "load_documents", "proxy_tokenizer",
    "save_documents", "tokenize",
]  # fmt: skip

CPU = "cpu"
_MODULE = [sys.executable, "-m", "athena.judge.proxy.training"]
_START_SECONDS = 120


class Job(BaseModel):
    """One arm to train and measure. All that decides the result is in here and in the files that it names.

    The trained model is kept in `model`: another measurement of the arm does not train it again. With `base`, a model
    of the same shape, the arm goes on from there instead of from scratch.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    seed: Hex64
    budget_tokens: int
    documents: Path
    evaluation: Path
    rules: ProxyRules
    model: Path
    result: Path
    base: Path | None = None

    def stacks_with(self, other: Job) -> bool:
        """Whether both differ in nothing but their seeds, so that one device can train them side by side."""
        own = {"name", "seed", "model", "result"}
        return self.model_dump(exclude=own) == other.model_dump(exclude=own)


ORDER = TypeAdapter(tuple[Job, ...])
"""A line of a worker's input: jobs that stack."""
DONE = b"done\n"
"""Its answer, once the results lie in place."""


def devices_here() -> tuple[str, ...]:
    """The CUDA devices that torch finds, `cuda:0` and so on; where there are none, the CPU. Takes seconds with a GPU.

    Raises Unavailable when torch does not answer.
    """
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return (CPU,)
    try:
        asked = subprocess.run([*_MODULE, "--devices"], stdout=subprocess.PIPE, timeout=_START_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"cannot tell the devices of this machine: {error}") from error
    return tuple(asked.stdout.decode().split()) or (CPU,)


class ProxyWorkers:
    """Worker processes, started when needed and kept for the next arms: `parallel` single-threaded ones on the CPU, one
    on every other device.

    Cases may share them from several threads: no arm is trained twice at a time, and whoever asks for one that another
    process finished takes it from disk. `close` is final.
    """

    def __init__(self, parallel: int = 1, devices: Sequence[str] = (CPU,)) -> None:
        self._workers = [_Worker(device) for device in devices for _ in range(parallel if device == CPU else 1)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._stacking = any(device != CPU for device in devices)
        self._claimed: set[Path] = set()
        self._released = threading.Condition()

    def run(self, jobs: Sequence[Job], finished: Callable[[Arm], None]) -> list[Measured]:
        """What the jobs' arms measured, in order. Arms whose results lie on disk are not trained again.

        `finished` is called for each arm as it is done. Raises Unavailable when a worker dies or takes too long: a
        fault of this machine. Arms in training are finished first, so that their results are there the next time.
        """
        stacks = self._stacks(jobs)
        found: dict[Path, Measured] = {}
        with ThreadPoolExecutor(len(self._workers)) as executor:
            futures = {executor.submit(self._finish, stack): stack for stack in stacks}
            try:
                for future in as_completed(futures):
                    for job, measured in zip(futures[future], future.result(), strict=True):
                        found[job.result] = measured
                        finished(measured.arm)
            except BaseException as error:
                for future in futures:
                    future.cancel()
                if not isinstance(error, Exception):
                    self.close()  # who interrupts does not wait for arms
                raise
        return [found[job.result] for job in jobs]

    def close(self) -> None:
        """Ends the workers; a `run` in another thread raises Unavailable."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stacks(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Jobs that are done together: on a CPU stacking gains nothing, and single ones spread better."""
        stacks: list[list[Job]] = []
        for job in jobs:
            stack = next((s for s in stacks if self._stacking and s[0].stacks_with(job)), None)
            if stack is None:
                stacks.append([job])
            else:
                stack.append(job)
        return stacks

    def _finish(self, stack: Sequence[Job]) -> list[Measured]:
        with self._claim({job.model for job in stack}):
            missing = tuple(job for job in stack if _read(job.result) is None)
            if missing:
                worker = self._idle.get()
                try:
                    worker.do(missing)
                finally:
                    self._idle.put(worker)
            found = [measured for job in stack if (measured := _read(job.result)) is not None]
        if len(found) < len(stack):
            raise Unavailable(f"a proxy worker left no result for {stack[0].name}")
        return found

    @contextmanager
    def _claim(self, models: set[Path]) -> Iterator[None]:
        """Waits until no other thread trains any of these models."""
        with self._released:
            self._released.wait_for(lambda: not models & self._claimed)
            self._claimed |= models
        try:
            yield
        finally:
            with self._released:
                self._claimed -= models
                self._released.notify_all()


class _Worker:
    """A place for one worker process on `device`. One thread at a time uses it; any thread may close it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._starting, self._in_use = threading.Lock(), threading.Lock()

    def do(self, jobs: tuple[Job, ...]) -> None:
        """Has the jobs' results put in place. Raises Unavailable, and ends the process, when that fails."""
        with self._in_use:
            process = self._running()
            seconds = sum(job.rules.arm_seconds for job in jobs)
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(ORDER.dump_json(jobs) + b"\n")
                process.stdin.flush()
                ready, _, _ = select.select([process.stdout], [], [], seconds)
                answer = process.stdout.readline() if ready else b""
            except OSError as error:
                self._end()
                raise Unavailable(f"a proxy worker broke off: {error}") from error
            if answer != DONE:
                self._end()
                raise Unavailable("a proxy worker died" if ready else f"a proxy worker took over {seconds} s")

    def close(self) -> None:
        with self._starting:
            self._closed = True
            if self._process is not None:
                self._process.kill()  # whoever waits for its answer reads the end of its output
        with self._in_use:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._closed:
                raise Unavailable("the proxy workers are closed")
            if self._process is None:
                self._process = subprocess.Popen(
                    [*_MODULE, self._device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
                )
            return self._process

    def _end(self) -> None:
        with self._starting:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()  # closes its pipes and waits


def _environment() -> dict[str, str]:
    """One thread; CUDA sums in one order."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def _read(path: Path) -> Measured | None:
    """A finished arm; None if there is none, or not a whole one."""
    try:
        return Measured.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
