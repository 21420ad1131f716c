"""The server's view of the chain: read by one thread, refused when old, and the chores that follow a new head."""

from __future__ import annotations

import threading
import time

import pytest

from athena.chain.client import Head, Neuron
from athena.errors import Forbidden, Unavailable
from athena.events import EventLog, read_events
from task_server.database import Database
from task_server.identity import MemberNonces
from task_server.ledger import Ledger
from task_server.membership import ChainMembership
from task_server.settings import TaskServerSettings
from task_server.transaction import Write
from task_server.upkeep import Upkeep

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


def test_upkeep_survives_an_outage_and_does_its_chores(tmp_path, open_tasks):
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    open_tasks(database, 1, opened_block=5)
    chain, events = ChainThatCanFail(), tmp_path / "events.jsonl"
    membership = ChainMembership(chain, max_age_seconds=60)
    settings = TaskServerSettings(audit_share=1.0, lease_seconds=0.1, deadline_seconds=0.1)
    ledger = Ledger(database, settings, events=EventLog(events))
    upkeep = Upkeep(membership, ledger, MemberNonces(database, membership), refresh_seconds=0.02)
    chain.down = True
    upkeep.start()
    time.sleep(0.1)
    chain.down = False
    try:
        _until(lambda: membership.head().number == 10)
        (lease,) = ledger.claim(Write(ALICE, "key", "digest"), 1, membership.head()).leases
        chain.number = 11
        _until(lambda: "server.expired" in {event["event"] for event in read_events(events)})
        _until(lambda: ledger.audits_due(11) == [])
    finally:
        upkeep.stop()
        database.close()
    assert chain.threads == {upkeep.ident}, "the chain is read by one thread, outside requests"
    expired = [event for event in read_events(events) if event["event"] == "server.expired"]
    assert [(event["lease"], event["fencing"]) for event in expired] == [(lease.id, lease.fencing)]


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
