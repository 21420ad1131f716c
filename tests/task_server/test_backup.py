"""A backup is the ledger at one moment, fits both databases, and never comes back damaged."""

from __future__ import annotations

import gzip
import hashlib
import json
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, Engine, Float, Integer, insert, or_, select
from sqlmodel import SQLModel
from typer.testing import CliRunner

from athena.errors import BadInput, Misconfigured, TooLarge, Unavailable
from task_server import backup, schema
from task_server.__main__ import cli
from task_server.backup import restore_backup, write_backup
from task_server.books import NonceRow
from task_server.engines import open_engine
from task_server.store import Store, open_store
from task_server.transaction import Transaction

TABLES = SQLModel.metadata.sorted_tables
NUM_ROWS = 7  # of each table
AT = 1_790_000_000_000_000

Contents = dict[str, list[tuple[Any, ...]]]


def value(column: Column[Any], row: int) -> Any:
    """What the row-th row of a made-up ledger has in a column."""
    for reference in column.foreign_keys:
        return value(reference.column, row)
    if column.nullable and row % 3 == 0:
        return None
    if isinstance(column.type, BigInteger):
        return 2**53 + 1 + row  # more than a float can hold
    if isinstance(column.type, Integer):
        return row + 1
    if isinstance(column.type, Float):
        return 0.1 + row
    if column.type.python_type is bool:
        return row % 2 == 0
    return f'{column.name} {row}: "é"\u2028\n\\'


def made_up(tx: Transaction) -> None:
    """A few rows in every table, events included, in the order of what refers to what."""
    for table in TABLES:
        if not table.name.startswith("event"):
            rows = [{column.name: value(column, row) for column in table.columns} for row in range(NUM_ROWS)]
            tx.connection.execute(insert(table), rows)
    for number in range(NUM_ROWS):
        tx.record("counted", number=number, share=number / 3, note='"é"')


def contents(engine: Engine) -> Contents:
    with engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr) for table in TABLES
        }


