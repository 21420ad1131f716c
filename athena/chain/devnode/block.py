"""A block: a Substrate header whose hash is the hash of its SCALE bytes, the extrinsics and the encoded events."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from athena.chain.devnode.scale import Reader, compact, length_prefixed


def blake2b_256(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


@dataclass(frozen=True)
class Block:
    """One block. `state_root` covers the block's writes and its parent's root; it is no trie root."""

    number: int
    parent: bytes
    state_root: bytes
    extrinsics_root: bytes
    seal: bytes
    timestamp_ms: int
    extrinsics: tuple[bytes, ...]
    events: bytes
    """SCALE of System.Events."""

    @cached_property
    def digest(self) -> bytes:
        """The only digest log: a seal, in Aura's name."""
        return b"\x05aura" + length_prefixed(self.seal)

    @cached_property
    def hash(self) -> bytes:
        roots = self.state_root + self.extrinsics_root
        return blake2b_256(self.parent + compact(self.number) + roots + compact(1) + self.digest)

    @property
    def header(self) -> dict[str, object]:
        """The header as JSON-RPC shows it."""
        return {
            "parentHash": "0x" + self.parent.hex(),
            "number": hex(self.number),
            "stateRoot": "0x" + self.state_root.hex(),
            "extrinsicsRoot": "0x" + self.extrinsics_root.hex(),
            "digest": {"logs": ["0x" + self.digest.hex()]},
        }

    @property
    def packed_extrinsics(self) -> bytes:
        return b"".join(length_prefixed(extrinsic) for extrinsic in self.extrinsics)

    @staticmethod
    def unpack_extrinsics(packed: bytes) -> tuple[bytes, ...]:
        reader, found = Reader(packed), []
        while reader.offset < len(packed):
            found.append(reader.vector())
        return tuple(found)


def state_root(parent_root: bytes, writes: Mapping[bytes, bytes | None]) -> bytes:
    """Root over the parent's root and this block's writes, in the order of their keys."""
    hashed = hashlib.blake2b(parent_root, digest_size=32)
    for key, value in sorted(writes.items()):
        hashed.update(length_prefixed(key) + (b"\0" if value is None else b"\1" + length_prefixed(value)))
    return hashed.digest()


def extrinsics_root(extrinsics: Iterable[bytes]) -> bytes:
    return blake2b_256(b"".join(length_prefixed(extrinsic) for extrinsic in extrinsics))


def make_seal(salt: bytes, number: int, parent: bytes, extrinsics_root: bytes, timestamp_ms: int) -> bytes:
    """64 bytes that nobody without the chain's secret salt can tell beforehand: block hashes serve as entropy."""
    body = number.to_bytes(8, "little") + timestamp_ms.to_bytes(8, "little") + parent + extrinsics_root
    return hashlib.blake2b(body, digest_size=64, key=salt).digest()
