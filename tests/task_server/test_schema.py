"""The migrations make the very tables that the code declares, up and down, whoever starts first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text
from sqlmodel import SQLModel

from athena.errors import Misconfigured
from task_server import schema
from task_server.engines import open_engine, writing
from task_server.store import open_store
from task_server.transaction import utc_micros

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


def catalogue(engine: Engine) -> set[object]:
    """What the database itself says of its tables: columns, constraints, indexes and their conditions."""
    if engine.dialect.name == "sqlite":
        queries = [
            "SELECT sql FROM sqlite_master"
            " WHERE sql IS NOT NULL AND tbl_name NOT IN ('alembic_version', 'sqlite_sequence')"
        ]
    else:
        queries = [
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
            "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace AND conrelid <> to_regclass('alembic_version')",
            "SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default)"
            " FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'",
        ]
    with engine.connect() as connection:
        found = [str(definition) for query in queries for definition in connection.execute(text(query)).scalars()]
    # SQLite keeps a table's definition as it was written, a line for each column and constraint.
    return {frozenset(line.strip().rstrip(",") for line in definition.splitlines()) for definition in found}


def test_up_down_and_up_again(engine: Engine):
    schema.prepare(engine)
    first = catalogue(engine)
    with writing(engine) as connection:
        command.downgrade(schema.configuration(connection), "base")
    assert catalogue(engine) == set()
    schema.prepare(engine)
    assert catalogue(engine) == first


def test_the_migrations_make_the_tables_that_the_code_declares(engine: Engine):
    schema.prepare(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    migrated = catalogue(engine)
    with writing(engine) as connection:
        command.downgrade(schema.configuration(connection), "base")
        SQLModel.metadata.create_all(connection)
    assert migrated == catalogue(engine)  # conditions of indexes, checks and counters too


def test_what_holds_the_ledger_together_is_in_the_database(engine: Engine):
    schema.prepare(engine)
    definitions = " ".join(" ".join(lines) for lines in catalogue(engine))
    partial = {
        index.name for table in SQLModel.metadata.tables.values() for index in table.indexes if index.dialect_kwargs
    }
    assert {"task_open", "lease_active", "lease_expiring", "opt_out_listed"} <= partial
    with engine.connect() as connection:
        found = inspect(connection)
        conditions = {
            index["name"]: index.get("dialect_options", {}).get(f"{engine.dialect.name}_where")
            for table in found.get_table_names()
            for index in found.get_indexes(table)
        }
    assert partial == {name for name, condition in conditions.items() if condition is not None}
    assert "slots >= 0" in definitions
    assert ("AUTOINCREMENT" if engine.dialect.name == "sqlite" else "nextval('lease_fencing_seq") in definitions


def test_there_is_one_last_revision_and_the_code_knows_it():
    assert ScriptDirectory.from_config(schema.configuration()).get_heads() == [schema.HEAD]


def test_a_database_at_the_last_revision_opens_without_alembic(sqlite_url: str):
    open_store(sqlite_url).close()
    code = (
        "import sys; from task_server.store import open_store; open_store(sys.argv[1]).close();"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, sqlite_url]).returncode == 0


def test_tables_of_something_else_are_left_alone(engine: Engine, database_url: str):
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE recipe (id INTEGER PRIMARY KEY)"))
    for act in (schema.prepare, schema.migrate):
        with pytest.raises(Misconfigured, match="not the ledger's") as caught:
            act(engine)
        assert "empty" in caught.value.remedy
    assert inspect(engine).get_table_names() == ["recipe"]


SECOND = """
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.add_column("account", sa.Column("motto", sa.Text(), nullable=True))
"""


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Code that is one migration ahead; `undo` makes it the present release again."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0003_motto.py").write_text(SECOND)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", folder)
        patch.setattr(schema, "HEAD", "0003")
        yield patch


def test_an_older_database_waits_for_its_operator(engine: Engine, next_release: pytest.MonkeyPatch):
    with writing(engine) as connection:
        command.upgrade(schema.configuration(connection), "0001")
        connection.execute(text("INSERT INTO account VALUES ('c', 16, 3.5, :now, 0, NULL)"), {"now": utc_micros()})
    with pytest.raises(Misconfigured, match="version 0001") as caught:
        schema.prepare(engine)
    assert "athena server migrate" in caught.value.remedy

    assert schema.migrate(engine) == "0001"
    schema.prepare(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT coldkey, allowance, motto FROM account")).one() == ("c", 3.5, None)
    assert schema.migrate(engine) == "0003"


def test_a_newer_database_is_left_alone(engine: Engine, next_release: pytest.MonkeyPatch):
    schema.prepare(engine)
    next_release.undo()
    for act in (schema.prepare, schema.migrate):
        with pytest.raises(Misconfigured, match="version 0003") as caught:
            act(engine)
        assert "release" in caught.value.remedy


OPENER = """
import sys
from task_server.store import open_store
from task_server.books import NonceRow

print("ready", flush=True)
sys.stdin.readline()
store = open_store(sys.argv[1])
assert store.submit(lambda tx: tx.insert_new(NonceRow, hotkey=sys.argv[2], nonce_ns=1)).result()
store.close()
"""


def test_servers_that_start_at_once_do_not_collide(database_url: str):
    command_line = [sys.executable, "-c", OPENER, database_url]
    openers = [
        subprocess.Popen([*command_line, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    for opener in openers:
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        opener.stdin.write("go\n")
        opener.stdin.flush()
    for opener in openers:
        opener.communicate()
    assert [opener.returncode for opener in openers] == [0] * 3
    with closing(open_store(database_url)) as store, store.read() as session:
        assert session.connection().execute(text("SELECT count(*) FROM nonce")).scalar() == 3


def test_the_next_migration_is_written_by_alembics_own_command(sqlite_url: str):
    schema.prepare(open_engine(sqlite_url))
    alembic = [sys.executable, "-m", "alembic", "-x", f"database={sqlite_url}"]
    checked = subprocess.run([*alembic, "check"], cwd=REPOSITORY, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "No new upgrade operations detected.\n")
