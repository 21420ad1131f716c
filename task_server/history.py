"""The end of the event chain: whatever transactions changed is linked to it before they commit."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlmodel import col

from athena.audit import GENESIS, link_hash
from task_server.books import EventHeadRow, EventRow
from task_server.transaction import Transaction

_HEAD = select(col(EventHeadRow.sequence), col(EventHeadRow.hash)).where(col(EventHeadRow.id) == 1).with_for_update()
_FIRST = insert(EventHeadRow)
_MOVE = (
    update(EventHeadRow)
    .where(col(EventHeadRow.id) == 1)
    .values(sequence=bindparam("to_sequence"), hash=bindparam("to_hash"))
)
_ADD = insert(EventRow)


def append(connection: Connection, transactions: Sequence[Transaction]) -> None:
    """Links the changes of transactions that are about to commit together, in their order."""
    changes = [(tx.now, *change) for tx in transactions for change in tx.changes]
    if not changes:
        return
    head = connection.execute(_HEAD).first()
    sequence, previous = head if head is not None else (0, GENESIS)
    rows = []
    for at, kind, body, text in changes:
        sequence += 1
        previous = link_hash(previous, sequence, at, kind, body)
        rows.append({"sequence": sequence, "at": at, "kind": kind, "body": text, "hash": previous})
    connection.execute(_ADD, rows)
    if head is None:
        connection.execute(_FIRST, {"id": 1, "sequence": sequence, "hash": previous})
    else:
        connection.execute(_MOVE, {"to_sequence": sequence, "to_hash": previous})
