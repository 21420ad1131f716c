"""One request, one transaction: a write and the reply under its idempotency key are stored together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import delete
from sqlmodel import Session, col

from athena.errors import BadInput
from athena.events import EventLog
from task_server.database import Database
from task_server.tables import IdempotencyRow, LeaseRow, micros

if TYPE_CHECKING:
    from athena.chain.client import Neuron

IDEMPOTENCY_SECONDS = 24 * 3600

Clock = Callable[[], datetime]
Reply = TypeVar("Reply", bound=BaseModel)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Write:
    """Who asks for a write, under which idempotency key, and the sha256 of what exactly was asked."""

    caller: Neuron
    key: str
    digest: str


@dataclass
class Transaction:
    """An open transaction, its one reading of the clock (microseconds), and the events to emit once it is committed."""

    session: Session
    now: int
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def note(self, event: str, lease: LeaseRow, **fields: Any) -> None:
        named = {"task": lease.task_id, "hotkey": lease.hotkey, "lease": lease.id, "fencing": lease.fencing}
        self.events.append((event, {**named, **fields}))


class Transactions:
    """Opens the ledger's transactions."""

    def __init__(self, database: Database, clock: Clock, events: EventLog) -> None:
        self._database = database
        self._clock = clock
        self._events = events

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        with self._database.write() as session:
            tx = Transaction(session, micros(self._clock()))
            yield tx
        for event, fields in tx.events:
            self._events.emit(event, **fields)

    def once(self, write: Write, reply_type: type[Reply], act: Callable[[Transaction], Reply]) -> Reply:
        """The reply of `act`, which runs at most once per caller and key; a repetition gets the first reply again.

        Raises BadInput when the key belongs to another request. An `act` that raises leaves no trace, so the same
        request may be tried again under its key.
        """
        with self.begin() as tx:
            earlier = tx.session.get(IdempotencyRow, (write.caller.hotkey, write.key))
            if earlier is not None:
                if earlier.digest != write.digest:
                    raise BadInput("the idempotency key was used for another request", remedy="use a new key")
                return reply_type.model_validate_json(earlier.reply)
            reply = act(tx)
            tx.session.add(
                IdempotencyRow(
                    hotkey=write.caller.hotkey,
                    key=write.key,
                    digest=write.digest,
                    reply=reply.model_dump_json(),
                    created_at=tx.now,
                )
            )
        return reply

    def forget(self) -> None:
        """Drops idempotency records that no client retries any more."""
        with self.begin() as tx:
            oldest = tx.now - IDEMPOTENCY_SECONDS * 1_000_000
            tx.session.execute(delete(IdempotencyRow).where(col(IdempotencyRow.created_at) < oldest))
