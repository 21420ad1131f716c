"""What a store promises, on both databases: each test here runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from itertools import count

import pytest
from pydantic import BaseModel
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from athena.audit import GENESIS, link_hash
from athena.errors import BadInput, Conflict, Misconfigured, Unavailable
from athena.events import EventLog, read_events
from task_server import engines
from task_server.books import EventRow, NonceRow
from task_server.store import Act, Store, open_store
from task_server.transaction import Asked, Transaction, once


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with closing(open_store(database_url)) as opened:
        yield opened


def spent(store: Store) -> set[int]:
    with store.read() as session:
        return set(session.exec(select(NonceRow.nonce_ns)))


def chain(store: Store) -> list[EventRow]:
    with store.read() as session:
        return list(session.exec(select(EventRow).order_by(col(EventRow.sequence))))


def spending(*nonces: int, then: Callable[[Transaction], object] = lambda tx: None) -> Act:
    """An act that spends nonces, one event each, and then does something else."""

    def act(tx: Transaction):
        for nonce in nonces:
            tx.connection.execute(insert(NonceRow), {"hotkey": "miner", "nonce_ns": nonce})
            tx.record("spent", nonce=nonce)
        return then(tx)

    return act


def failing(error: Exception) -> Callable[[Transaction], object]:
    def fail(_tx: Transaction):
        raise error

    return fail


def test_the_future_holds_what_the_act_returned_once_it_is_written(store: Store):
    assert store.submit(spending(1, then=lambda tx: "done")).result() == "done"
    assert spent(store) == {1}


def test_a_refused_act_is_undone_but_what_came_first_stays(store: Store):
    refused = store.submit(spending(2, then=failing(Conflict("too late"))), first=spending(1))
    with pytest.raises(Conflict, match="too late"):
        refused.result()
    assert spent(store) == {1}


def test_what_came_first_and_failed_writes_nothing(store: Store):
    refused = store.submit(spending(2), first=spending(1, then=failing(Conflict("a replay"))))
    with pytest.raises(Conflict, match="a replay"):
        refused.result()
    assert spent(store) == set()
    assert chain(store) == []


BUGS = {
    "an error of Python": (failing(RuntimeError("a bug")), RuntimeError),
    "a row that is there": (spending(0), IntegrityError),
    "an event that JSON cannot hold": (lambda tx: tx.record("bad", value=float("nan")), BadInput),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_one_act_does_not_harm_its_neighbours(store: Store, bug: str):
    then, expected = BUGS[bug]
    store.submit(spending(0)).result()
    gate = threading.Event()
    store.submit(lambda tx: gate.wait())  # on SQLite the acts behind it become one group
    before = store.submit(spending(1))
    faulty = store.submit(spending(2, then=then))
    after = store.submit(spending(3))
    gate.set()
    before.result()
    after.result()
    with pytest.raises(expected):
        faulty.result()
    assert spent(store) == {0, 1, 3}
    assert sorted(event.view().body["nonce"] for event in chain(store)) == [0, 1, 3]


def test_a_caller_that_went_away_does_not_stop_the_writers(store: Store, database_url: str):
    started, gate = threading.Semaphore(0), threading.Event()

    def hold(_tx: Transaction) -> bool:
        started.release()
        return gate.wait()

    writers = 1 if database_url.startswith("sqlite") else engines.WRITERS
    holding = [store.submit(hold) for _ in range(writers)]
    for _ in range(writers):
        started.acquire()
    gone = store.submit(spending(1))
    assert gone.cancel()
    gate.set()
    store.submit(spending(2)).result()
    with pytest.raises(CancelledError):
        gone.result()
    assert all(future.result() for future in holding)
    assert spent(store) == {2}


def test_events_of_many_threads_and_two_stores_make_one_chain(database_url: str):
    nonces = count(1)
    with closing(open_store(database_url)) as one, closing(open_store(database_url)) as other:

        def write(store: Store) -> None:
            for _ in range(20):
                store.submit(spending(next(nonces), next(nonces))).result()

        threads = [threading.Thread(target=write, args=(store,)) for store in (one, other) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = chain(one)
    assert [event.sequence for event in events] == list(range(1, 8 * 20 * 2 + 1))
    assert {event.view().body["nonce"] for event in events} == set(range(1, 8 * 20 * 2 + 1))
    previous = GENESIS
    for event in events:
        view = event.view()
        previous = link_hash(previous, view.sequence, view.at, view.kind, view.body)
        assert event.hash == previous


def test_one_request_that_reaches_two_stores_at_once_is_done_once(database_url: str):
    class Done(BaseModel):
        by: int

    def request(key: int, by: int) -> Act[Done]:
        def act(tx: Transaction) -> Done:
            return once(tx, Asked("miner", str(key), "digest"), Done, lambda: Done(by=by)).value

        return act

    with closing(open_store(database_url)) as one, closing(open_store(database_url)) as other:
        replies = [(one.submit(request(key, 1)), other.submit(request(key, 2))) for key in range(30)]
        assert all(first.result() == second.result() for first, second in replies)


def test_a_read_sees_one_snapshot(store: Store):
    store.submit(spending(1)).result()
    with store.read() as session:
        assert set(session.exec(select(NonceRow.nonce_ns))) == {1}
        store.submit(spending(2)).result()
        assert set(session.exec(select(NonceRow.nonce_ns))) == {1}
    assert spent(store) == {1, 2}


def test_close_waits_for_what_was_submitted(database_url: str):
    store = open_store(database_url)
    futures = [store.submit(spending(nonce)) for nonce in range(50)]
    store.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(Unavailable, match="closed"):
        store.submit(spending(50))
    with closing(open_store(database_url)) as again:
        assert spent(again) == set(range(50))


def test_watchers_hear_of_what_was_written_and_of_nothing_else(database_url: str, tmp_path):
    log = tmp_path / "events.jsonl"
    with closing(open_store(database_url, events=EventLog(log))) as store:
        store.submit(spending(1)).result()
        store.submit(spending(2, then=failing(Conflict("no")))).exception()
    assert [(event["event"], event["nonce"]) for event in read_events(log)] == [("server.spent", 1)]


def test_a_postgres_connection_that_is_cut_is_a_fault_of_our_own(postgres_url: str):
    cut = text("SELECT pg_terminate_backend(pg_backend_pid())")
    with closing(open_store(postgres_url)) as store:
        with pytest.raises(Unavailable):
            store.submit(spending(1, then=lambda tx: tx.connection.execute(cut))).result()
        with pytest.raises(Unavailable), store.read() as session:
            session.connection().execute(cut)
        store.submit(spending(2)).result()
        assert spent(store) == {2}


def test_a_postgres_act_that_meets_another_is_tried_again(postgres_url: str):
    attempts = count(1)

    def meet(tx: Transaction) -> int:
        attempt = next(attempts)
        if attempt < 3:
            tx.connection.execute(text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))  # as a deadlock does
        return attempt

    with closing(open_store(postgres_url)) as store:
        assert store.submit(spending(1, then=meet)).result() == 3
        assert spent(store) == {1}


def test_a_sqlite_file_that_another_writer_holds_is_a_fault_of_our_own(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0)
    with closing(open_store(sqlite_url)) as store:
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                store.submit(spending(1)).result()
            assert spent(store) == set()  # readers do not wait for writers
        store.submit(spending(2)).result()
        assert spent(store) == {2}


def test_databases_out_of_reach(tmp_path):
    with pytest.raises(Unavailable, match="out of reach"):
        open_store("postgresql://127.0.0.1:1/ledger")
    with pytest.raises(Unavailable, match="out of reach"):
        open_store(f"sqlite:///{tmp_path}")  # a folder


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger.sqlite",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////proc/nowhere/ledger.sqlite",
        "mysql://localhost/ledger",
        "postgresql://localhost:port/ledger",
        "postgresql:///ledger?colour=blue",
    ],
)
def test_wrong_urls(url: str):
    with pytest.raises(Misconfigured) as caught:
        open_store(url)
    assert caught.value.remedy


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("a letter to the editor, of some length" * 100)
    with pytest.raises(Misconfigured, match="not a database"):
        open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


KILLED = """
import os, signal, sys
from sqlalchemy import insert
from task_server.store import open_store
from task_server.books import NonceRow

store = open_store(sys.argv[1])
for nonce in range(1, 4):
    row = {"hotkey": "miner", "nonce_ns": nonce}
    store.submit(lambda tx: tx.connection.execute(insert(NonceRow), row) and None).result()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_acknowledged_survives_a_kill(database_url: str):
    killed = subprocess.run([sys.executable, "-c", KILLED, database_url])
    assert killed.returncode == -signal.SIGKILL
    with closing(open_store(database_url)) as store:
        assert spent(store) == {1, 2, 3}
