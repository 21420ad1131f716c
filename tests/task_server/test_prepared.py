"""Statements that go past SQLAlchemy's execution give what it would have given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col

from task_server import schema
from task_server.books import AccountRow, ApiKeyRow
from task_server.columns import table_of
from task_server.engines import open_engine, writing
from task_server.prepared import Prepared
from task_server.tables import CrawlRow, ShardRow, TaskRow

TASK = {
    "id": "a" * 32, "position": 0, "shard": 1, "rule_version": "1", "opened_block": 5, "copies": 1, "slots": 1,
    "closed": False, "audited": None,
}  # fmt: skip


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A transaction on a ledger with one shard."""
    engine = open_engine(database_url)
    schema.prepare(engine)
    crawl = {"id": "LOCAL-1", "url": "file:///", "name": "1", "state": "open", "plan": "{}", "imported_at": 0}
    with writing(engine) as connection:
        connection.execute(insert(CrawlRow), crawl | {"failures": 0})
        connection.execute(insert(ShardRow), {"sequence": 1, "id": "b" * 32, "crawl": "LOCAL-1"})
        yield connection
    engine.dispose()


def test_rows_are_those_of_sqlalchemy(connection):
    tasks = select(table_of(TaskRow)).where(col(TaskRow.id) == bindparam("task"))
    added = Prepared(insert(TaskRow).returning(table_of(TaskRow))).one(connection, **TASK)
    (row,) = Prepared(tasks).rows(connection, task=TASK["id"])
    assert added == row == connection.execute(tasks, {"task": TASK["id"]}).one()
    assert row.closed is False and row.audited is None
    assert row._asdict() == TASK | {"audit_block": None}
    assert Prepared(tasks).first(connection, task="c" * 32) is None


def test_constants_of_the_statement_are_bound_too(connection):
    account = {"coldkey": "cold", "quota": 3, "allowance": 2.5, "refilled_at": 2**53, "streak": 0}
    assert Prepared(insert(AccountRow)).run(connection, **account) == 1
    raised = update(AccountRow).where(col(AccountRow.coldkey) == bindparam("of")).values(quota=AccountRow.quota + 4)
    assert Prepared(raised).run(connection, of="cold") == 1
    assert Prepared(raised).run(connection, of="nobody") == 0
    accounts = select(col(AccountRow.quota), col(AccountRow.allowance), col(AccountRow.refilled_at))
    assert tuple(Prepared(accounts.limit(1)).one(connection)) == (7, 2.5, 2**53)


@pytest.mark.parametrize("text", ["'; DROP TABLE task; --", "%(of)s", "?", ":of", '"', "%"])
def test_text_is_only_text(connection, text):
    key = {"id": "key", "sha256": "d" * 64, "scopes": "tasks", "note": text, "created_at": 0}
    Prepared(insert(ApiKeyRow)).run(connection, **key)
    noted = Prepared(select(col(ApiKeyRow.note)).where(col(ApiKeyRow.note) == bindparam("like")))
    assert noted.one(connection, like=text).note == text


def test_errors_are_those_of_sqlalchemy(connection):
    with pytest.raises(IntegrityError), connection.begin_nested():
        Prepared(insert(TaskRow)).run(connection, **TASK | {"slots": -1})
