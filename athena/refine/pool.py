"""Worker processes that put records through a recipe: results in the order of the records, whatever happens to one."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.refine.fork_server import SERVER
from athena.refine.recipe import Document, Recipe, Rejected
from athena.refine.records import Record
from athena.refine.worker import CRASHED, MEMORY, TIMEOUT, WITHIN_A_GIB, FailSafe

ATTEMPTS = 2
"""A record that a worker ends on gets a second, fresh one: a worker killed from outside costs no record."""

_PATIENCE_SECONDS = 0.5  # between two beats while all workers are busy
# One list of records is on its way to each worker: a few tenths of a second of work.
_LIST_RECORDS = 16
_LIST_BYTES = 2 << 20
# How far results may run ahead of one slow record. Only results wait, never pages.
_AHEAD_RECORDS = 4096
_AHEAD_CHARS = 64 << 20


@dataclass(frozen=True)
class Outcome:
    """What the recipe made of the record from `url`, at `offset` in its source."""

    url: str
    offset: int
    result: Document | Rejected


@dataclass(frozen=True)
class _Task:
    index: int
    record: Record
    attempts: int = 0


@dataclass(eq=False)
class _Worker:
    pid: int
    connection: Connection
    tasks: deque[_Task] = field(default_factory=deque)


class Pool:
    """`workers` processes with one thread each, to be used in a `with` statement."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        workers: int = 1,
        left_out: LeftOut = NOTHING_LEFT_OUT,
        fail_safe: FailSafe = WITHIN_A_GIB,
    ) -> None:
        self._recipe, self._left_out = recipe, left_out
        self._fail_safe = fail_safe
        self._count = workers
        self.replaced = 0
        """How many workers died and were replaced."""
        self._workers: set[_Worker] = set()
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in tuple(self._workers):
            self._end(worker)
        self._selector.close()

    @property
    def busy(self) -> int:
        """How many workers have records."""
        return sum(bool(worker.tasks) for worker in self._workers)

    def outcomes(self, records: Iterable[Record], beat: Callable[[], None]) -> Iterator[Outcome]:
        """One outcome per record, in order; one such run at a time. `beat` is called often, and ends it by raising.

        A record that cannot be decided is `Rejected` with reason none.crashed, none.memory or none.timeout. Raises
        what `records` raises, what loading the recipe raises, and Unavailable where no process can be started.
        """
        run = _Run(iter(records))
        while True:
            beat()
            run.read_ahead()
            while run.waiting and (idle := self._idle()) is not None:
                self._give(idle, run)
            yield from run.finished()
            if run.over:
                return
            for key, _ in self._selector.select(0.0 if run.wants_more else _PATIENCE_SECONDS):
                self._take(key.data, run)

    def _idle(self) -> _Worker | None:
        """A worker without records; a new one as long as there are too few."""
        for worker in self._workers:
            if not worker.tasks:
                return worker
        if len(self._workers) == self._count:
            return None
        worker = _Worker(*SERVER.fork(self._recipe, self._left_out, self._fail_safe))
        self._workers.add(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        return worker

    def _give(self, worker: _Worker, run: _Run) -> None:
        """Sends a worker that waits its next records: it reads at once, so this cannot block for long."""
        worker.tasks.extend(run.next_list())
        try:
            worker.connection.send([task.record for task in worker.tasks])
        except OSError:
            self._bury(worker, run)

    def _take(self, worker: _Worker, run: _Run) -> None:
        try:
            result = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker, run)
            return
        if isinstance(result, Rejected) and result.reason == MEMORY:
            self._bury(worker, run, MEMORY)  # it ends itself
        else:
            run.settle(worker.tasks.popleft(), result)

    def _bury(self, worker: _Worker, run: _Run, reason: str | None = None) -> None:
        """Takes a dead worker's records back. The first is what it died of, as far as one can tell."""
        code = self._end(worker)
        self.replaced += 1
        if worker.tasks:
            at_fault = worker.tasks.popleft()
            run.waiting.extendleft(reversed(worker.tasks))
            run.failed(at_fault, reason or (TIMEOUT if code == -signal.SIGALRM else CRASHED))

    def _end(self, worker: _Worker) -> int:
        self._workers.discard(worker)
        self._selector.unregister(worker.connection)
        worker.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        return SERVER.reap(worker.pid)


class _Run:
    """The records of one call: read, given out, settled, and passed on in order."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._read = 0
        self._passed_on = 0
        self._exhausted = False
        self._settled: dict[int, Outcome] = {}
        self._ahead_chars = 0
        self.waiting: deque[_Task] = deque()

    @property
    def over(self) -> bool:
        return self._exhausted and self._passed_on == self._read

    @property
    def wants_more(self) -> bool:
        """Whether the next list is not full yet, and results do not run too far ahead."""
        room = self._read - self._passed_on < _AHEAD_RECORDS and self._ahead_chars < _AHEAD_CHARS
        return not self._exhausted and room and len(self.waiting) < _LIST_RECORDS

    def read_ahead(self) -> None:
        """One record: between two, workers are listened to, so that none waits for a slow source."""
        if not self.wants_more:
            return
        record = next(self._records, None)
        if record is None:
            self._exhausted = True
        else:
            self.waiting.append(_Task(self._read, record))
            self._read += 1

    def next_list(self) -> Iterator[_Task]:
        size = 0
        for _ in range(_LIST_RECORDS):
            if not self.waiting or size > _LIST_BYTES:
                return
            task = self.waiting.popleft()
            size += len(task.record.body)
            yield task

    def settle(self, task: _Task, result: Document | Rejected) -> None:
        self._settled[task.index] = Outcome(task.record.url, task.record.offset, result)
        self._ahead_chars += _chars(result)

    def failed(self, task: _Task, reason: str) -> None:
        """Tries the record once more, as the first of a list, or gives it up."""
        if task.attempts + 1 < ATTEMPTS:
            self.waiting.appendleft(_Task(task.index, task.record, task.attempts + 1))
        else:
            self.settle(task, Rejected(reason))

    def finished(self) -> Iterator[Outcome]:
        while (outcome := self._settled.pop(self._passed_on, None)) is not None:
            self._ahead_chars -= _chars(outcome.result)
            self._passed_on += 1
            yield outcome


def _chars(result: Document | Rejected) -> int:
    return len(result.row["text"]) if isinstance(result, Document) else 0
