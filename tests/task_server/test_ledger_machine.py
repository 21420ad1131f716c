"""Whatever miners do, in whatever order, with time passing and the server dying: the ledger's promises hold."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from bittensor.sp_core import Keypair
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlmodel import select

from athena.chain.client import Head, Neuron
from athena.errors import Conflict, Forbidden
from athena.leasing import AUDIT_COPIES, is_audited, lease_positions
from athena.protocol import DatasetRef, Lease, Manifest, RecipeRef, Submission
from task_server.crawl import Opening, import_crawl
from task_server.database import Database
from task_server.ledger import Ledger
from task_server.settings import TaskServerSettings
from task_server.tables import LeaseRow, SubmissionRow, TaskRow
from task_server.transaction import Write

NUM_TASKS = 4
LEASE_SECONDS, DEADLINE_SECONDS = 60.0, 150.0
AUDIT_SHARE = 0.5
# Six hotkeys, the last two of one coldkey.
MINERS = [
    Neuron(i, Keypair.create_from_uri(f"//miner{i}").ss58_address, f"cold{min(i, 4)}", 0.0, False, 0.0, 1, 1)
    for i in range(6)
]


def head_at(number: int) -> Head:
    return Head(number, "0x" + hashlib.sha256(f"block {number}".encode()).hexdigest())


def submission_of(lease: Lease) -> Submission:
    root = hashlib.sha256(lease.id.encode()).hexdigest()
    return Submission(
        lease_id=lease.id,
        fencing=lease.fencing,
        dataset=DatasetRef(location="file:org/data", revision="a" * 40, root=root),
        manifest=Manifest(
            task_id=lease.task.id,
            hotkey=lease.hotkey,
            rule_version=lease.task.rule_version,
            recipe=RecipeRef(name="fineweb-1", version="1", hash="b" * 64),
            files=(),
            records=3,
            rows=2,
            rejected={"language": 1},
            tokens=5,
            root=root,
        ),
    )


@dataclass
class Expected:
    """What the model holds of one lease."""

    lease: Lease
    miner: Neuron
    state: str
    expires_at: datetime


class LedgerMachine(RuleBasedStateMachine):
    @initialize(replication=st.integers(1, 3))
    def setup(self, replication: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.now = datetime(2026, 11, 21, tzinfo=UTC)
        self.block = 50
        self.num_writes = 0
        self.replication = replication
        self.expected: dict[str, Expected] = {}
        self.first_block: dict[str, int] = {}
        self.audited: dict[str, bool] = {}
        self.open()
        listing = [f"crawl-data/LOCAL-t/{i}.warc.gz" for i in range(NUM_TASKS)]
        opening = Opening("LOCAL-t", "file:///crawl", 1, "demo-1", replication, opened_block=50)
        import_crawl(self.database, listing, opening, self.now)
        with self.database.read() as session:
            self.order = {row.position: row.id for row in session.exec(select(TaskRow))}

    def open(self) -> None:
        self.database = Database(f"sqlite:///{self.folder / 'ledger.sqlite'}")
        terms = TaskServerSettings(
            rule_version="demo-1",
            replication=self.replication,
            audit_share=AUDIT_SHARE,
            lease_seconds=LEASE_SECONDS,
            deadline_seconds=DEADLINE_SECONDS,
        )
        self.ledger = Ledger(self.database, terms, lambda: self.now)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.database.close()
            shutil.rmtree(self.folder)

    def write(self, miner: Neuron) -> Write:
        self.num_writes += 1
        return Write(miner, f"key-{self.num_writes}", "digest")

    # The model: what the rules say should happen.

    def pass_time(self) -> None:
        for lease in self.expected.values():
            if lease.state == "active" and lease.expires_at <= self.now:
                lease.state = "expired"

    def free_slots(self, task_id: str) -> int:
        taken = sum(e.lease.task.id == task_id and e.state in ("active", "submitted") for e in self.expected.values())
        return self.replication + AUDIT_COPIES * self.audited.get(task_id, False) - taken

    def is_eligible(self, task_id: str, miner: Neuron) -> bool:
        held = [e.miner for e in self.expected.values() if e.lease.task.id == task_id]
        return self.free_slots(task_id) > 0 and not any(
            other.hotkey == miner.hotkey or other.coldkey == miner.coldkey for other in held
        )

    def due(self, miner: Neuron) -> str | None:
        head = head_at(self.block)
        order = (self.order[position] for position in lease_positions(head.hash, miner.hotkey, NUM_TASKS))
        return next((task_id for task_id in order if self.is_eligible(task_id, miner)), None)

    # The rules.

    @rule(miner=st.sampled_from(MINERS), count=st.integers(1, 3), again=st.booleans())
    def claim(self, miner: Neuron, count: int, again: bool) -> None:
        held = [e.lease.id for e in self.expected.values() if e.miner == miner and e.state == "active"]
        write = self.write(miner)
        leases = self.ledger.claim(write, count, head_at(self.block)).leases
        assert [lease.id for lease in leases[: len(held)]] == held[:count], "what it holds comes first"
        for lease in leases[len(held) :]:
            assert lease.task.id == self.due(miner), "the draw is the public one"
            assert lease.fencing > max((e.lease.fencing for e in self.expected.values()), default=0)
            self.expected[lease.id] = Expected(lease, miner, "active", lease.expires_at)
            self.first_block.setdefault(lease.task.id, self.block)
        assert len(leases) >= count or self.due(miner) is None, "work was due but not leased"
        if again:
            assert self.ledger.claim(write, count, head_at(self.block)).leases == leases

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(list(self.expected.values())))
        if held.state in ("submitted", "released"):
            with pytest.raises(Conflict):
                self.ledger.heartbeat(self.write(held.miner), held.lease.id, held.lease.fencing, {})
            return
        reply = self.ledger.heartbeat(self.write(held.miner), held.lease.id, held.lease.fencing, {"records": 7})
        if held.state == "active":
            held.expires_at = min(self.now + timedelta(seconds=LEASE_SECONDS), held.lease.deadline_at)
        assert reply.expires_at == held.expires_at
        assert reply.cancel == (held.state == "expired" and self.free_slots(held.lease.task.id) == 0)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(list(self.expected.values())))
        late = held.state == "expired"
        if held.state == "released" or (late and self.free_slots(held.lease.task.id) == 0):
            with pytest.raises(Conflict):
                self.ledger.submit(self.write(held.miner), submission_of(held.lease))
            return
        first = held.state != "submitted"
        view = self.ledger.submit(self.write(held.miner), submission_of(held.lease))
        assert not first or view.late == late
        held.state = "submitted"

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(list(self.expected.values())))
        if held.state in ("submitted", "expired"):
            with pytest.raises(Conflict):
                self.ledger.release(self.write(held.miner), held.lease.id, held.lease.fencing)
            return
        self.ledger.release(self.write(held.miner), held.lease.id, held.lease.fencing)
        held.state = "released"

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), thief=st.sampled_from(MINERS), wrong=st.sampled_from([-1, 1, 2**40]))
    def meddle(self, data: st.DataObject, thief: Neuron, wrong: int) -> None:
        held = data.draw(st.sampled_from(list(self.expected.values())))
        submission = submission_of(held.lease)
        if thief != held.miner:
            with pytest.raises(Forbidden):
                self.ledger.submit(self.write(thief), submission)
        with pytest.raises(Conflict):
            stale = submission.model_copy(update={"fencing": held.lease.fencing + wrong})
            self.ledger.submit(self.write(held.miner), stale)

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, 160.0]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.block += 1
        self.pass_time()

    @rule()
    def settle_audits(self) -> None:
        due = self.ledger.audits_due(self.block)
        self.ledger.settle_audits({number: head_at(number).hash for number in due})
        for task_id, block in self.first_block.items():
            if block < self.block:
                self.audited[task_id] = is_audited(head_at(block + 1).hash, task_id, AUDIT_SHARE)

    @rule()
    def restart(self) -> None:
        self.database.close()
        self.open()

    @invariant()
    def promises_hold(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.read() as session:
            tasks = session.exec(select(TaskRow)).all()
            leases = session.exec(select(LeaseRow).order_by(LeaseRow.fencing)).all()
            submitted = {row.lease_id for row in session.exec(select(SubmissionRow))}
        now = round(self.now.timestamp() * 1e6)
        assert {lease.id: lease.state_at(now) for lease in leases} == {i: e.state for i, e in self.expected.items()}
        assert submitted == {i for i, e in self.expected.items() if e.state == "submitted"}
        assert len({lease.fencing for lease in leases}) == len(leases)
        for task in tasks:
            own = [lease for lease in leases if lease.task_id == task.id]
            taken = [lease for lease in own if lease.state in ("active", "submitted")]
            target = self.replication + AUDIT_COPIES * bool(task.audited)
            assert task.slots == target - len(taken) >= 0
            assert len({lease.hotkey for lease in own}) == len({lease.coldkey for lease in own}) == len(own)


LedgerMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, report_multiple_bugs=False
)
TestLedger = LedgerMachine.TestCase
