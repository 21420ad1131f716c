"""The end of the event chain: whatever transactions changed is linked to it before they commit."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlmodel import col

from athena.audit import GENESIS, link_hash
from task_server.books import EventHeadRow, EventRow
from task_server.prepared import Prepared
from task_server.transaction import Transaction

_HEAD = Prepared(
    select(col(EventHeadRow.sequence), col(EventHeadRow.hash)).where(col(EventHeadRow.id) == 1).with_for_update()
)
_FIRST = Prepared(insert(EventHeadRow))
_MOVE = Prepared(
    update(EventHeadRow)
    .where(col(EventHeadRow.id) == 1)
    .values(sequence=bindparam("to_sequence"), hash=bindparam("to_hash"))
)
_ADD = Prepared(insert(EventRow))


def append(connection: Connection, transactions: Sequence[Transaction]) -> None:
    """Links the changes of transactions that are about to commit together, in their order."""
    changes = [(tx.now, *change) for tx in transactions for change in tx.changes]
    if not changes:
        return
    head = _HEAD.first(connection)
    sequence, previous = head if head is not None else (0, GENESIS)
    for at, kind, body, text in changes:
        sequence += 1
        previous = link_hash(previous, sequence, at, kind, body)
        _ADD.run(connection, sequence=sequence, at=at, kind=kind, body=text, hash=previous)
    if head is None:
        _FIRST.run(connection, id=1, sequence=sequence, hash=previous)
    else:
        _MOVE.run(connection, to_sequence=sequence, to_hash=previous)
