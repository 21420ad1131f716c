"""The server's one background thread. Nothing depends on it but freshness: a claim finds expired leases by itself."""

from __future__ import annotations

import logging
import threading

from athena.errors import AthenaError
from task_server.identity import MemberNonces
from task_server.ledger import Ledger
from task_server.membership import ChainMembership

STOP_SECONDS = 5
log = logging.getLogger(__name__)


class Upkeep(threading.Thread):
    """Reads the chain, records expired leases, settles audit draws, forgets nonces and replies that are spent."""

    def __init__(
        self, membership: ChainMembership, ledger: Ledger, nonces: MemberNonces, refresh_seconds: float
    ) -> None:
        super().__init__(name="upkeep", daemon=True)
        self._membership = membership
        self._ledger = ledger
        self._nonces = nonces
        self._refresh_seconds = refresh_seconds
        self._stopping = threading.Event()

    def run(self) -> None:
        while True:
            try:
                self.once()
            except AthenaError as error:
                log.warning("upkeep: %s", error)
            except Exception:  # this thread's outermost loop: without it the server would refuse every write
                log.exception("upkeep failed; it goes on")
            if self._stopping.wait(self._refresh_seconds):
                return

    def once(self) -> None:
        head = self._membership.refresh()
        due = self._ledger.audits_due(head.number)
        self._ledger.settle_audits({number: self._membership.block_hash(number) for number in due})
        self._ledger.expire()
        self._ledger.forget_replies()
        self._nonces.forget_stale()

    def stop(self) -> None:
        """Returns once the thread has ended, or after STOP_SECONDS: a kill at any time does no harm."""
        self._stopping.set()
        self.join(STOP_SECONDS)