@pytest.fixture
def engine_at() -> Iterator[Callable[[str], Engine]]:
    opened: list[Engine] = []

    def open_at(url: str) -> Engine:
        opened.append(open_engine(url))
        return opened[-1]

    yield open_at
    for engine in opened:
        engine.dispose()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the made-up ledger."""
    folder = tmp_path_factory.mktemp("saved")
    with closing(open_store(f"sqlite:///{folder / 'ledger.sqlite'}")) as store:
        store.submit(made_up).result()
    engine = open_engine(f"sqlite:///{folder / 'ledger.sqlite'}")
    write_backup(engine, folder / "ledger.backup", AT)
    engine.dispose()
    return folder / "ledger.backup"


@pytest.fixture
def target(database_url: str, engine_at) -> Engine:
    """An empty database of each kind."""
    return engine_at(database_url)


def test_a_ledger_moves_from_sqlite_to_postgres_and_back(tmp_path, sqlite_url, postgres_url, engine_at):
    with closing(open_store(sqlite_url)) as store:
        store.submit(made_up).result()
    before = contents(engine_at(sqlite_url))
    assert all(len(rows) == NUM_ROWS for name, rows in before.items() if name != "event_head")

    total = sum(map(len, before.values()))
    assert write_backup(engine_at(sqlite_url), tmp_path / "one", AT) == total
    assert restore_backup(engine_at(postgres_url), tmp_path / "one") == total
    assert contents(engine_at(postgres_url)) == before

    assert write_backup(engine_at(postgres_url), tmp_path / "two", AT) == total
    third = f"sqlite:///{tmp_path / 'third.sqlite'}"
    assert restore_backup(engine_at(third), tmp_path / "two") == total
    assert contents(engine_at(third)) == before


def test_a_restored_ledger_goes_on_where_it_stopped(saved: Path, database_url: str, target: Engine):
    restore_backup(target, saved)

    def go_on(tx: Transaction) -> dict[str, int]:
        """Inserts one more row into every table, with the number that the database gives it."""
        numbers = {}
        for table in TABLES:
            given = table.autoincrement_column
            if table.name.startswith("event"):
                continue
            if given is None or isinstance(given.type, BigInteger):  # of a shard: the server gives it
                tx.connection.execute(insert(table), {c.name: value(c, NUM_ROWS) for c in table.columns})
            else:
                row = {column.name: value(column, NUM_ROWS) for column in table.columns if column is not given}
                numbers[table.name] = tx.connection.execute(insert(table).returning(given), row).scalar_one()
        tx.record("went-on")
        return numbers

    with closing(open_store(database_url)) as store:
        numbers = store.submit(go_on).result()
    assert {"lease", "submission", "sheet", "release", "opt_out"} <= numbers.keys()
    assert set(numbers.values()) == {NUM_ROWS + 1}  # a fencing token is never given twice
    assert [row[0] for row in contents(target)["event"]] == list(range(1, NUM_ROWS + 2))


def test_a_backup_of_a_ledger_in_use_is_one_moment_of_it(database_url: str, tmp_path, engine_at):
    stop = threading.Event()
    numbers = count()

    def use(store: Store) -> None:
        while not stop.is_set():
            number = next(numbers)

            def spend_two(tx: Transaction, number: int = number) -> None:
                tx.insert_new(NonceRow, hotkey="miner", nonce_ns=2 * number)
                tx.insert_new(NonceRow, hotkey="miner", nonce_ns=2 * number + 1)
                tx.record("spent", number=number)

            store.submit(spend_two).result()

    with closing(open_store(database_url)) as store:
        users = [threading.Thread(target=use, args=(store,)) for _ in range(4)]
        for user in users:
            user.start()
        for i in range(8):
            write_backup(engine_at(database_url), tmp_path / str(i), AT)
        stop.set()
        for user in users:
            user.join()

    sizes = []
    for i in range(8):
        restored = engine_at(f"sqlite:///{tmp_path / f'{i}.sqlite'}")
        restore_backup(restored, tmp_path / str(i))
        rows = contents(restored)
        spent = sorted(json.loads(event[3])["number"] for event in rows["event"])
        assert sorted(nonce for _, nonce in rows["nonce"]) == [2 * n + one for n in spent for one in (0, 1)]
        sizes.append(len(spent))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_only_an_empty_database_is_restored_into(saved: Path, database_url: str, target: Engine):
    with closing(open_store(database_url)) as store:
        store.submit(lambda tx: tx.insert_new(NonceRow, hotkey="miner", nonce_ns=1)).result()
    before = contents(target)
    with pytest.raises(Misconfigured, match="holds a ledger already"):
        restore_backup(target, saved)
    assert contents(target) == before


@pytest.fixture
def empty(target: Engine) -> Engine:
    schema.prepare(target)
    return target


DAMAGED = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@DAMAGED
@given(place=st.integers(0, 2**20), mask=st.integers(1, 255))
@example(place=0, mask=1)
@example(place=10, mask=255)
def test_a_flipped_byte_is_found(saved: Path, empty: Engine, place: int, mask: int):
    content = bytearray(saved.read_bytes())
    content[place % len(content)] ^= mask
    assume(unpacked(bytes(content)) != gzip.decompress(saved.read_bytes()))  # not of gzip's own clock, for example
    assert_refused(bytes(content), saved, empty)


@DAMAGED
@given(length=st.integers(0, 2**20))
@example(length=0)
@example(length=10)
@example(length=-1)
def test_a_cut_is_found(saved: Path, empty: Engine, length: int):
    content = saved.read_bytes()
    assert_refused(content[: length % len(content)], saved, empty)


@DAMAGED
@given(place=st.integers(0, 2**20), mask=st.integers(1, 255))
def test_a_flipped_byte_inside_is_found(saved: Path, empty: Engine, place: int, mask: int):
    content = bytearray(gzip.decompress(saved.read_bytes()))
    content[place % len(content)] ^= mask
    assert_refused(gzip.compress(content, 1), saved, empty)


@settings(DAMAGED, max_examples=25)
@given(content=st.binary(max_size=200))
def test_noise_is_no_backup(saved: Path, sqlite_url: str, engine_at, content: bytes):
    schema.prepare(empty := engine_at(sqlite_url))
    assert_refused(content, saved, empty)
    assert_refused(gzip.compress(content, 1), saved, empty)


def unpacked(content: bytes) -> bytes | None:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, ValueError, gzip.zlib.error):
        return None


def assert_refused(content: bytes, saved: Path, empty: Engine) -> None:
    damaged = saved.with_name("damaged")
    damaged.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        restore_backup(empty, damaged)
    assert caught.value.remedy
    with empty.connect() as connection:
        assert not connection.scalar(select(or_(*(select(table).exists() for table in TABLES))))


Lines = list[dict[str, Any]]


def first_of(lines: Lines, table: str) -> dict[str, Any]:
    return next(line["row"] for line in lines if line.get("table") == table)


def of_another_version(lines: Lines) -> None:
    lines[0]["revision"] = "0000"


def of_another_format(lines: Lines) -> None:
    lines[0]["format"] = "athena-ledger/2"


def of_other_tables(lines: Lines) -> None:
    lines[0]["rows"]["recipe"] = 0


def with_a_count_that_is_text(lines: Lines) -> None:
    lines[0]["rows"]["account"] = "7"


def with_a_row_too_few(lines: Lines) -> None:
    del lines[1]


def with_a_row_too_many(lines: Lines) -> None:
    lines.append(lines[-1])


def with_a_row_of_another_table(lines: Lines) -> None:
    lines[1]["table"] = "release"


def with_a_column_too_few(lines: Lines) -> None:
    del first_of(lines, "lease")["audit"]


def with_a_column_too_many(lines: Lines) -> None:
    first_of(lines, "lease")["colour"] = "blue"


def with_text_for_a_number(lines: Lines) -> None:
    first_of(lines, "task")["slots"] = "1"


def with_a_number_for_a_truth(lines: Lines) -> None:
    first_of(lines, "lease")["audit"] = 1


def with_a_number_too_large(lines: Lines) -> None:
    first_of(lines, "submission")["rows"] = 2**63


def with_no_number_at_all(lines: Lines) -> None:
    first_of(lines, "account")["allowance"] = float("nan")


def with_nothing_where_something_must_be(lines: Lines) -> None:
    first_of(lines, "task")["slots"] = None


def with_half_a_character(lines: Lines) -> None:
    first_of(lines, "account")["coldkey"] = "\ud800"


def with_a_slot_too_few(lines: Lines) -> None:
    first_of(lines, "task")["slots"] = -1


def with_a_row_twice(lines: Lines) -> None:
    first_of(lines, "account")["coldkey"] = [line for line in lines if line.get("table") == "account"][1]["row"][
        "coldkey"
    ]


def with_a_task_of_no_shard(lines: Lines) -> None:
    first_of(lines, "task")["shard"] = 1


def with_history_rewritten(lines: Lines) -> None:
    first_of(lines, "event")["body"] = "{}"


def with_an_event_that_is_not_json(lines: Lines) -> None:
    first_of(lines, "event")["body"] = "[" * 100_000


def with_an_event_left_out(lines: Lines) -> None:
    lines.remove(next(line for line in lines if line.get("table") == "event"))
    lines[0]["rows"]["event"] -= 1


def with_the_last_event_left_out(lines: Lines) -> None:
    lines.remove([line for line in lines if line.get("table") == "event"][-1])
    lines[0]["rows"]["event"] -= 1


def with_the_end_of_another_history(lines: Lines) -> None:
    first_of(lines, "event_head")["hash"] = "0" * 64


FORGERIES = [
    of_another_version,
    of_another_format,
    of_other_tables,
    with_a_count_that_is_text,
    with_a_row_too_few,
    with_a_row_too_many,
    with_a_row_of_another_table,
    with_a_column_too_few,
    with_a_column_too_many,
    with_text_for_a_number,
    with_a_number_for_a_truth,
    with_a_number_too_large,
    with_no_number_at_all,
    with_nothing_where_something_must_be,
    with_half_a_character,
    with_a_slot_too_few,
    with_a_row_twice,
    with_a_task_of_no_shard,
    with_history_rewritten,
    with_an_event_that_is_not_json,
    with_an_event_left_out,
    with_the_last_event_left_out,
    with_the_end_of_another_history,
]


def forged(saved: Path, forge: Callable[[Lines], None]) -> bytes:
    *lines, _trailer = [json.loads(line) for line in gzip.decompress(saved.read_bytes()).split(b"\n")[:-1]]
    forge(lines)
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    trailer = json.dumps({"sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n"
    return gzip.compress(body + trailer, 1)


def test_a_file_that_was_changed_on_purpose(saved: Path, empty: Engine, subtests: pytest.Subtests, tmp_path: Path):
    """Its sha256 is right, its content is not."""
    for forge in FORGERIES:
        with subtests.test(forge.__name__):
            assert_refused(forged(saved, forge), saved, empty)
    (tmp_path / "the same").write_bytes(forged(saved, lambda lines: None))
    restore_backup(empty, tmp_path / "the same")


def test_what_follows_the_end_is_refused(saved: Path, empty: Engine):
    content = saved.read_bytes()
    assert_refused(content + gzip.compress(b"more\n"), saved, empty)
    assert_refused(content + b"more", saved, empty)


def test_a_file_that_is_not_there(empty: Engine, tmp_path: Path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadInput, match="cannot read"):
            restore_backup(empty, path)


def test_lines_are_capped(saved: Path, sqlite_url: str, engine_at, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with closing(open_store(sqlite_url)) as store:
        store.submit(made_up).result()
    monkeypatch.setattr(backup, "MAX_LINE_BYTES", 400)
    with pytest.raises(TooLarge):  # what could not be restored is no backup
        write_backup(engine_at(sqlite_url), tmp_path / "backup", AT)
    with pytest.raises(BadInput, match="damaged"):
        restore_backup(engine_at(f"sqlite:///{tmp_path / 'other.sqlite'}"), saved)


def test_only_a_whole_file_takes_the_name(sqlite_url: str, engine_at, tmp_path: Path):
    file = tmp_path / "backups" / "ledger"
    with closing(open_store(sqlite_url)) as store:
        store.submit(made_up).result()
    engine = engine_at(sqlite_url)
    write_backup(engine, file, AT)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_backup(engine, file, AT, interrupt)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]

    write_backup(engine, file, AT)
    assert file.read_bytes() == before  # the same ledger, the same bytes
    with pytest.raises(Unavailable, match="cannot write"):
        write_backup(engine, file / "below", AT)


def test_only_a_ledger_is_backed_up(target: Engine, tmp_path: Path):
    with pytest.raises(Misconfigured, match="empty"):
        write_backup(target, tmp_path / "backup", AT)
    assert not (tmp_path / "backup").exists()
    with pytest.raises(Misconfigured, match="there is no ledger"):
        open_engine(f"sqlite:///{tmp_path / 'nowhere' / 'ledger.sqlite'}", existing=True)
    assert not (tmp_path / "nowhere").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from task_server.backup import restore_backup
from task_server.engines import open_engine

def kill(done, total):
    if done * 2 > total:
        os.kill(os.getpid(), signal.SIGKILL)

restore_backup(open_engine(sys.argv[1]), Path(sys.argv[2]), kill)
"""


def test_a_restore_that_is_killed_leaves_the_database_empty(saved: Path, database_url: str, target: Engine):
    killed = subprocess.run([sys.executable, "-c", KILLED, database_url, str(saved)])
    assert killed.returncode == -signal.SIGKILL
    restore_backup(target, saved)  # which only an empty one lets it


def test_the_commands(sqlite_url: str, postgres_url: str, tmp_path: Path, engine_at):
    def run(*arguments: str | Path) -> str:
        done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert "it was empty" in run("migrate", "--database", sqlite_url)
    assert "already" in run("migrate", "--database", sqlite_url)
    with closing(open_store(sqlite_url)) as store:
        store.submit(made_up).result()
    file = tmp_path / "ledger.backup"
    assert f"{file}: " in run("backup", file, "--database", sqlite_url)
    assert "the event chain is whole" in run("restore", file, "--database", postgres_url)
    assert contents(engine_at(postgres_url)) == contents(engine_at(sqlite_url))
    with pytest.raises(Misconfigured, match="there is no ledger"):
        run("backup", file, "--state", tmp_path / "nowhere")
