"""The chain: block 0 from the settings, one block after the other, durable before anyone hears of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from athena.chain.devnode import dispatch
from athena.chain.devnode.block import Block, extrinsics_root, make_seal, state_root
from athena.chain.devnode.execution import Execution
from athena.chain.devnode.extrinsics import Invalid, Signed, inherent, verify
from athena.chain.devnode.metadata import Metadata, load_metadata
from athena.chain.devnode.pallets import commitments, drand, epoch, mevshield, subnet, system
from athena.chain.devnode.pool import Pool
from athena.chain.devnode.settings import DevnodeSettings
from athena.chain.devnode.state import State
from athena.chain.devnode.storage import Storage, View
from athena.errors import Misconfigured

_GENESIS_SETTINGS = {"netuid", "tempo", "commit_reveal", "stakes", "balances", "owner_hotkey"}


@dataclass(frozen=True)
class Produced:
    """A new block, what it took from the pool and what the pool gave up, each with the log's events of the block."""

    block: Block
    included: tuple[Signed, ...]
    expired: tuple[Signed, ...]
    notes: tuple[tuple[str, dict[str, Any]], ...]


class Chain:
    """Blocks and state of one dev chain. `now_ms` is the clock that block timestamps are read from.

    Raises Misconfigured when the database belongs to a chain that was made with other settings.
    """

    def __init__(self, settings: DevnodeSettings, now_ms: Callable[[], int]) -> None:
        self.settings = settings
        self.metadata: Metadata = load_metadata(settings.block_seconds)
        self._now_ms = now_ms
        self._state = State(settings.database.expanduser())
        self.head: Block = self._state.head() or self._make_genesis()
        self._ensure_same_chain()
        self._salt = self._state.meta("salt") or b""
        self.pool = Pool(lambda account: system.nonce(self.view(), account))
        key = self.metadata.storage_key
        self._virtual: dict[bytes, Callable[[Block], bytes]] = {
            key("System", "Events"): lambda block: block.events,
            key("System", "Number"): lambda block: block.number.to_bytes(4, "little"),
            key("System", "ParentHash"): lambda block: block.parent,
            key("Timestamp", "Now"): lambda block: block.timestamp_ms.to_bytes(8, "little"),
            key("SubtensorModule", "BlocksSinceLastStep", settings.netuid): self._blocks_since_epoch,
        }

    def close(self) -> None:
        self._state.close()

    @property
    def genesis_hash(self) -> str:
        """0x-hex of the hash of block 0: the chain's identity."""
        return "0x" + (self._state.block_hash(0) or b"").hex()

    def block_by_hash(self, block_hash: bytes) -> Block | None:
        return self._state.block_by_hash(block_hash)

    def block_hash(self, number: int) -> bytes | None:
        return self._state.block_hash(number)

    def view(self, number: int | None = None) -> View:
        """Storage by name as of a block, the head by default."""
        return View(self.metadata, self._state, self.head.number if number is None else number)

    def storage(self, key: bytes, block: Block) -> bytes | None:
        """A raw storage value as of a block. What changes with every block is worked out, not stored."""
        virtual = self._virtual.get(key)
        return self._state.get(key, block.number) if virtual is None else virtual(block)

    def keys(self, prefix: bytes, start_after: bytes, count: int, block: Block) -> list[bytes]:
        return self._state.keys(prefix, start_after, count, block.number)

    def _blocks_since_epoch(self, block: Block) -> bytes:
        last = self.view(block.number).get("SubtensorModule", "LastEpochBlock", self.settings.netuid)
        return (block.number - int(last)).to_bytes(8, "little")

    def num_sealed(self) -> int:
        """Commitments that wait for their reveal."""
        return len(self.view().get("Commitments", "TimelockedIndex"))

    def submit(self, raw: bytes) -> tuple[Signed, bool]:
        """Takes an extrinsic into the pool: (the extrinsic, whether it is ready). Raises Invalid."""
        extrinsic = self._verify(raw, self.head.number + 1)
        return extrinsic, self.pool.add(extrinsic)

    def _verify(self, raw: bytes, number: int) -> Signed:
        extrinsic = verify(raw, self.metadata, number, self.block_hash)
        dispatch.ensure_decodable(extrinsic.call)
        return extrinsic

    def produce(self) -> Produced:
        """Builds the next block and makes it durable."""
        parent = self.head
        number, timestamp_ms = parent.number + 1, max(self._now_ms(), parent.timestamp_ms + 1)
        block = Execution(self.settings, Storage(self.metadata, self._state, parent.number), number, timestamp_ms)
        drand.initialize(block)
        commitments.initialize(block)
        epoch.initialize(block)

        expired = self.pool.expired(number)
        ready = self.pool.ready()
        extrinsics = [inherent(self.metadata, timestamp_ms)]
        block.phase = {"ApplyExtrinsic": 0}
        system.extrinsic_success(block, mandatory=True)
        included = tuple(extrinsic for extrinsic in ready if self._apply(block, extrinsic, extrinsics))
        sealed = self._seal(block, parent, tuple(extrinsics))
        self.head = sealed
        for extrinsic in included:
            self.pool.drop(extrinsic)
        return Produced(sealed, included, tuple(expired), tuple(block.notes))

    def _apply(self, block: Execution, extrinsic: Signed, extrinsics: list[bytes]) -> bool:
        """Applies an extrinsic whose turn it is, then the one it carried under the shield; False if it is not."""
        if extrinsic.nonce != system.nonce(block.storage, extrinsic.signer):
            return False
        dispatch.apply(block, extrinsic, len(extrinsics))
        extrinsics.append(extrinsic.raw)
        carried, block.carried = block.carried, None
        if carried is not None:
            with contextlib.suppress(Invalid):  # a carried extrinsic that is not valid is not included
                inner = self._verify(carried, block.number)
                if inner.call.module != mevshield.PALLET:
                    self._apply(block, inner, extrinsics)
        return True

    def _seal(self, block: Execution, parent: Block, extrinsics: tuple[bytes, ...]) -> Block:
        root, writes = extrinsics_root(extrinsics), block.storage.writes
        sealed = Block(
            number=block.number,
            parent=parent.hash,
            state_root=state_root(parent.state_root, writes),
            extrinsics_root=root,
            seal=make_seal(self._salt, block.number, parent.hash, root, block.timestamp_ms),
            timestamp_ms=block.timestamp_ms,
            extrinsics=extrinsics,
            events=self.metadata.encode_events(block.events),
        )
        self._state.commit(sealed, writes)
        return sealed

    def _make_genesis(self) -> Block:
        """Block 0. Its hash depends on a random salt and on the metadata, which clients cache under that hash."""
        salt = secrets.token_bytes(32)
        block = Execution(self.settings, Storage(self.metadata, self._state, 0), 0, self._now_ms())
        drand.initialize(block)
        mevshield.genesis(block)
        subnet.genesis(block)
        block.events.clear()
        writes = block.storage.writes
        genesis = Block(
            number=0,
            parent=bytes(32),
            state_root=state_root(hashlib.sha256(self.metadata.raw).digest(), writes),
            extrinsics_root=extrinsics_root(()),
            seal=make_seal(salt, 0, bytes(32), extrinsics_root(()), block.timestamp_ms),
            timestamp_ms=block.timestamp_ms,
            extrinsics=(),
            events=self.metadata.encode_events([]),
        )
        self._state.commit(genesis, writes, {"salt": salt, "genesis": self._genesis_settings()})
        return genesis

    def _genesis_settings(self) -> bytes:
        """What a chain was made with: the settings of its block 0 and the runtime metadata it serves."""
        fixed = self.settings.model_dump(mode="json", include=_GENESIS_SETTINGS)
        fixed["metadata"] = hashlib.sha256(self.metadata.raw).hexdigest()
        return json.dumps(fixed, sort_keys=True).encode()

    def _ensure_same_chain(self) -> None:
        before, now = json.loads(self._state.meta("genesis") or b"{}"), json.loads(self._genesis_settings())
        changed = sorted(name for name in now if before.get(name) != now[name])
        if changed:
            self._state.close()
            raise Misconfigured(
                f"{self.settings.database} holds a chain that was made with another {', '.join(changed)}",
                remedy="start it with the settings it was made with, or name a new database",
            )
