"""Storage items by name, over the state as of one block: a view for readers, an overlay for the block being built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from athena.chain.devnode.metadata import Metadata
from athena.chain.devnode.state import State

_MAX_SUBNETS = 4096


class View:
    """Reads storage items by name as of block `number`."""

    def __init__(self, metadata: Metadata, state: State, number: int) -> None:
        self.metadata = metadata
        self.number = number
        self._state = state

    def raw(self, key: bytes) -> bytes | None:
        return self._state.get(key, self.number)

    def get(self, pallet: str, item: str, *keys: Any) -> Any:
        """Decoded value; where nothing is stored its default, None for an optional item."""
        return self.metadata.decode_storage(pallet, item, self.get_raw(pallet, item, *keys))

    def get_raw(self, pallet: str, item: str, *keys: Any) -> bytes | None:
        return self.raw(self.metadata.storage_key(pallet, item, *keys))

    def netuids(self) -> list[int]:
        """Subnets that exist."""
        prefix = self.metadata.storage_key("SubtensorModule", "NetworksAdded")
        keys = self._state.keys(prefix, prefix, _MAX_SUBNETS, self.number)
        return [int(self.metadata.storage_suffix("SubtensorModule", "NetworksAdded", key, 0)[0]) for key in keys]


class Storage(View):
    """The view that a block under construction has: its own writes over those of the block before.

    `writes` collects them. Inside `transaction()` they are kept apart and dropped when the body raises.
    """

    def __init__(self, metadata: Metadata, state: State, parent_number: int) -> None:
        super().__init__(metadata, state, parent_number)
        self.writes: dict[bytes, bytes | None] = {}

    def raw(self, key: bytes) -> bytes | None:
        return self.writes[key] if key in self.writes else super().raw(key)

    def put(self, pallet: str, item: str, *keys: Any, value: Any) -> None:
        encoded = self.metadata.encode_storage(pallet, item, value)
        self.writes[self.metadata.storage_key(pallet, item, *keys)] = encoded

    def put_raw(self, pallet: str, item: str, *keys: Any, value: bytes) -> None:
        """Stores SCALE bytes as they are."""
        self.writes[self.metadata.storage_key(pallet, item, *keys)] = value

    def remove(self, pallet: str, item: str, *keys: Any) -> None:
        self.writes[self.metadata.storage_key(pallet, item, *keys)] = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        saved = dict(self.writes)
        try:
            yield
        except BaseException:
            self.writes = saved
            raise
