"""Several leases at once, each in a thread of its own: what ends one is no concern of the others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from athena.errors import AthenaError, BadInput, Conflict, NotFound
from athena.node import patiently
from athena.protocol import Lease
from athena.refine.work.commits import Late
from athena.refine.work.workshop import Heart, Stopped, Unfit, Workshop

log = logging.getLogger("athena.miner")

STOP_SECONDS = 10.0
"""For threads to end in order; what they are killed in is durable anyway."""
LONGEST_REST_SECONDS = 600.0

_OF_THE_TASK = (Late, Unfit, BadInput, NotFound)  # another may be sound


class Crew:
    """Threads that carry out leases, until each is submitted, lost or given back.

    What is wrong with the node itself (its settings, its key, a crawl that wants to be left alone) ends all of them:
    `wait` raises it, and the leases stay for the next start.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._threads: dict[str, threading.Thread] = {}
        self._failure: AthenaError | None = None
        self._ended = False
        self._failures_in_a_row = 0
        self._rest_until = 0.0
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workshop.stopping.set()
        until = time.monotonic() + STOP_SECONDS
        for thread in list(self._threads.values()):
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def held(self) -> frozenset[str]:
        """Ids of the tasks in work."""
        with self._changed:
            return frozenset(self._threads)

    def take_on(self, leases: Iterable[Lease]) -> None:
        """Starts on those that are not in work already."""
        for lease in leases:
            with self._changed:
                if lease.task.id in self._threads:
                    continue
                name = f"lease-{lease.id[:8]}"
                thread = threading.Thread(target=self._run, args=(lease,), name=name, daemon=True)
                self._threads[lease.task.id] = thread
            thread.start()

    def wait(self, seconds: float) -> None:
        """Until a lease ended since the last call, at most `seconds`; longer after leases that came to nothing.

        Raises what is wrong with the node itself.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._failure is not None, seconds)
            self._ended = False
            rest = self._rest_until - time.monotonic()
            self._changed.wait_for(lambda: self._failure is not None, max(0.0, rest))
            if self._failure is not None:
                raise self._failure

    def _run(self, lease: Lease) -> None:
        try:
            self._carry_out(lease)
        except Stopped:
            log.info("task %s is left as it is", lease.task.id)
        except AthenaError as error:
            self._failure = error
        finally:
            with self._changed:
                del self._threads[lease.task.id]
                self._ended = True
                self._changed.notify_all()

    def _carry_out(self, lease: Lease) -> None:
        workshop = self._workshop
        try:
            with Heart(workshop.ledger, lease) as heart:  # beats on while a service is away
                patiently(workshop.carry_out, lease, heart)
        except Conflict as lost:
            self._give_up(lease, lost.code, str(lost))
        except _OF_THE_TASK as error:
            self._rest()
            self._give_up(lease, error.code, str(error))
        except (AthenaError, Stopped):
            raise
        except Exception as error:  # the outermost loop of a lease: a fault in a recipe's code, or in our own
            log.exception("task %s failed", lease.task.id)
            self._rest()
            self._give_up(lease, "internal", f"{type(error).__name__}: {error}")
        else:
            self._failures_in_a_row = 0

    def _rest(self) -> None:
        """Claims nothing for a while: what spoiled one task may spoil the next."""
        self._failures_in_a_row += 1
        self._rest_until = time.monotonic() + min(LONGEST_REST_SECONDS, 2.0 ** min(self._failures_in_a_row, 30))

    def _give_up(self, lease: Lease, code: str, reason: str) -> None:
        """Gives the lease back where it is still held: somebody else may have the task at once."""
        log.error("task %s is given up: %s", lease.task.id, reason)
        try:
            patiently(self._workshop.ledger.release, lease)
        except (Conflict, NotFound) as error:
            log.info("task %s was lost before: %s", lease.task.id, error)
        self._workshop.events.emit("miner.lost", task=lease.task.id, code=code, reason=reason)
        self._workshop.forget(lease)
        self._workshop.board.given_up(lease, code, reason)
