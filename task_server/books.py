"""The tables of what the server keeps for itself: accounts, keys, lists, the event chain, spent nonces, old replies."""

from __future__ import annotations

import json

from sqlalchemy import BigInteger, Text
from sqlmodel import Field, SQLModel

from athena.wire import LedgerEvent, OptOut
from task_server.columns import partial_index, time_column


class AccountRow(SQLModel, table=True):
    """What the server holds of one coldkey: all its hotkeys share one quota (task_server.quota) and one ban."""

    __tablename__ = "account"

    coldkey: str = Field(primary_key=True)
    quota: int  # leases per day
    allowance: float  # leases that may be taken now
    refilled_at: int = time_column()
    streak: int = 0  # submissions that passed in a row
    ban: str | None = None  # the reason


class CanaryRow(SQLModel, table=True):
    """A task whose output the server knows; nobody else is told which tasks these are."""

    __tablename__ = "canary"

    task_id: str = Field(primary_key=True, foreign_key="task.id")
    manifest: str = Field(sa_type=Text)
    set_at: int = time_column()


class OptOutRow(SQLModel, table=True):
    """A domain whose pages are left out, with its sub-domains, of work leased from `since_block` on."""

    __tablename__ = "opt_out"
    __table_args__ = (partial_index("opt_out_listed", "domain", where="until_block IS NULL", unique=True),)

    sequence: int | None = Field(default=None, primary_key=True)
    domain: str
    reason: str
    since_block: int
    until_block: int | None = None
    added_at: int = time_column()

    def view(self) -> OptOut:
        return OptOut(
            domain=self.domain, reason=self.reason, since_block=self.since_block, until_block=self.until_block
        )


class ApiKeyRow(SQLModel, table=True):
    """An operator's key: only its sha256 is kept. `id` is the part that is shown."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True)
    sha256: str
    scopes: str  # separated by spaces
    note: str
    created_at: int = time_column()
    revoked_at: int | None = Field(default=None, sa_type=BigInteger)


class EventRow(SQLModel, table=True):
    """One link of the event chain (athena.audit): what changed, and the hash over it and all before it."""

    __tablename__ = "event"

    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    at: int = time_column()
    kind: str
    body: str = Field(sa_type=Text)
    hash: str

    def view(self) -> LedgerEvent:
        return LedgerEvent(
            sequence=self.sequence, at=self.at, kind=self.kind, body=json.loads(self.body), hash=self.hash
        )


class EventHeadRow(SQLModel, table=True):
    """The end of the event chain, in one row: whoever appends holds it until the commit."""

    __tablename__ = "event_head"

    id: int = Field(primary_key=True)
    sequence: int = Field(sa_type=BigInteger)
    hash: str


class NonceRow(SQLModel, table=True):
    """A signed request that was accepted; kept for as long as its signature would still be fresh."""

    __tablename__ = "nonce"

    hotkey: str = Field(primary_key=True)
    nonce_ns: int = Field(primary_key=True, sa_type=BigInteger)


class IdempotencyRow(SQLModel, table=True):
    """The reply that a write was given, kept in the transaction that made it true. `by`: see transaction.Asked."""

    __tablename__ = "idempotency"

    by: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    digest: str
    reply: str = Field(sa_type=Text)
    created_at: int = time_column(index=True)
