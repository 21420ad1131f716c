"""Weights, once an epoch, in a thread of their own: the SDK waits minutes for them to be final, or to be revealed."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

from athena.chain.client import Chain, ChainRefused
from athena.client import LedgerClient
from athena.errors import BadInput, RateLimited, Unavailable
from athena.events import EventLog
from athena.judge.queue import WEIGHED_BLOCK, WEIGHED_EPOCH, CaseQueue
from athena.judge.watched import Watched
from athena.judge.work import weights_now

log = logging.getLogger("athena.validator")
_TRIES_PER_EPOCH = 20


class Weigher(Watched):
    """Sets the weights of `hotkey` once in every `every` blocks, each epoch once, also across restarts.

    What the chain refuses, or cannot take now, is tried again after a twentieth of the epoch, then after twice as long
    each time, up to an epoch. `chain` is this thread's own.
    """

    def __init__(
        self,
        chain: Chain,
        ledger: LedgerClient,
        queue_file: Path,
        *,
        hotkey: str,
        rule_version: str,
        every: int,
        events: EventLog,
    ) -> None:
        super().__init__("weights", self._follow)
        self._chain, self._ledger, self._queue_file, self._events = chain, ledger, queue_file, events
        self._hotkey, self._rule_version, self._every = hotkey, rule_version, every
        self._not_before = self._failures = 0
        self._sent: int | None = None

    def weigh(self, queue: CaseQueue, block: int) -> bool:
        """Sets weights, if they are due at `block`; whether it did."""
        epoch = block // self._every
        if block < self._not_before or epoch == queue.noted(WEIGHED_EPOCH):
            return False
        try:
            neurons = self._chain.neurons()
            # An attempt whose answer got lost may have gone through all the same.
            sent = self._sent is not None and any(
                neuron.hotkey == self._hotkey and neuron.last_update >= self._sent for neuron in neurons
            )
            owner = self._chain.owner_hotkey()
            weights = weights_now(queue, self._ledger, neurons, owner, self._rule_version, block)
            if weights is None:
                self._put_off(block)
                return False
            if not sent:
                self._sent = block
                self._chain.set_weights(weights)
        except (Unavailable, RateLimited) as error:
            log.warning("weights are not set yet: %s", error)
            self._put_off(block)
            return False
        except (ChainRefused, BadInput) as error:
            log.error("weights were refused: %s", error)
            self._events.emit("validator.refused", block=block, reason=str(error))
            self._put_off(block)
            return False
        self._sent, self._failures = None, 0
        queue.note(WEIGHED_EPOCH, epoch)
        queue.note(WEIGHED_BLOCK, block)
        self._events.emit("validator.weights", block=block, weights=dict(weights))
        return True

    def _put_off(self, block: int) -> None:
        pause = max(1, self._every // _TRIES_PER_EPOCH) * 2**self._failures
        self._not_before = block + min(self._every, pause)
        self._failures = min(self._failures + 1, _TRIES_PER_EPOCH)

    def _follow(self) -> None:
        with CaseQueue(self._queue_file) as queue, closing(self._chain):
            for head in self._chain.heads():
                self.weigh(queue, head.number)
