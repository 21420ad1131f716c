"""Leases as rows: issued, found, expired. A lease that ran out is found by query: no process has to remember it."""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update
from sqlmodel import col

from athena.errors import Conflict, Forbidden, NotFound
from athena.leasing import AUDIT_COPIES
from athena.protocol import Lease, Shard, Task
from task_server import accounts
from task_server.books import AccountRow
from task_server.columns import table_of
from task_server.drawing import Drawn
from task_server.prepared import Line, Prepared
from task_server.settings import TaskServerSettings
from task_server.tables import IS_ACTIVE, IS_OPEN, LeaseRow, ShardRow, TaskRow, WarcRow, lease_noun
from task_server.transaction import SECOND, Transaction

if TYPE_CHECKING:
    from athena.chain.client import Head, Neuron

MAX_EXPIRED_PER_CLAIM = 64

_LEASES = table_of(LeaseRow)
_HELD = Prepared(
    select(_LEASES)
    .where(_LEASES.c.hotkey == bindparam("hotkey"), IS_ACTIVE, _LEASES.c.expires_at > bindparam("now"))
    .order_by(_LEASES.c.fencing)
    .limit(bindparam("count"))
)
_BY_ID = Prepared(select(_LEASES).where(_LEASES.c.id == bindparam("lease")).with_for_update(key_share=True))
# Only where nobody else holds lease or account: a sweep waits for no other.
_OVERDUE = Prepared(
    select(_LEASES)
    .join(AccountRow, col(AccountRow.coldkey) == _LEASES.c.coldkey)
    .where(IS_ACTIVE, _LEASES.c.expires_at <= bindparam("now"))
    .limit(MAX_EXPIRED_PER_CLAIM)
    .with_for_update(of=(_LEASES, table_of(AccountRow)), skip_locked=True, key_share=True)
)
_ISSUE = Prepared(insert(_LEASES).returning(_LEASES))
_SET_STATE = Prepared(update(_LEASES).where(_LEASES.c.fencing == bindparam("of")).values(state=bindparam("to")))
_BEAT = Prepared(
    update(_LEASES)
    .where(_LEASES.c.fencing == bindparam("of"))
    .values({name: bindparam(f"to_{name}") for name in ("heartbeat_at", "expires_at", "progress")})
)
_RETURN_SLOT = Prepared(update(TaskRow).where(col(TaskRow.id) == bindparam("task")).values(slots=TaskRow.slots + 1))
_TAKE_SLOT = Prepared(
    update(TaskRow).where(col(TaskRow.id) == bindparam("task"), IS_OPEN).values(slots=TaskRow.slots - 1)
)
_TASK = Prepared(
    select(col(TaskRow.rule_version), col(TaskRow.opened_block), col(ShardRow.crawl), col(WarcRow.path))
    .join(ShardRow, col(ShardRow.sequence) == col(TaskRow.shard))
    .join(WarcRow, col(WarcRow.shard) == col(TaskRow.shard))
    .where(col(TaskRow.id) == bindparam("task"))
    .order_by(col(WarcRow.place))
)

LeaseLine = Line
"""A row of the table of leases."""


def held(tx: Transaction, hotkey: str, count: int) -> list[LeaseLine]:
    """The active leases of a hotkey, oldest first."""
    return _HELD.rows(tx.connection, hotkey=hotkey, count=count, now=tx.now)


def own(tx: Transaction, caller: Neuron, lease_id: str, fencing: int) -> LeaseLine:
    """Raises NotFound, Forbidden for another's lease, Conflict for a stale fencing token."""
    lease = _BY_ID.first(tx.connection, lease=lease_id)
    if lease is None:
        raise NotFound(f"no lease {lease_id}")
    if lease.hotkey != caller.hotkey:
        raise Forbidden("the lease is another miner's")
    if lease.fencing != fencing:
        raise Conflict("the fencing token is not this lease's", remedy="claim again to see the leases that you hold")
    return lease


def issue(tx: Transaction, drawn: Drawn, caller: Neuron, head: Head, settings: TaskServerSettings) -> LeaseLine:
    """A lease of a task whose slot was taken."""
    task = drawn.task
    blocks = math.ceil(settings.deadline_seconds / settings.block_seconds)
    lease = _ISSUE.one(
        tx.connection,
        id=blake2b(f"{task.id}{caller.hotkey}".encode(), digest_size=16).hexdigest(),
        task_id=task.id,
        hotkey=caller.hotkey,
        coldkey=caller.coldkey,
        state="active",
        audit=bool(task.audited) and task.slots < AUDIT_COPIES,
        draw_index=drawn.index,
        issued_at=tx.now,
        heartbeat_at=tx.now,
        expires_at=tx.now + round(settings.lease_seconds * SECOND),
        deadline_at=tx.now + round(settings.deadline_seconds * SECOND),
        issued_block=head.number,
        deadline_block=head.number + blocks,
        progress="{}",
    )
    record(
        tx,
        "leased",
        lease,
        block=head.number,
        listed=drawn.num_listed,
        draw_index=drawn.index,
        audit=lease.audit,
        copies=task.copies,
        coldkey=caller.coldkey,
    )
    return lease


def record(tx: Transaction, kind: str, lease: LeaseLine, **body: Any) -> None:
    tx.record(kind, task=lease.task_id, hotkey=lease.hotkey, lease=lease.id, fencing=lease.fencing, **body)


def expire_overdue(tx: Transaction, settings: TaskServerSettings) -> set[str]:
    """Ends leases that ran out, at most MAX_EXPIRED_PER_CLAIM; the coldkeys that held them.

    A claim must hold its caller's account before it sweeps.
    """
    overdue = _OVERDUE.rows(tx.connection, now=tx.now)
    for lease in sorted(overdue, key=lambda lease: lease.task_id):  # two sweeps meet the same tasks in the same order
        expire(tx, lease, settings)
    return {lease.coldkey for lease in overdue}


def expire(tx: Transaction, lease: LeaseLine, settings: TaskServerSettings) -> None:
    """Ends a lease, gives its slot back, and lowers its holder's quota."""
    set_state(tx, lease, "expired")
    return_slot(tx, lease.task_id)
    accounts.save(tx, accounts.locked(tx, lease.coldkey, settings.initial_quota).punished())
    record(tx, "expired", lease)


def set_state(tx: Transaction, lease: LeaseLine, state: str) -> None:
    _SET_STATE.run(tx.connection, of=lease.fencing, to=state)


def beat(tx: Transaction, lease: LeaseLine, expires_at: int, progress: str) -> None:
    _BEAT.run(
        tx.connection,
        of=lease.fencing,
        to_heartbeat_at=tx.now,
        to_expires_at=expires_at,
        to_progress=progress,
    )


def return_slot(tx: Transaction, task_id: str) -> None:
    _RETURN_SLOT.run(tx.connection, task=task_id)


def take_slot(tx: Transaction, task_id: str) -> bool:
    """One conditional statement, so that two writers can never take the same slot."""
    return _TAKE_SLOT.run(tx.connection, task=task_id) == 1


def task_of(tx: Transaction, task_id: str) -> Task:
    lines = _TASK.rows(tx.connection, task=task_id)
    rule_version, opened_block, crawl, _ = lines[0]
    shard = Shard(crawl=crawl, warc_paths=tuple(line.path for line in lines))
    return Task(shard=shard, rule_version=rule_version, opened_block=opened_block)


def noun(tx: Transaction, lease: LeaseLine) -> Lease:
    return lease_noun(lease, task_of(tx, lease.task_id), tx.now)
