"""The server's view of the chain: read by one thread, refused when old, and the chores that follow a new head."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import select

from athena.chain.client import Head, Neuron
from athena.errors import Forbidden, Unavailable
from athena.events import EventLog, read_events
from task_server.books import NonceRow
from task_server.ledger import Ledger
from task_server.membership import ChainMembership
from task_server.settings import TaskServerSettings
from task_server.store import open_store
from task_server.transaction import Asked, Write
from task_server.upkeep import Recurring, keep_up

ALICE = Neuron(0, "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "cold", 1.0, True, 0.0, 1, 1)


class ChainThatCanFail:
    """The part of athena.chain.client.Chain that the server reads."""

    def __init__(self) -> None:
        self.number = 10
        self.down = False
        self.threads: set[int] = set()

    def head(self, number: int | None = None) -> Head:
        self.threads.add(threading.get_ident())
        if self.down:
            raise Unavailable("no node")
        number = self.number if number is None else number
        return Head(number, f"0x{number:064x}")

    def neurons(self) -> list[Neuron]:
        return [ALICE]


def test_an_old_view_is_no_view():
    chain = ChainThatCanFail()
    membership = ChainMembership(chain, max_age_seconds=0.2)
    with pytest.raises(Unavailable):
        membership.head()
    membership.refresh()
    assert membership.head().number == 10
    assert membership.member(ALICE.hotkey) == ALICE
    with pytest.raises(Forbidden):
        membership.member("5" * 48)
    chain.down = True
    with pytest.raises(Unavailable):
        membership.refresh()
    assert membership.head().number == 10, "one failed read is not yet blindness"
    time.sleep(0.25)
    for ask in (membership.head, lambda: membership.member(ALICE.hotkey)):
        with pytest.raises(Unavailable):
            ask()


def test_upkeep_survives_an_outage_and_does_its_chores(database_url, open_tasks, tmp_path):
    chain, log = ChainThatCanFail(), tmp_path / "events.jsonl"
    membership = ChainMembership(chain, max_age_seconds=60)
    terms = TaskServerSettings(audit_share=1.0, lease_seconds=0.1, deadline_seconds=0.1)
    with closing(open_store(database_url, events=EventLog(log))) as store:
        open_tasks(store, 1, opened_block=5)
        ledger = Ledger(store, terms)
        upkeep = Recurring("upkeep", lambda: keep_up(membership, ledger), 0.02)
        chain.down = True
        upkeep.start()
        time.sleep(0.1)
        chain.down = False
        try:
            _until(lambda: membership.head().number == 10)
            write = Write(ALICE, Asked(ALICE.hotkey, "key", "digest"), nonce_ns=1)
            (lease,) = ledger.claim(write, 1, membership.head()).result().value.leases
            chain.number = 11
            _until(lambda: "server.expired" in {event["event"] for event in read_events(log)})
            _until(lambda: ledger.audits_due(11) == [])
            _until(lambda: _nonces(store) == [])
        finally:
            upkeep.stop()
    assert not upkeep.is_alive()
    assert chain.threads == {upkeep.ident}, "the chain is read by one thread, outside requests"
    expired = [event for event in read_events(log) if event["event"] == "server.expired"]
    assert [(event["lease"], event["fencing"]) for event in expired] == [(lease.id, lease.fencing)]


def test_a_view_says_how_old_it_is():
    membership = ChainMembership(ChainThatCanFail(), max_age_seconds=60)
    assert membership.age_seconds() is None
    membership.refresh()
    assert 0 <= membership.age_seconds() < 30


def _nonces(store) -> list[int]:
    with store.read() as session:
        return list(session.execute(select(NonceRow.nonce_ns)).scalars())


def _until(true, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except Unavailable:
            pass
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")
