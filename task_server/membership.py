"""Who is registered on the subnet, as of a recent block: read by one background thread, never inside a request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from athena.errors import Forbidden, Unavailable

if TYPE_CHECKING:
    from athena.chain.client import Chain, Head, Neuron


class Membership(Protocol):
    """A recent view of the chain. All verbs answer at once; Unavailable when the view is too old."""

    def head(self) -> Head: ...

    def member(self, hotkey: str) -> Neuron:
        """The neuron of a registered hotkey; Forbidden for any other."""
        ...

    def age_seconds(self) -> float | None:
        """How old the view is, too old or not; null before the first."""
        ...


class ChainMembership:
    """The view that `refresh` last read; older than `max_age_seconds` it is no view at all."""

    def __init__(self, chain: Chain, max_age_seconds: float) -> None:
        self._chain = chain
        self._max_age_seconds = max_age_seconds
        self._view: tuple[float, Head, dict[str, Neuron]] | None = None

    def refresh(self) -> Head:
        """Reads head and neurons from the chain. Called by one thread only; raises Unavailable."""
        started = time.monotonic()
        head = self._chain.head()
        neurons = {neuron.hotkey: neuron for neuron in self._chain.neurons()}
        self._view = (started, head, neurons)  # one assignment: readers see the old view or the new one
        return head

    def block_hash(self, number: int) -> str:
        return self._chain.head(number).hash

    def head(self) -> Head:
        return self._fresh()[0]

    def member(self, hotkey: str) -> Neuron:
        neuron = self._fresh()[1].get(hotkey)
        if neuron is None:
            raise Forbidden(f"hotkey {hotkey} is not registered on this subnet", remedy="register it, then try again")
        return neuron

    def age_seconds(self) -> float | None:
        view = self._view
        return None if view is None else time.monotonic() - view[0]

    def _fresh(self) -> tuple[Head, dict[str, Neuron]]:
        view = self._view
        if view is None or time.monotonic() - view[0] > self._max_age_seconds:
            raise Unavailable("the server has no recent view of the chain")
        return view[1:]
