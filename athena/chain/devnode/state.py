"""Blocks and storage in one SQLite file, readable as of any block.

A block is one transaction: the file never holds half of one. WAL with synchronous=FULL, so that a block which a client
saw survives a power cut too; four small commits a second are cheap on any disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from athena.chain.devnode.block import Block
from athena.errors import Misconfigured

_SCHEMA = """
create table if not exists meta (name text primary key, value blob not null) without rowid;
create table if not exists block (
    number integer primary key, hash blob not null unique, parent blob not null, state_root blob not null,
    extrinsics_root blob not null, seal blob not null, timestamp_ms integer not null,
    extrinsics blob not null, events blob not null);
create table if not exists kv (
    key blob not null, block integer not null, value blob, primary key (key, block)) without rowid;
"""
_COLUMNS = "number, parent, state_root, extrinsics_root, seal, timestamp_ms, extrinsics, events"


class State:
    """Every block and every version of every storage value. Not for use from two threads or processes at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.execute("pragma locking_mode=exclusive")
            self._db.executescript(f"begin exclusive; {_SCHEMA} commit;")
        except sqlite3.Error as error:
            raise Misconfigured(
                f"the chain database {path} cannot be opened: {error}",
                remedy="stop the other dev chain that uses it, or name another file",
            ) from error

    def close(self) -> None:
        self._db.close()

    def head(self) -> Block | None:
        """The last block; None before genesis."""
        query = f"select {_COLUMNS} from block order by number desc limit 1"
        return _block(self._db.execute(query).fetchone())

    def block_by_hash(self, block_hash: bytes) -> Block | None:
        return _block(self._db.execute(f"select {_COLUMNS} from block where hash = ?", (block_hash,)).fetchone())

    def block_hash(self, number: int) -> bytes | None:
        row = self._db.execute("select hash from block where number = ?", (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def meta(self, name: str) -> bytes | None:
        row = self._db.execute("select value from meta where name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def get(self, key: bytes, number: int) -> bytes | None:
        """The value stored under `key` as of block `number`."""
        row = self._db.execute(
            "select value from kv where key = ? and block <= ? order by block desc limit 1", (key, number)
        ).fetchone()
        return None if row is None or row[0] is None else bytes(row[0])

    def keys(self, prefix: bytes, start_after: bytes, count: int, number: int) -> list[bytes]:
        """Up to `count` keys under `prefix`, in order, after `start_after`, that have a value at block `number`."""
        found: list[bytes] = []
        key, end = max(start_after, prefix), _after(prefix)
        while len(found) < count:
            row = self._db.execute("select min(key) from kv where key > ? and key < ?", (key, end)).fetchone()
            if row[0] is None:
                break
            key = bytes(row[0])
            if self.get(key, number) is not None:
                found.append(key)
        return found

    def commit(
        self, block: Block, writes: Mapping[bytes, bytes | None], meta: Mapping[str, bytes] | None = None
    ) -> None:
        """Makes `block` the head, with the storage values that it changed (None: removed)."""
        self._db.execute("begin immediate")
        try:
            self._db.executemany("insert into meta values (?, ?)", (meta or {}).items())
            self._db.executemany(
                "insert into kv values (?, ?, ?)", [(key, block.number, value) for key, value in writes.items()]
            )
            self._db.execute(
                f"insert into block (hash, {_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (block.hash, block.number, block.parent, block.state_root, block.extrinsics_root, block.seal,
                 block.timestamp_ms, block.packed_extrinsics, block.events),
            )  # fmt: skip
            self._db.execute("commit")
        except sqlite3.Error:
            self._db.execute("rollback")
            raise


def _block(row: tuple[int, bytes, bytes, bytes, bytes, int, bytes, bytes] | None) -> Block | None:
    if row is None:
        return None
    number, parent, state_root, extrinsics_root, seal, timestamp_ms, extrinsics, events = row
    return Block(
        number=number,
        parent=parent,
        state_root=state_root,
        extrinsics_root=extrinsics_root,
        seal=seal,
        timestamp_ms=timestamp_ms,
        extrinsics=Block.unpack_extrinsics(extrinsics),
        events=events,
    )


def _after(prefix: bytes) -> bytes:
    """The first byte string after all those that begin with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\xff" * 256
