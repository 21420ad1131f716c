"""What a pallet works with while a block is built, and the error it raises to refuse a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from athena.chain.devnode.settings import DevnodeSettings
from athena.chain.devnode.storage import Storage
from athena.errors import BadInput

Phase = str | dict[str, int]


class DispatchError(BadInput):
    """A pallet refuses a call: its writes are undone and its named error goes into the block's events."""

    def __init__(self, pallet: str, name: str) -> None:
        super().__init__(f"{pallet}.{name}")
        self.pallet = pallet
        self.name = name


@dataclass
class Execution:
    """Block `number` while it is built."""

    settings: DevnodeSettings
    storage: Storage
    number: int
    timestamp_ms: int
    phase: Phase = "Initialization"
    events: list[dict[str, Any]] = field(default_factory=list)
    carried: bytes | None = None
    """The extrinsic that the one being applied carries under the MEV shield."""
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """(event, fields) for the log, once the block is durable."""

    def deposit_event(self, pallet: str, event: str, fields: Any = None) -> None:
        """Adds a pallet's event; `fields` is a dict, a tuple for unnamed ones, or None."""
        body: Any = event if fields is None else {event: fields}
        self.events.append({"phase": self.phase, "event": {pallet: body}, "topics": []})

    def note(self, event: str, **fields: Any) -> None:
        self.notes.append((event, fields))
