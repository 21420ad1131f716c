"""What the server does by itself, in threads of its own. No request waits for it: a claim finds expired leases too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from athena.errors import AthenaError
from task_server.ledger import Ledger
from task_server.membership import ChainMembership

STOP_SECONDS = 5
log = logging.getLogger(__name__)


class Recurring(threading.Thread):
    """Takes a step, pauses, takes it again. A step that fails is logged, and taken again after the pause."""

    def __init__(self, name: str, step: Callable[[], None], pause_seconds: float) -> None:
        super().__init__(name=name, daemon=True)
        self._step = step
        self._pause_seconds = pause_seconds
        self._stopping = threading.Event()

    def run(self) -> None:
        while True:
            try:
                self._step()
            except AthenaError as error:
                log.warning("%s: %s", self.name, error)
            except Exception:  # this thread's outermost loop: without upkeep the server would refuse every write
                log.exception("%s failed; it goes on", self.name)
            if self._stopping.wait(self._pause_seconds):
                return

    def stop(self) -> None:
        """Returns once the thread has ended, or after STOP_SECONDS: a kill at any time does no harm."""
        self._stopping.set()
        self.join(STOP_SECONDS)


def keep_up(membership: ChainMembership, ledger: Ledger) -> None:
    """Reads the chain, settles audit draws, records expired leases, forgets nonces and replies that are spent."""
    head = membership.refresh()
    due = ledger.audits_due(head.number)
    if due:
        ledger.settle_audits({number: membership.block_hash(number) for number in due}).result()
    ledger.tidy().result()
