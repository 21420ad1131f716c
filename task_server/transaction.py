"""One request, one transaction: a write, its events and the reply under its idempotency key are stored together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import Connection, bindparam, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel, col

from athena.errors import BadInput, Unauthorized
from athena.events import EventLog
from athena.protocol import canonical_json
from task_server.books import IdempotencyRow, NonceRow
from task_server.columns import table_of
from task_server.prepared import Prepared

if TYPE_CHECKING:
    from athena.chain.client import Neuron

IDEMPOTENCY_SECONDS = 24 * 3600
SECOND = 1_000_000
"""In the unit of the tables' times."""

Clock = Callable[[], int]
"""UTC microseconds since 1970."""
Body = TypeVar("Body", bound=BaseModel)


def utc_micros() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True)
class Asked:
    """Who asks (a hotkey, or an operator's key), under which idempotency key, and the sha256 of what exactly."""

    by: str
    key: str
    digest: str


@dataclass(frozen=True)
class Write:
    """A member's signed request; its signature is good for `nonce_ns` once."""

    caller: Neuron
    asked: Asked
    nonce_ns: int


@dataclass(frozen=True)
class Reply(Generic[Body]):
    """A reply in the very bytes that are kept under its idempotency key."""

    kind: type[Body]
    json: str

    @cached_property
    def value(self) -> Body:
        return self.kind.model_validate_json(self.json)


@dataclass
class Transaction:
    """An open transaction, its one reading of the clock (microseconds), and what it changes.

    `changes` (kind, body, and the body's canonical JSON) go into the event chain with the commit; `notes` are for those
    who watch, and emitted after it.
    """

    connection: Connection
    now: int
    changes: list[tuple[str, Mapping[str, Any], str]] = field(default_factory=list)
    notes: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def record(self, kind: str, **body: Any) -> None:
        """A change of the ledger. Raises BadInput, in the act that is at fault, for what JSON cannot hold."""
        self.changes.append((kind, body, canonical_json(body).decode()))
        self.note(kind, **body)

    def note(self, event: str, **fields: Any) -> None:
        self.notes.append((event, fields))

    def announce(self, events: EventLog) -> None:
        for event, fields in self.notes:
            events.emit(f"server.{event}", **fields)

    def insert_new(self, row: type[SQLModel], **values: Any) -> bool:
        """Inserts a row unless one with its key is there; whether it did."""
        dialect = postgresql if self.connection.dialect.name == "postgresql" else sqlite
        statement = _INSERT_NEW.get((dialect.__name__, row))
        if statement is None:
            statement = Prepared(dialect.insert(table_of(row)).on_conflict_do_nothing())
            _INSERT_NEW[dialect.__name__, row] = statement
        return statement.run(self.connection, **values) == 1


_INSERT_NEW: dict[tuple[str, type[SQLModel]], Prepared] = {}

_EARLIER = Prepared(
    select(col(IdempotencyRow.digest), col(IdempotencyRow.reply)).where(
        col(IdempotencyRow.by) == bindparam("asker"), col(IdempotencyRow.key) == bindparam("of_key")
    )
)
_KEEP = Prepared(insert(IdempotencyRow))
_FORGET_REPLIES = delete(IdempotencyRow).where(col(IdempotencyRow.created_at) < bindparam("oldest"))
_FORGET_NONCES = delete(NonceRow).where(col(NonceRow.nonce_ns) < bindparam("oldest_ns"))


def spend(write: Write) -> Callable[[Transaction], None]:
    """Spends a request's nonce. Raises Unauthorized when it was spent before."""

    def first(tx: Transaction) -> None:
        if not tx.insert_new(NonceRow, hotkey=write.caller.hotkey, nonce_ns=write.nonce_ns):
            raise Unauthorized("the request was sent before", remedy="sign every attempt anew")

    return first


def once(tx: Transaction, asked: Asked, kind: type[Body], act: Callable[[], Body]) -> Reply[Body]:
    """The reply of `act`, which runs at most once per caller and key; a repetition gets the first reply again.

    Raises BadInput when the key belongs to another request. An `act` that raises leaves no trace, so the same request
    may be tried again under its key.
    """
    earlier = _EARLIER.first(tx.connection, asker=asked.by, of_key=asked.key)
    if earlier is not None:
        if earlier.digest != asked.digest:
            raise BadInput("the idempotency key was used for another request", remedy="use a new key")
        return Reply(kind, earlier.reply)
    reply = Reply(kind, act().model_dump_json())
    _KEEP.run(tx.connection, by=asked.by, key=asked.key, digest=asked.digest, reply=reply.json, created_at=tx.now)
    return reply


def forget(tx: Transaction, nonce_window_seconds: float) -> None:
    """Drops replies that no client retries any more, and nonces whose signatures are stale anyway."""
    tx.connection.execute(_FORGET_REPLIES, {"oldest": tx.now - IDEMPOTENCY_SECONDS * SECOND})
    tx.connection.execute(_FORGET_NONCES, {"oldest_ns": tx.now * 1000 - round(nonce_window_seconds * 1e9)})
