"""Whatever miners, validators and operators do, in whatever order, with time passing and the server dying: the ledger
does what its rules say, and keeps its promises. On both databases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
import pytest
from bittensor.sp_core import Keypair
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete
from sqlmodel import SQLModel

from athena.audit import Writes, check_draw, verify_chain
from athena.chain.client import Head, Neuron
from athena.chain.wallets import Wallet, hotkey_of
from athena.errors import AthenaError, BadInput, Conflict, Forbidden, NotFound, Unauthorized
from athena.leasing import AUDIT_COPIES, is_audited, lease_positions
from athena.ledger_state import LedgerState
from athena.protocol import Lease, SignedSheet, Submission
from athena.wire import Ban, LedgerEvent
from task_server.books import AccountRow, EventRow
from task_server.columns import micros, table_of
from task_server.crawl import Opening, import_crawl
from task_server.ledger import Ledger
from task_server.operators import Operators
from task_server.papers import Papers
from task_server.quota import Account, QuotaSpent
from task_server.settings import TaskServerSettings
from task_server.store import Act, Result, Store, open_store
from task_server.tables import LeaseRow, SubmissionRow, TaskRow
from task_server.transaction import IDEMPOTENCY_SECONDS, SECOND, Asked, Reply, Transaction, Write

TERMS = TaskServerSettings(
    rule_version="demo-1",
    lease_seconds=60.0,
    deadline_seconds=80.0,
    audit_share=0.5,
    initial_quota=4,
    max_quota=10,
    trusted_after=1,
    new_miner_copies=1,
)
FIRST_BLOCK = 50
# As plain SQL: a server that starts anew would compile the statements anew.
EVERYTHING = [
    f"SELECT * FROM {table.name} ORDER BY {', '.join(column.name for column in table.primary_key)}"
    for table in map(table_of, (TaskRow, LeaseRow, SubmissionRow, AccountRow, EventRow))
]


def address_of(name: str) -> str:
    return str(Keypair.create_from_uri(f"//{name}").ss58_address)


# Six hotkeys of five people.
COLD = [address_of(f"cold{i}") for i in range(5)]
MINERS = [Neuron(i, address_of(f"miner{i}"), COLD[min(i, 4)], 0.0, False, 0.0, 1, 1) for i in range(6)]
# Stake and coldkey; the last one is also a miner.
VALIDATORS = [(1.0, address_of("judge0")), (1.0, address_of("judge1")), (3.0, COLD[4])]
Opinion = tuple[int, str, float]
OPINIONS = st.tuples(
    st.sampled_from([0, 0, 1, 1, 2]), st.sampled_from(["pass", "pass", "fail", "none"]), st.sampled_from([0.0, 1.0])
)


def head_at(number: int) -> Head:
    return Head(number, "0x" + hashlib.sha256(f"block {number}".encode()).hexdigest())


class Crash(Exception):
    pass


@dataclass
class DyingStore:
    """A store whose transactions die once they have written everything."""

    store: Store

    def submit(self, act: Act[Result], *, first: Act[None] | None = None) -> Future[Result]:
        def dies(tx: Transaction) -> Result:
            act(tx)
            raise Crash

        return self.store.submit(dies, first=first)


# The model: the rules once more, over lists and dictionaries.


@dataclass
class TaskModel:
    id: str
    opened_block: int
    copies: int
    closed: bool = False
    first_block: int | None = None
    audited: bool | None = None


@dataclass
class LeaseModel:
    """`state` as the ledger has recorded it; `words`: what each validator said last, `sheets`: all that they said."""

    lease: Lease
    task: TaskModel
    miner: Neuron
    expires_at: int
    state: str = "active"
    submission: Submission | None = None
    late: bool = False
    accepted: bool = False
    verdict: str | None = None
    words: dict[Neuron, str] = field(default_factory=dict)
    sheets: set[str] = field(default_factory=set)


@dataclass
class Model:
    """Times in UTC microseconds, as in the tables."""

    replication: int
    now: int
    block: int = FIRST_BLOCK
    tasks: list[TaskModel] = field(default_factory=list)
    leases: dict[str, LeaseModel] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)

    def account(self, coldkey: str) -> Account:
        opened = Account.opened(coldkey, TERMS.initial_quota, self.now)
        return self.accounts.get(coldkey, opened).refilled(self.now)

    def of_task(self, task: TaskModel) -> list[LeaseModel]:
        return [lease for lease in self.leases.values() if lease.task is task]

    def slots(self, task: TaskModel) -> int:
        return task.copies - sum(lease.state == "active" or lease.accepted for lease in self.of_task(task))

    def is_free(self, task: TaskModel) -> bool:
        return not task.closed and self.slots(task) > 0

    def is_overdue(self, lease: LeaseModel) -> bool:
        return lease.state == "active" and lease.expires_at <= self.now

    def expire_if_overdue(self, lease: LeaseModel) -> None:
        if self.is_overdue(lease):
            lease.state = "expired"
            self.accounts[lease.miner.coldkey] = self.account(lease.miner.coldkey).punished()

    def sweep(self) -> None:
        for lease in self.leases.values():
            self.expire_if_overdue(lease)

    def held(self, miner: Neuron) -> list[LeaseModel]:
        own = [lease for lease in self.leases.values() if lease.miner == miner]
        return [lease for lease in own if lease.state == "active" and not self.is_overdue(lease)]

    def due(self, miner: Neuron) -> tuple[int, TaskModel] | None:
        """The draw and the task of the next lease."""
        listed = [task for task in self.tasks if task.opened_block <= self.block]
        for index, position in enumerate(lease_positions(head_at(self.block).hash, miner.hotkey, len(listed))):
            task = listed[position]
            holders = {who for lease in self.of_task(task) for who in (lease.miner.hotkey, lease.miner.coldkey)}
            if self.is_free(task) and holders.isdisjoint((miner.hotkey, miner.coldkey)):
                return index, task
        return None

    def lease(self, miner: Neuron, lease: Lease) -> None:
        """What the next lease must be, and what it changes."""
        due, account = self.due(miner), self.account(miner.coldkey)
        assert due is not None, "no work was due"
        assert account.allowance >= 1, "the quota is spent"
        index, task = due
        if task.first_block is None:
            task.first_block = self.block
            task.copies += TERMS.new_miner_copies if account.streak < TERMS.trusted_after else 0
        expires_at = self.now + round(TERMS.lease_seconds * SECOND)
        self.leases[lease.id] = LeaseModel(lease, task, miner, expires_at)
        self.accounts[miner.coldkey] = account.charged()
        audit = bool(task.audited) and self.slots(task) < AUDIT_COPIES
        assert (lease.task.id, lease.draw_index, lease.audit) == (task.id, index, audit)
        assert (lease.issued_block, micros(lease.expires_at)) == (self.block, expires_at)

    def submit(self, held: LeaseModel, submission: Submission) -> None:
        self.expire_if_overdue(held)
        if held.submission is not None:
            return
        held.submission = submission
        held.late = held.state == "expired"
        held.accepted = not held.late or self.is_free(held.task)
        if held.accepted:
            held.state = "submitted"

    def score(self, held: LeaseModel, validator: Neuron, sheet: SignedSheet) -> None:
        outcome, digest = sheet.sheet.outcome, sheet.sheet.digest()
        if digest in held.sheets:
            return
        held.sheets.add(digest)
        if outcome != "none":
            held.words[validator] = outcome
        if not held.accepted or not held.words:
            return
        stakes = {side: sum(v.stake for v, said in held.words.items() if said == side) for side in ("pass", "fail")}
        verdict = "fail" if stakes["fail"] > stakes["pass"] else "pass"
        if verdict != held.verdict:
            account = self.account(held.miner.coldkey)
            judged = account.rewarded(TERMS.max_quota) if verdict == "pass" else account.punished()
            self.accounts[held.miner.coldkey] = judged
        held.verdict = verdict


Verb = Callable[[Write], Future[Reply[Any]]]


@dataclass(frozen=True)
class Done:
    """A write that succeeded, and what it was told."""

    verb: Verb
    write: Write
    json: str
    at: int


@dataclass(frozen=True)
class Seen:
    """What one snapshot of the database holds."""

    tasks: list[Any]
    leases: list[Any]
    submissions: list[Any]
    accounts: list[Any]
    events: list[Any]


@dataclass
class Told:
    """What the event chain has told so far: its rows, and what follows from them."""

    rows: list[Any] = field(default_factory=list)
    state: LedgerState = field(default_factory=LedgerState)
    writes: Writes = field(default_factory=Writes)
    submitted: dict[str, tuple[bool, bool, str]] = field(default_factory=dict)
    drawn: list[str] = field(default_factory=list)

    def hear(self, rows: list[Any], task_ids: list[str]) -> bool:
        """Whether there is more. What was there must have stayed, and what is new must follow from it."""
        known = len(self.rows)
        assert rows[:known] == self.rows, "the chain only grows"
        new = [
            LedgerEvent(sequence=row.sequence, at=row.at, kind=row.kind, body=json.loads(row.body), hash=row.hash)
            for row in rows[known:]
        ]
        assert verify_chain(new, after=self.state.head).sequence == len(rows)
        for event in new:
            self.writes.note(event)
        for event in new:
            if event.kind == "leased":
                self.draw(event, task_ids)
            elif event.kind == "submitted":
                told = event.body
                self.submitted[told["lease"]] = (told["late"], told["accepted"], told["sha256"])
            self.state.apply(event)
        self.rows = rows
        return bool(new)

    def draw(self, event: LedgerEvent, task_ids: list[str]) -> None:
        leased = event.body
        assert all(leased["fencing"] > lease.fencing for lease in self.state.leases.values())
        hash_then = head_at(leased["block"]).hash
        draws = check_draw(event, self.state, block_hash=hash_then, task_ids=task_ids, writes=self.writes)
        assert draws.due
        self.drawn.append(draws.leased.lease)


@dataclass
class Ground:
    """What the examples share: a database that each leaves empty, the clock, and what it takes to write papers."""

    url: str
    clock: Any
    submission_for: Callable[..., Submission]
    sheet_by: Callable[..., SignedSheet]
    validators: list[tuple[Neuron, Wallet]]

    def __post_init__(self) -> None:
        self.store = open_store(self.url, self.clock)

    def restart(self) -> None:
        self.store.close()
        self.store = open_store(self.url, self.clock)

    def clear(self) -> None:
        def empty(tx: Transaction) -> None:
            for table in reversed(SQLModel.metadata.sorted_tables):
                tx.connection.execute(delete(table))

        self.store.submit(empty).result()


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self.ground = ground
        self.num_writes = 0
        self.done: list[Done] = []
        self.told = Told()
        self.open()

    def open(self) -> None:
        store = self.ground.store
        self.ledger, self.papers, self.operators = Ledger(store, TERMS), Papers(store, TERMS), Operators(store, TERMS)

    def teardown(self) -> None:
        self.ground.clear()

    def asked(self, by: str) -> Asked:
        self.num_writes += 1
        return Asked(by, f"key-{self.num_writes}", "digest")

    def write(self, caller: Neuron) -> Write:
        return Write(caller, self.asked(caller.hotkey), self.nonce())

    def nonce(self) -> int:
        self.num_writes += 1
        return self.model.now * 1000 + self.num_writes

    def ask(self, caller: Neuron, verb: Verb, refusal: type[AthenaError] | None) -> Any:
        """The reply to a write; null if the model says that it is refused, and it is."""
        write = self.write(caller)
        if self.model.account(caller.coldkey).ban is not None:
            refusal = Forbidden
        if refusal is not None:
            with pytest.raises(refusal):
                verb(write).result()
            return None
        reply = verb(write).result()
        self.done.append(Done(verb, write, reply.json, self.model.now))
        return reply.value

    def some_lease(self, data: st.DataObject) -> LeaseModel:
        return data.draw(st.sampled_from(list(self.model.leases.values())))

    # The rules.

    @initialize(replication=st.integers(1, 2), miner=st.sampled_from(MINERS), count=st.integers(1, 3))
    def start(self, replication: int, miner: Neuron, count: int) -> None:
        self.model = Model(replication, self.ground.clock())
        self.plan(4, 0)
        self.claim(miner, count)

    @rule(num_tasks=st.integers(1, 3), blocks_ahead=st.integers(0, 2))
    def plan(self, num_tasks: int, blocks_ahead: int) -> None:
        tasks, known = self.model.tasks, len(self.model.tasks)
        opening = Opening(
            crawl="LOCAL-t",
            crawl_url="file:///crawl",
            warcs_per_shard=1,
            rule_version="demo-1",
            replication=self.model.replication,
            opened_block=max([self.model.block + blocks_ahead] + [task.opened_block for task in tasks]),
        )
        listing = [f"crawl-data/LOCAL-t/{i}.warc.gz" for i in range(known + num_tasks)]
        assert import_crawl(self.ground.store, listing, opening).tasks == num_tasks
        ids = [row.id for row in sorted(self.read().tasks, key=lambda row: row.position)]
        assert ids[:known] == [task.id for task in tasks], "places in the draw do not move"
        tasks += [TaskModel(task_id, opening.opened_block, opening.replication) for task_id in ids[known:]]

    @rule(miner=st.sampled_from(MINERS), count=st.integers(1, 3))
    def claim(self, miner: Neuron, count: int) -> None:
        model, head = self.model, head_at(self.model.block)
        held = model.held(miner)[:count]
        spent = not held and model.account(miner.coldkey).allowance < 1
        reply = self.ask(miner, lambda write: self.ledger.claim(write, count, head), QuotaSpent if spent else None)
        if reply is None:
            return
        model.sweep()
        leases = reply.leases
        assert [lease.id for lease in leases[: len(held)]] == [lease.lease.id for lease in held], "what it holds first"
        for lease in leases[len(held) :]:
            model.lease(miner, lease)
        more = model.due(miner) is not None and model.account(miner.coldkey).allowance >= 1
        assert len(leases) == count or not more, "work was due but not leased"

    @rule(miners=st.lists(st.sampled_from(MINERS), min_size=2, max_size=4))
    def claim_in_turn(self, miners: list[Neuron]) -> None:
        for miner in miners:
            self.claim(miner, 2)

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), records=st.integers(0, 9))
    def heartbeat(self, data: st.DataObject, records: int) -> None:
        held = self.some_lease(data)
        lease, progress = held.lease, {"records": records}
        reply = self.ask(
            held.miner,
            lambda write: self.ledger.heartbeat(write, lease.id, lease.fencing, progress),
            Conflict if held.state in ("submitted", "released") else None,
        )
        if reply is None:
            return
        self.model.expire_if_overdue(held)
        if held.state == "active":
            kept_until = self.model.now + round(TERMS.lease_seconds * SECOND)
            held.expires_at = min(kept_until, micros(lease.deadline_at))
        assert micros(reply.expires_at) == held.expires_at
        unpaid = held.state == "expired" and not self.model.is_free(held.task)
        assert reply.cancel == (held.task.closed or unpaid)

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), name=st.sampled_from(["data", "data", "other"]), opinions=st.lists(OPINIONS, max_size=2))
    def submit(self, data: st.DataObject, name: str, opinions: list[Opinion]) -> None:
        held = self.some_lease(data)
        submission = self.ground.submission_for(held.lease, name)
        refused = held.state == "released" or held.submission not in (None, submission)
        view = self.ask(held.miner, lambda write: self.ledger.submit(write, submission), Conflict if refused else None)
        if view is not None:
            self.model.submit(held, submission)
            assert (view.late, view.accepted, view.verdict) == (held.late, held.accepted, held.verdict)
        for opinion in opinions:
            self.post_sheet(held, *opinion)

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = self.some_lease(data)
        lease, over = held.lease, held.state in ("submitted", "expired") or self.model.is_overdue(held)
        reply = self.ask(
            held.miner, lambda write: self.ledger.release(write, lease.id, lease.fencing), Conflict if over else None
        )
        if reply is not None:
            assert reply.state == "released"
            held.state = "released"

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), opinions=st.lists(OPINIONS, min_size=1, max_size=3))
    def score(self, data: st.DataObject, opinions: list[Opinion]) -> None:
        held = self.some_lease(data)
        for opinion in opinions:
            self.post_sheet(held, *opinion)

    def post_sheet(self, held: LeaseModel, index: int, outcome: str, units: float) -> None:
        validator, wallet = self.ground.validators[index]
        sheet = self.ground.sheet_by(wallet, held.lease, outcome=outcome, units=units)
        own = held.miner.coldkey == validator.coldkey
        reply = self.ask(validator, lambda write: self.papers.post_sheet(write, sheet), Forbidden if own else None)
        if reply is not None:
            assert reply.sha256 == sheet.sheet.digest()
            self.model.score(held, validator, sheet)

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), thief=st.sampled_from(MINERS), wrong=st.sampled_from([-1, 1, 2**40]))
    def meddle(self, data: st.DataObject, thief: Neuron, wrong: int) -> None:
        held = self.some_lease(data)
        submission = self.ground.submission_for(held.lease)
        others = submission.manifest.model_copy(update={"task_id": "0" * 32})
        attempts: list[tuple[Neuron, dict[str, Any], type[AthenaError]]] = [
            (held.miner, {"fencing": held.lease.fencing + wrong}, Conflict),
            (held.miner, {"manifest": others}, BadInput),
            (held.miner, {"lease_id": "0" * 32}, NotFound),
        ]
        if thief != held.miner:
            attempts.append((thief, {}, Forbidden))
        for who, change, refusal in attempts:
            changed = submission.model_copy(update=change)
            self.ask(who, lambda write, changed=changed: self.ledger.submit(write, changed), refusal)

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A request again: answered as the first time, whatever has happened since."""
        done = data.draw(st.sampled_from(self.done))
        if self.model.account(done.write.caller.coldkey).ban is not None:
            return
        if done.at == self.model.now:
            with pytest.raises(Unauthorized):
                done.verb(done.write).result()
        assert done.verb(replace(done.write, nonce_ns=self.nonce())).result().json == done.json
        another = replace(done.write.asked, digest="another")
        with pytest.raises(BadInput):
            done.verb(replace(done.write, asked=another, nonce_ns=self.nonce())).result()

    @rule(data=st.data())
    def close_task(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.model.tasks))
        view = self.operators.close_task(self.asked("key:1"), task.id).result().value
        assert (view.id, view.closed, view.open_slots) == (task.id, True, 0)
        task.closed = True

    @rule(coldkey=st.sampled_from([*COLD, COLD[4]]), reason=st.sampled_from(["sold its keys", None, None]))
    def ban(self, coldkey: str, reason: str | None) -> None:
        self.operators.ban(self.asked("key:1"), Ban(coldkey=coldkey, reason=reason)).result()
        self.model.accounts[coldkey] = self.model.account(coldkey).barred(reason)

    @rule(seconds=st.sampled_from([1, 31, 61, 157, 20_011]))
    def wait(self, seconds: int) -> None:
        self.ground.clock.advance(seconds)
        self.model.now = self.ground.clock()
        self.model.block += 1

    @rule()
    def upkeep(self) -> None:
        due = self.ledger.audits_due(self.model.block)
        self.ledger.settle_audits({number: head_at(number).hash for number in due}).result()
        for task in self.model.tasks:
            if task.audited is None and task.first_block is not None and task.first_block < self.model.block:
                task.audited = is_audited(head_at(task.first_block + 1).hash, task.id, TERMS.audit_share)
                task.copies += AUDIT_COPIES * task.audited
        self.ledger.tidy().result()
        self.model.sweep()
        self.done = [done for done in self.done if self.model.now - done.at < IDEMPOTENCY_SECONDS * SECOND]

    @rule(miner=st.sampled_from(MINERS))
    def crash(self, miner: Neuron) -> None:
        """In the midst of a claim, before its commit: as if it had never been asked."""
        with pytest.raises((Crash, Forbidden, QuotaSpent)):
            dying = Ledger(DyingStore(self.ground.store), TERMS)
            dying.claim(self.write(miner), 3, head_at(self.model.block)).result()
        self.ground.restart()
        self.open()

    # The promises.

    def read(self) -> Seen:
        with self.ground.store.read() as session:
            connection = session.connection()
            return Seen(*(list(connection.exec_driver_sql(query)) for query in EVERYTHING))

    @invariant()
    def promises_hold(self) -> None:
        seen = self.read()
        self.the_ledger_is_as_the_model(seen)
        self.no_task_is_leased_too_often(seen)
        if self.told.hear(seen.events, [task.id for task in self.model.tasks]):  # what has no effect costs little
            self.the_chain_tells_all(seen)

    def the_ledger_is_as_the_model(self, seen: Seen) -> None:
        model = self.model
        assert {lease.id: (lease.state, lease.expires_at) for lease in seen.leases} == {
            lease_id: (lease.state, lease.expires_at) for lease_id, lease in model.leases.items()
        }
        assert {row.id: (row.slots, row.copies, row.closed, row.audited) for row in seen.tasks} == {
            task.id: (model.slots(task), task.copies, task.closed, task.audited) for task in model.tasks
        }
        assert {row.lease_id: (row.body, row.late, row.accepted, row.verdict) for row in seen.submissions} == {
            lease_id: (lease.submission.canonical().decode(), lease.late, lease.accepted, lease.verdict)
            for lease_id, lease in model.leases.items()
            if lease.submission is not None
        }
        for row in seen.accounts:
            kept, expected = Account(**row._mapping).refilled(model.now), model.account(row.coldkey)
            assert kept == replace(expected, allowance=pytest.approx(expected.allowance))

    def no_task_is_leased_too_often(self, seen: Seen) -> None:
        paid = {row.lease_id for row in seen.submissions if row.accepted}
        for task in seen.tasks:
            own = [lease for lease in seen.leases if lease.task_id == task.id]
            taken = [lease for lease in own if lease.state == "active" or lease.id in paid]
            assert task.slots == task.copies - len(taken) >= 0
            assert len({lease.hotkey for lease in own}) == len({lease.coldkey for lease in own}) == len(own)

    def the_chain_tells_all(self, seen: Seen) -> None:
        assert {lease.id: (lease.state, lease.fencing) for lease in seen.leases} == {
            lease_id: (lease.state, lease.fencing) for lease_id, lease in self.told.state.leases.items()
        }
        assert self.told.submitted == {
            row.lease_id: (row.late, row.accepted, hashlib.sha256(row.body.encode()).hexdigest())
            for row in seen.submissions
        }
        assert self.told.drawn == list(self.model.leases)


@pytest.mark.timeout(1800)  # to shrink what fails
def test_the_ledger_keeps_its_promises(ledger_url, held_clock, wallets, submission_for, sheet_by):
    validators = []
    for i, (stake, coldkey) in enumerate(VALIDATORS):
        wallet = wallets(f"validator{i}")
        validators.append((Neuron(10 + i, hotkey_of(wallet), coldkey, stake, True, 0.0, 1, 1), wallet))
    ground = Ground(ledger_url, held_clock, submission_for, sheet_by, validators)
    terms = settings(
        max_examples=200,
        stateful_step_count=20,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(lambda: LedgerMachine(ground), settings=terms)
    finally:
        ground.store.close()
