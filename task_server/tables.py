"""The tables of the work: crawls, tasks, leases, and what became of them. Rows are never deleted.

Nouns that are kept whole are kept as canonical JSON.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Self, cast

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Index,
    Row,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from athena.protocol import (
    Lease,
    LeaseState,
    SignedRelease,
    SignedSheet,
    Submission,
    Task,
)
from athena.registry import Gate, State
from athena.wire import CrawlView, ReleaseView, SubmissionView, TaskView
from task_server.columns import moment, partial_index, time_column

# Written as the partial indexes have them, constants included: a parameter in their place, and no index would be used.
IS_ACTIVE = text("lease.state = 'active'")
IS_ENDED = text("lease.state <> 'active'")
IS_OPEN = text("task.slots > 0 AND NOT task.closed")
IS_FILLED = text("(task.slots = 0 OR task.closed)")


class CrawlRow(SQLModel, table=True):
    """A crawl and how it is cut. `plan` is the Opening (task_server.crawl) as JSON: an import that was killed goes on.

    `failure` says why the last attempt to import it stopped; null while all is well. The servers try again at `due_at`;
    null where nothing is left to do, or only the command can go on. Whoever imports keeps moving `due_at` away.
    """

    __tablename__ = "crawl"

    id: str = Field(primary_key=True)
    url: str
    name: str
    state: str  # importing | open
    plan: str = Field(sa_type=Text)
    failure: str | None = None
    failures: int = 0  # in a row
    due_at: int | None = Field(default=None, sa_type=BigInteger)
    imported_at: int = time_column()

    def view(self) -> CrawlView:
        return CrawlView(
            id=self.id,
            url=self.url,
            name=self.name,
            state=cast(Literal["importing", "open"], self.state),
            failure=self.failure,
            imported_at=moment(self.imported_at),
        )


class WarcRow(SQLModel, table=True):
    """One WARC file; `place` is its place inside its shard."""

    __tablename__ = "warc"
    __table_args__ = (UniqueConstraint("crawl", "path"),)

    shard: int = Field(primary_key=True, foreign_key="shard.sequence", sa_type=BigInteger)
    place: int = Field(primary_key=True)
    crawl: str = Field(foreign_key="crawl.id")
    path: str


class ShardRow(SQLModel, table=True):
    __tablename__ = "shard"
    __table_args__ = (Index("shard_of_crawl", "crawl", "sequence"),)

    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    id: str = Field(unique=True)
    crawl: str = Field(foreign_key="crawl.id")


class TaskRow(SQLModel, table=True):
    """`position` is the place in the draw, without gaps, and grows with `opened_block`.

    A task wants `copies` datasets: its replication, one more if its first miner is new, and two more if it is audited.
    `slots` leases may still be taken: copies, less active leases and accepted submissions. It is written in the same
    transaction as the lease that changes it.
    """

    __tablename__ = "task"
    __table_args__ = (
        UniqueConstraint("shard", "rule_version"),
        CheckConstraint("slots >= 0"),
        Index("task_listed", "opened_block", "position"),
        partial_index("task_open", "position", where="slots > 0 AND NOT closed"),
        partial_index("task_filled", "position", where="slots = 0 OR closed"),
        partial_index("task_audit_due", "audit_block", where="audited IS NULL AND audit_block IS NOT NULL"),
    )

    id: str = Field(primary_key=True)
    position: int = Field(unique=True)
    shard: int = Field(foreign_key="shard.sequence", sa_type=BigInteger)
    rule_version: str
    opened_block: int
    copies: int
    slots: int
    closed: bool = False
    audit_block: int | None = None  # the block after the first lease's; its hash draws
    audited: bool | None = None  # null until drawn

    def view(self, task: Task) -> TaskView:
        return TaskView(
            id=self.id,
            task=task,
            position=self.position,
            copies=self.copies,
            open_slots=0 if self.closed else self.slots,
            audited=self.audited,
            closed=self.closed,
        )


class LeaseRow(SQLModel, table=True):
    """At most one lease of a task per hotkey and per coldkey, ever: the constraints are the last line of defence."""

    __tablename__ = "lease"
    __table_args__ = (
        UniqueConstraint("task_id", "hotkey"),
        UniqueConstraint("task_id", "coldkey"),
        Index("lease_of_hotkey", "hotkey", "fencing"),
        # Not a partial one: SQLite takes lease_of_hotkey in its place, and walks through all that a miner ever held.
        Index("lease_of_hotkey_in_state", "hotkey", "state", "fencing"),
        partial_index("lease_expiring", "expires_at", where="state = 'active'"),
        partial_index("lease_active", "fencing", where="state = 'active'"),
        partial_index("lease_ended", "state", "fencing", where="state <> 'active'"),
        {"sqlite_autoincrement": True},  # a fencing token is never used twice
    )

    fencing: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    task_id: str = Field(foreign_key="task.id")
    hotkey: str
    coldkey: str
    state: str
    audit: bool
    draw_index: int  # which of the caller's draws at issued_block it was
    issued_at: int = time_column()
    heartbeat_at: int = time_column()
    expires_at: int = time_column()
    deadline_at: int = time_column()
    issued_block: int
    deadline_block: int
    progress: str = Field(default="{}", sa_type=Text)


def state_at(lease: LeaseRow | Row[Any], now: int) -> LeaseState:
    """The state as time makes it, whether or not a write has yet recorded the expiry."""
    if lease.state == "active" and lease.expires_at <= now:
        return "expired"
    return cast(LeaseState, lease.state)


def lease_noun(lease: LeaseRow | Row[Any], task: Task, now: int) -> Lease:
    return Lease(
        id=lease.id,
        task=task,
        hotkey=lease.hotkey,
        state=state_at(lease, now),
        fencing=cast(int, lease.fencing),
        audit=lease.audit,
        draw_index=lease.draw_index,
        issued_at=moment(lease.issued_at),
        heartbeat_at=moment(lease.heartbeat_at),
        expires_at=moment(lease.expires_at),
        deadline_at=moment(lease.deadline_at),
        issued_block=lease.issued_block,
        deadline_block=lease.deadline_block,
    )


class SubmissionRow(SQLModel, table=True):
    """What a lease came to. Not `accepted`: it came when the task had no slot left; kept, but nobody pays for it.

    `verdict` is what the validators that scored it say by weight of stake, null until one does. `canary_passed` tells
    whether it agrees with an output that the server knew beforehand, null where it knew none.
    """

    __tablename__ = "submission"
    __table_args__ = (
        Index("submission_of_task", "task_id", "sequence"),
        # Holds all that a miner's record sums up, so that the bodies are left unread.
        Index("submission_of_hotkey", "hotkey", "sequence", "verdict", "records", "rows", "tokens"),
    )

    sequence: int | None = Field(default=None, primary_key=True)
    lease_id: str = Field(foreign_key="lease.id", unique=True)
    task_id: str = Field(foreign_key="task.id")
    hotkey: str
    submitted_at: int = time_column()
    late: bool
    accepted: bool
    verdict: str | None = None
    canary_passed: bool | None = None
    records: int = Field(sa_type=BigInteger)
    rows: int = Field(sa_type=BigInteger)
    tokens: int = Field(sa_type=BigInteger)
    body: str = Field(sa_type=Text)

    @classmethod
    def of(
        cls, submission: Submission, lease: LeaseRow | Row[Any], *, submitted_at: int, late: bool, accepted: bool
    ) -> Self:
        manifest = submission.manifest
        return cls(
            lease_id=lease.id,
            task_id=lease.task_id,
            hotkey=lease.hotkey,
            submitted_at=submitted_at,
            late=late,
            accepted=accepted,
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
            accepted=self.accepted,
            verdict=cast(Literal["pass", "fail"] | None, self.verdict),
            records=self.records,
            rows=self.rows,
            tokens=self.tokens,
            dataset=submission.dataset if submission else None,
            manifest=submission.manifest if submission else None,
        )


class SheetRow(SQLModel, table=True):
    """A validator may score again, after a verdict of `none` for example; all its sheets are kept in order."""

    __tablename__ = "sheet"
    __table_args__ = (
        # Holds all that the leaderboard needs, so that the bodies are left unread.
        Index("sheet_of_task", "task_id", "sequence", "hotkey", "validator", "outcome", "units", "effect"),
        Index("sheet_of_hotkey", "hotkey", "sequence"),
        Index("sheet_of_validator", "validator", "sequence"),
        Index("sheet_of_validator_on_hotkey", "validator", "hotkey", "sequence"),
    )

    sequence: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)
    task_id: str = Field(foreign_key="task.id")
    hotkey: str
    validator: str
    stake: float  # of the validator when the sheet came in, in TAO
    outcome: str
    units: float
    effect: float | None = None  # its mean, in bits per byte
    received_at: int = time_column()
    body: str = Field(sa_type=Text)

    @classmethod
    def of(cls, signed: SignedSheet, *, stake: float, received_at: int) -> Self:
        sheet = signed.sheet
        return cls(
            digest=sheet.digest(),
            task_id=sheet.task_id,
            hotkey=sheet.hotkey,
            validator=sheet.validator,
            stake=stake,
            outcome=sheet.outcome,
            units=sheet.units,
            effect=None if sheet.effect is None else sheet.effect.mean,
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
    received_at: int = time_column()
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


class JournalRow(SQLModel, table=True):
    """One entry of a trainer's journal of a model."""

    __tablename__ = "journal"
    __table_args__ = (UniqueConstraint("trainer", "model", "number"),)

    sequence: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)
    trainer: str
    model: str
    number: int
    received_at: int = time_column()
    body: str = Field(sa_type=Text)


class VersionRow(SQLModel, table=True):
    """Where a version of a model stands, as its journal says. `aliases` is a JSON list of those that name it now."""

    __tablename__ = "version"
    __table_args__ = (UniqueConstraint("trainer", "model", "version"),)

    sequence: int | None = Field(default=None, primary_key=True)
    trainer: str
    model: str
    version: str
    release: str
    state: str
    aliases: str
    gate: str | None = None
    location: str | None = None
    revision: str | None = None
    changed_at: int = time_column()

    def view(self) -> ReleaseView:
        return ReleaseView(
            trainer=self.trainer,
            name=self.model,
            version=self.version,
            sha256=self.release,
            state=cast(State, self.state),
            aliases=tuple(json.loads(self.aliases)),
            gate=cast(Gate | None, self.gate),
            location=self.location,
            revision=self.revision,
            changed_at=moment(self.changed_at),
        )
