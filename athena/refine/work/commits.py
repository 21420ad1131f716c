"""A hotkey's one commitment on chain at a time: finished datasets queue for theirs, the nearest deadline first."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from athena.chain.client import Chain
from athena.errors import AthenaError, RateLimited, Unavailable

log = logging.getLogger("athena.miner")

BUSY_SECONDS = 1.0
"""Between two looks at the chain while somebody waits."""
IDLE_SECONDS = 60.0
"""The same while nobody does: how old the head may be that `check` goes by."""
SETTLE_BLOCKS = 4
"""From the finalized head that is read to the block that a commitment sent now lands in."""


class Late(AthenaError):
    """The task's deadline comes before the commitment could: whatever is finished now is not paid."""

    code = "late"


@dataclass(eq=False)
class _Entry:
    """A text that waits. `done` becomes running once it is sent, and cannot be withdrawn from then on."""

    text: str
    deadline_block: int
    number: int
    done: Future[None] = field(default_factory=Future)


class CommitQueue:
    """Commits texts for one hotkey, in a thread of its own: whoever waits for a commitment keeps nobody else waiting.

    The chain keeps only the last commitment of a hotkey, and validators read at multiples of `read_blocks`: two such
    intervals lie between two commitments, or the first might never be read. The chain is used by the thread alone.
    """

    def __init__(self, chain: Chain, hotkey: str, *, sealed: bool, read_blocks: int) -> None:
        self.sealed = sealed
        self._chain, self._hotkey = chain, hotkey
        self._spacing = 2 * read_blocks
        self._waiting: list[_Entry] = []
        self._numbers = itertools.count()
        self._head = self._free_at = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="commits", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def commit(self, text: str, deadline_block: int, alive: Callable[[], None]) -> None:
        """Returns once `text` is committed.

        Raises Late as soon as its turn cannot come before `deadline_block`, and what the chain raises. `alive` is
        called about every second; what it raises withdraws the text, unless it is on its way already.
        """
        entry = _Entry(text, deadline_block, next(self._numbers))
        with self._changed:
            self._waiting.append(entry)
            self._changed.notify_all()
        try:
            while True:
                try:
                    return entry.done.result(timeout=BUSY_SECONDS)
                except TimeoutError:
                    alive()
        finally:
            entry.done.cancel()

    def check(self, deadline_block: int) -> None:
        """Raises Late where a dataset that were finished now could not be committed in time."""
        with self._changed:
            before = sum(not e.done.done() and e.deadline_block <= deadline_block for e in self._waiting)
            slot = self._slot(before)
        if slot > deadline_block:
            raise Late(f"the next commitment could be made at block {slot}, the deadline is block {deadline_block}")

    def _slot(self, place: int) -> int:
        """The block at which the entry at that place of the queue can be committed."""
        return max(self._head + SETTLE_BLOCKS, self._free_at) + place * self._spacing

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except (Unavailable, RateLimited) as error:
                log.warning("commitments wait for the chain: %s", error)
            except Exception as error:  # the outermost loop of this thread: those who wait are told, and decide
                log.exception("commitments failed")
                self._fail_all(error)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, BUSY_SECONDS if self._waiting else 0.0)
                self._changed.wait_for(lambda: self._stopping or bool(self._waiting), IDLE_SECONDS)

    def _turn(self) -> None:
        """One look at the chain: tells those who are late, and commits the first in line once the chain is free."""
        head = self._chain.head().number
        with self._changed:
            self._head = head
        first = self._first_in_time()
        if first is None or head < self._free_at:
            return
        blocks = [found.commit_block for found in self._chain.commitments(head) if found.hotkey == self._hotkey]
        self._free_at = max(blocks) + self._spacing if blocks else 0
        if head >= self._free_at and first.done.set_running_or_notify_cancel():
            self._send(first, head)

    def _send(self, entry: _Entry, head: int) -> None:
        try:
            self._chain.commit(entry.text, sealed=self.sealed, reveal_in_blocks=max(1, entry.deadline_block - head))
        except AthenaError as error:  # it may have happened all the same: the next look at the chain tells
            entry.done.set_exception(error)
        else:
            self._free_at = head + self._spacing
            entry.done.set_result(None)

    def _first_in_time(self) -> _Entry | None:
        """The waiting entry with the nearest deadline; those that cannot meet theirs are told so and leave."""
        with self._changed:
            self._waiting = sorted(
                (entry for entry in self._waiting if not entry.done.done()),
                key=lambda entry: (entry.deadline_block, entry.number),
            )
            in_time: list[_Entry] = []
            for entry in self._waiting:
                slot = self._slot(len(in_time))
                if slot <= entry.deadline_block:
                    in_time.append(entry)
                elif entry.done.set_running_or_notify_cancel():
                    message = f"its turn to commit comes at block {slot}, the deadline is block {entry.deadline_block}"
                    entry.done.set_exception(Late(message))
            self._waiting = in_time
            return in_time[0] if in_time else None

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            for entry in self._waiting:
                if not entry.done.done() and (entry.done.running() or entry.done.set_running_or_notify_cancel()):
                    entry.done.set_exception(error)
            self._waiting = []
