"""Which task a claim gets: the first eligible one in the caller's public order of draws (athena.leasing)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, case, exists, func, or_, select, update
from sqlmodel import col

from athena.leasing import MAX_DRAWS, lease_positions
from task_server.prepared import Line, Prepared
from task_server.tables import IS_OPEN, LeaseRow, TaskRow
from task_server.transaction import Transaction

if TYPE_CHECKING:
    from athena.chain.client import Head, Neuron

DRAWS_PER_QUERY = (31, 224)  # after the first draw, which nearly always finds a free task
WALK_PER_QUERY = 16

_LISTED = Prepared(
    select(col(TaskRow.position))
    .where(col(TaskRow.opened_block) <= bindparam("block"))
    .order_by(col(TaskRow.opened_block).desc(), col(TaskRow.position).desc())
    .limit(1)
)
_CONFLICT = exists().where(
    col(LeaseRow.task_id) == col(TaskRow.id),
    or_(col(LeaseRow.hotkey) == bindparam("hotkey"), col(LeaseRow.coldkey) == bindparam("coldkey")),
)
_ELIGIBLE = select(col(TaskRow.position)).where(IS_OPEN, ~_CONFLICT)
_DRAWN = _ELIGIBLE.where(col(TaskRow.position).in_(bindparam("positions", expanding=True)))
_WALK = (
    _ELIGIBLE.where(col(TaskRow.position) > bindparam("after"), col(TaskRow.position) <= bindparam("until"))
    .order_by(col(TaskRow.position))
    .limit(WALK_PER_QUERY)
)
# On PostgreSQL a task that another claim is just taking counts as filled; SQLite has one writer anyway.
_FREE = (
    select(col(TaskRow.id))
    .where(col(TaskRow.position) == bindparam("at"), IS_OPEN, ~_CONFLICT)
    .with_for_update(skip_locked=True, key_share=True)
    .scalar_subquery()
)
_NEW_COPIES = case((col(TaskRow.audit_block).is_(None), bindparam("new_copies")), else_=0)
_TAKE = Prepared(
    update(TaskRow)
    .where(col(TaskRow.id) == _FREE)
    .values(
        slots=TaskRow.slots - 1 + _NEW_COPIES,
        copies=TaskRow.copies + _NEW_COPIES,
        audit_block=func.coalesce(col(TaskRow.audit_block), bindparam("next_block")),
    )
    .returning(
        col(TaskRow.id),
        col(TaskRow.shard),
        col(TaskRow.rule_version),
        col(TaskRow.opened_block),
        col(TaskRow.slots),
        col(TaskRow.copies),
        col(TaskRow.audited),
    )
)


@dataclass(frozen=True)
class Drawn:
    """The task that a claim has just taken a slot of, and which of how many it was drawn from."""

    index: int
    num_listed: int
    task: Line


def draw(tx: Transaction, caller: Neuron, head: Head, new_copies: int) -> Drawn | None:
    """Takes a slot of the first eligible task at `head`; None when no task is eligible.

    A task that is leased for the first time gets `new_copies` more slots.
    """
    last = _LISTED.first(tx.connection, block=head.number)
    if last is None:
        return None
    who = {"hotkey": caller.hotkey, "coldkey": caller.coldkey}
    for index, position in _candidates(tx, who, head, last.position + 1):
        taken = _TAKE.first(tx.connection, at=position, new_copies=new_copies, next_block=head.number + 1, **who)
        if taken is not None:
            return Drawn(index, last.position + 1, taken)
    return None


def _candidates(tx: Transaction, who: Mapping[str, str], head: Head, num_tasks: int) -> Iterator[tuple[int, int]]:
    """Draw index and position of tasks that may be free, in the order of the draws."""
    draws = lease_positions(head.hash, who["hotkey"], num_tasks)
    position = next(draws)
    yield 0, position
    index, seen = 1, {position}
    for size in DRAWS_PER_QUERY:
        some = list(islice(draws, size))
        eligible = {row.position for row in tx.connection.execute(_DRAWN, {"positions": some, **who})}
        for position in some:
            if position in eligible and position not in seen:
                yield index, position
            seen.add(position)
            index += 1
    for after, until, distance in ((position, num_tasks - 1, -position), (-1, position, num_tasks - position)):
        while True:
            walked = tx.connection.execute(_WALK, {"after": after, "until": until, **who}).scalars().all()
            for after in walked:
                yield MAX_DRAWS - 1 + after + distance, after
            if len(walked) < WALK_PER_QUERY:
                break
