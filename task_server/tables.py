"""The tables. Times are UTC microseconds since 1970; nouns that are kept whole are kept as canonical JSON.

Rows are never deleted, except spent nonces and idempotency records.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sqlalchemy import BigInteger, CheckConstraint, Index, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from athena.protocol import Lease, LeaseState, Shard, SignedRelease, SignedSheet, Submission, Task
from athena.wire import SubmissionView, TaskView

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _time(**options: Any) -> Any:
    return Field(sa_type=BigInteger, **options)


def _partial(name: str, *columns: str, where: str) -> Index:
    """An index over the rows that matter, small however long the history grows."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class CrawlRow(SQLModel, table=True):
    __tablename__ = "crawl"

    id: str = Field(primary_key=True)
    url: str
    imported_at: int = _time()


class ShardRow(SQLModel, table=True):
    __tablename__ = "shard"

    id: str = Field(primary_key=True)
    crawl: str = Field(foreign_key="crawl.id", index=True)
    warc_paths: str = Field(sa_type=Text)  # one path per line

    def noun(self) -> Shard:
        return Shard(crawl=self.crawl, warc_paths=tuple(self.warc_paths.split("\n")))


class TaskRow(SQLModel, table=True):
    """`position` is the place in the draw, without gaps, and grows with `opened_block`.

    `slots` leases may still be taken: replication, plus the audit copies, less active and submitted leases. It is
    written in the same transaction as the lease that changes it.
    """

    __tablename__ = "task"
    __table_args__ = (
        UniqueConstraint("shard_id", "rule_version"),
        CheckConstraint("slots >= 0"),
        Index("task_listed", "opened_block", "position"),
        _partial("task_open", "position", where="slots > 0"),
        _partial("task_audit_due", "audit_block", where="audited IS NULL AND audit_block IS NOT NULL"),
    )

    id: str = Field(primary_key=True)
    position: int = Field(unique=True)
    shard_id: str = Field(foreign_key="shard.id")
    rule_version: str
    opened_block: int
    replication: int
    slots: int
    audit_block: int | None = None  # the block after the first lease's; its hash draws
    audited: bool | None = None  # null until drawn

    def noun(self, shard: ShardRow) -> Task:
        return Task(shard=shard.noun(), rule_version=self.rule_version, opened_block=self.opened_block)

    def view(self, shard: ShardRow) -> TaskView:
        return TaskView(
            id=self.id,
            task=self.noun(shard),
            position=self.position,
            replication=self.replication,
            open_slots=self.slots,
            audited=self.audited,
        )


class LeaseRow(SQLModel, table=True):
    """At most one lease of a task per hotkey and per coldkey, ever: the constraints are the last line of defence."""

    __tablename__ = "lease"
    __table_args__ = (
        UniqueConstraint("task_id", "hotkey"),
        UniqueConstraint("task_id", "coldkey"),
        Index("lease_of_hotkey", "hotkey", "fencing"),
        _partial("lease_expiring", "expires_at", where="state = 'active'"),
        {"sqlite_autoincrement": True},  # a fencing token is never used twice
    )

    fencing: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    task_id: str = Field(foreign_key="task.id")
    hotkey: str
    coldkey: str
    state: str
    audit: bool
    issued_at: int = _time()
    heartbeat_at: int = _time()
    expires_at: int = _time()
    deadline_at: int = _time()
    issued_block: int
    deadline_block: int
    progress: str = Field(default="{}", sa_type=Text)

    def state_at(self, now: int) -> LeaseState:
        """The state as time makes it, whether or not a write has yet recorded the expiry."""
        if self.state == "active" and self.expires_at <= now:
            return "expired"
        return self.state  # type: ignore[return-value]

    def noun(self, task: Task, now: int) -> Lease:
        assert self.fencing is not None
        return Lease(
            id=self.id,
            task=task,
            hotkey=self.hotkey,
            state=self.state_at(now),
            fencing=self.fencing,
            audit=self.audit,
            issued_at=moment(self.issued_at),
            heartbeat_at=moment(self.heartbeat_at),
            expires_at=moment(self.expires_at),
            deadline_at=moment(self.deadline_at),
            issued_block=self.issued_block,
            deadline_block=self.deadline_block,
        )


class SubmissionRow(SQLModel, table=True):
    __tablename__ = "submission"

    sequence: int | None = Field(default=None, primary_key=True)
    lease_id: str = Field(foreign_key="lease.id", unique=True)
    task_id: str = Field(foreign_key="task.id", index=True)
    hotkey: str = Field(index=True)
    submitted_at: int = _time()
    late: bool
    records: int = Field(sa_type=BigInteger)
    rows: int = Field(sa_type=BigInteger)
    tokens: int = Field(sa_type=BigInteger)
    body: str = Field(sa_type=Text)

    @classmethod
    def of(cls, submission: Submission, lease: LeaseRow, *, submitted_at: int, late: bool) -> Self:
        manifest = submission.manifest
        return cls(
            lease_id=lease.id,
            task_id=lease.task_id,
            hotkey=lease.hotkey,
            submitted_at=submitted_at,
            late=late,
            records=manifest.records,
            rows=manifest.rows,
            tokens=manifest.tokens,
            body=submission.canonical().decode(),
        )

    def view(self, *, revealed: bool) -> SubmissionView:
        submission = Submission.model_validate_json(self.body) if revealed else None
        return SubmissionView(
            lease_id=self.lease_id,
            task_id=self.task_id,
            hotkey=self.hotkey,
            submitted_at=moment(self.submitted_at),
            late=self.late,
            records=self.records,
            rows=self.rows,
            tokens=self.tokens,
            dataset=submission.dataset if submission else None,
            manifest=submission.manifest if submission else None,
        )


class SheetRow(SQLModel, table=True):
    """A validator may score again, after a verdict of `none` for example; all its sheets are kept in order."""

    __tablename__ = "sheet"

    sequence: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)
    task_id: str = Field(foreign_key="task.id", index=True)
    hotkey: str = Field(index=True)
    validator: str
    outcome: str
    received_at: int = _time()
    body: str = Field(sa_type=Text)

    @classmethod
    def of(cls, signed: SignedSheet, *, received_at: int) -> Self:
        sheet = signed.sheet
        return cls(
            digest=sheet.digest(),
            task_id=sheet.task_id,
            hotkey=sheet.hotkey,
            validator=sheet.validator,
            outcome=sheet.outcome,
            received_at=received_at,
            body=signed.canonical().decode(),
        )


class ReleaseRow(SQLModel, table=True):
    __tablename__ = "release"
    __table_args__ = (UniqueConstraint("trainer", "name", "version"),)

    sequence: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)
    trainer: str
    name: str
    version: str
    received_at: int = _time()
    body: str = Field(sa_type=Text)

    @classmethod
    def of(cls, signed: SignedRelease, *, received_at: int) -> Self:
        release = signed.release
        return cls(
            digest=release.digest(),
            trainer=release.trainer,
            name=release.name,
            version=release.version,
            received_at=received_at,
            body=signed.canonical().decode(),
        )


class NonceRow(SQLModel, table=True):
    """A signed request that was accepted; kept for as long as its signature would still be fresh."""

    __tablename__ = "nonce"

    hotkey: str = Field(primary_key=True)
    nonce_ns: int = Field(primary_key=True, sa_type=BigInteger)


class IdempotencyRow(SQLModel, table=True):
    """The reply that a write was given, kept in the transaction that made it true."""

    __tablename__ = "idempotency"

    hotkey: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    digest: str
    reply: str = Field(sa_type=Text)
    created_at: int = _time(index=True)
