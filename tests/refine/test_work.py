"""A miner's work on a lease: killed after any step, it goes on, and does nothing twice that would harm."""

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from athena.errors import BadInput, Conflict, Misconfigured, NotFound, Unavailable
from athena.events import EventLog, read_events
from athena.hub import open_hub
from athena.protocol import Commitment, Lease, Manifest, RecipeRef, Shard, Task, Verdict
from athena.refine.work import crew as crews
from athena.refine.work import workshop as work
from athena.refine.work.commits import Late
from athena.refine.work.crew import Crew
from athena.refine.work.status import read_status
from athena.refine.work.status_board import StatusBoard
from athena.refine.work.workshop import Heart, Stopped, Unfit, Workshop
from athena.wire import OptOut

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


class FakeCommits:
    """Commits at once, or fails with what `errors` hold; `late` deadlines are known to be too late."""

    sealed = True

    def __init__(self):
        self.texts, self.errors, self.late = [], [], set()

    def check(self, deadline_block):
        if deadline_block in self.late:
            raise Late("too late")

    def commit(self, text, deadline_block, alive):
        alive()
        if self.errors:
            raise self.errors.pop()
        self.texts.append(text)


class FakeLedger:
    def __init__(self):
        self.submitted, self.released, self.fails, self.cancelled, self.accepted = [], [], 0, set(), True

    def opt_outs(self):
        return (OptOut(domain="gone.example", reason="", since_block=1),)

    def heartbeat(self, lease, progress):
        return SimpleNamespace(cancel=lease.id in self.cancelled)

    def release(self, lease):
        if lease.id in self.cancelled:
            raise Conflict("the lease is expired already")
        self.released.append(lease.task.id)

    def submit(self, submission):
        if self.fails:
            self.fails -= 1
            raise Unavailable("no server")
        self.submitted.append(submission)
        return SimpleNamespace(accepted=self.accepted)


def a_lease(number=1, term_seconds=60.0):
    now = datetime.now(UTC)
    shard = Shard(crawl="CC-MAIN-2026-43", warc_paths=(f"{number}.warc.gz",))
    return Lease(
        id=f"{number:032x}", task=Task(shard=shard, rule_version="demo-1", opened_block=1), hotkey=HOTKEY,
        state="active", fencing=7, issued_at=now, heartbeat_at=now, expires_at=now + timedelta(seconds=term_seconds),
        deadline_at=now + timedelta(hours=1), issued_block=900, deadline_block=2000 + number,
    )  # fmt: skip


def manifest(task):
    recipe = RecipeRef(name="fineweb-1", version="1", hash="0" * 64)
    return Manifest(
        task_id=task.id, hotkey=HOTKEY, rule_version="demo-1", recipe=recipe, files=(), records=1, rows=1, rejected={},
        tokens=9, root="c" * 64,
    )  # fmt: skip


class Refinery:
    """In place of refine_task: writes a small finished dataset. `faults` by task are raised once, in the middle;
    a task in `endless` goes on until its heartbeat ends it."""

    def __init__(self):
        self.faults, self.endless, self.workers = {}, set(), set()

    def __call__(self, task, hotkey, recipe, crawl, out, *, workers, events, left_out, heartbeat):
        assert left_out.covers("https://gone.example/")
        self.workers.add(workers)
        heartbeat({"records": 1, "rows": 1})
        while task.id in self.endless:
            time.sleep(0.01)
            heartbeat({"records": 2, "rows": 2})
        if task.id in self.faults:
            raise self.faults.pop(task.id)
        out.mkdir(parents=True, exist_ok=True)
        (out / "data.parquet").write_bytes(b"rows")
        (out / "manifest.json").write_bytes(b"{}")
        return manifest(task)


@pytest.fixture
def refinery(monkeypatch):
    refinery = Refinery()
    monkeypatch.setattr(work, "refine_task", refinery)
    return refinery


@pytest.fixture
def verdicts():
    """What the inspections to come say; a pass by default."""
    return []


@pytest.fixture
def workshop(tmp_path, monkeypatch, refinery, verdicts):
    """A workshop whose refinery, chain and task server are stand-ins; the rest is real."""

    def inspect(dataset, lease, crawl):
        assert (dataset / "manifest.json").exists()
        return verdicts.pop() if verdicts else Verdict(gate="form", outcome="pass")

    monkeypatch.setattr("athena.node._pause", lambda state: 0.0)
    return Workshop(
        ledger=FakeLedger(), commits=FakeCommits(), hub=open_hub((tmp_path / "hub").as_uri()), crawl=None, recipe=None,
        hotkey=HOTKEY, namespace="alice", folder=tmp_path / "tasks", events=EventLog(tmp_path / "events.jsonl"),
        board=StatusBoard(tmp_path, hotkey=HOTKEY, recipe="fineweb-1"), inspect=inspect, workers=3,
    )  # fmt: skip


def events_of(workshop, name):
    return [e for e in read_events(workshop.folder.parent / "events.jsonl") if e["event"] == name]


def carry_out(workshop, lease):
    with Heart(workshop.ledger, lease) as heart:
        workshop.carry_out(lease, heart)


def test_a_lease_ends_as_a_commitment_to_what_lies_on_the_hub(workshop, refinery):
    lease = a_lease()
    carry_out(workshop, lease)
    (text,) = workshop.commits.texts
    (submission,) = workshop.ledger.submitted
    commitment = Commitment.parse(text, signer=HOTKEY)
    assert commitment.dataset == submission.dataset and submission.fencing == 7
    name = submission.dataset.location.removeprefix("file:")
    assert workshop.hub.sizes(name, submission.dataset.revision) == {"data.parquet": 4, "manifest.json": 2}
    assert not (workshop.folder / lease.task.id).exists() and refinery.workers == {3}
    status = read_status(workshop.folder.parent)
    (made,) = status.commitments
    assert (made.task_id, made.dataset, made.accepted) == (lease.task.id, submission.dataset, True)
    assert status.submitted == 1 and status.leases == ()


@pytest.mark.parametrize("service", ["chain", "ledger"])
def test_a_service_that_was_away_costs_no_second_dataset_and_no_second_name(workshop, service):
    if service == "chain":
        workshop.commits.errors = [Unavailable("no node")]
    else:
        workshop.ledger.fails = 1
    with pytest.raises(Unavailable):
        carry_out(workshop, a_lease())
    carry_out(workshop, a_lease())
    assert len(workshop.ledger.submitted) == len(workshop.commits.texts) == 1
    published = [event["revision"] for event in events_of(workshop, "miner.published")]
    assert len(published) == 2 and len(set(published)) == 1
    assert len(events_of(workshop, "miner.inspected")) == 1


def test_names_cannot_be_guessed(workshop):
    carry_out(workshop, a_lease())
    carry_out(workshop, a_lease())
    first, second = (s.dataset.location for s in workshop.ledger.submitted)
    assert first != second and len(first.split("athena-")[1]) == 32


def test_what_a_gate_would_refuse_is_neither_published_nor_committed(workshop, verdicts):
    verdicts.append(Verdict(gate="duplicates", outcome="fail", reason="the set repeats itself"))
    with pytest.raises(Unfit, match="the set repeats itself"):
        carry_out(workshop, a_lease())
    assert not workshop.commits.texts and not events_of(workshop, "miner.published")


def test_an_inspection_that_cannot_tell_stops_nothing(workshop, verdicts):
    verdicts.append(Verdict(gate="provenance", outcome="none", reason="unavailable"))
    carry_out(workshop, a_lease())
    assert workshop.ledger.submitted


def test_a_task_whose_deadline_cannot_be_met_is_not_refined_to_its_end(workshop, refinery):
    lease = a_lease()
    refinery.endless.add(lease.task.id)
    workshop.commits.late.add(lease.deadline_block)
    with pytest.raises(Late):
        carry_out(workshop, lease)


@pytest.mark.parametrize("committed", [True, False])
def test_a_deadline_that_passed_ends_what_is_not_committed_yet(workshop, committed, monkeypatch):
    lease = a_lease()
    if committed:
        workshop.ledger.fails = 1
    else:
        workshop.commits.errors = [Unavailable("no node")]
    with pytest.raises(Unavailable):
        carry_out(workshop, lease)
    workshop.commits.late.add(lease.deadline_block)
    monkeypatch.setattr(work, "refine_task", lambda task, *_, **__: manifest(task))  # finished: no beat any more
    if committed:
        carry_out(workshop, lease)
        assert workshop.ledger.submitted
    else:
        with pytest.raises(Late):
            carry_out(workshop, lease)


def test_a_cancelled_lease_stops_the_work():
    ledger, lease = FakeLedger(), a_lease(term_seconds=0.8)
    ledger.cancelled.add(lease.id)
    with pytest.raises(Conflict), Heart(ledger, lease) as heart:
        while True:
            heart.report({"records": 1})


def test_a_node_that_is_told_to_stop_stops_within_a_beat(workshop, refinery):
    lease = a_lease()
    refinery.endless.add(lease.task.id)
    workshop.stopping.set()
    with pytest.raises(Stopped):
        carry_out(workshop, lease)


def test_what_is_left_of_lost_tasks_is_swept(workshop):
    for name in ("1" * 32, "0" * 32):
        (workshop.folder / name).mkdir(parents=True)
    workshop.sweep({"1" * 32})
    assert [p.name for p in workshop.folder.iterdir()] == ["1" * 32]


@contextmanager
def working(workshop, *leases):
    """A crew on these leases."""
    with Crew(workshop) as crew:
        crew.take_on(leases)
        yield crew


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def test_several_leases_are_in_work_at_once_each_only_once(workshop, refinery):
    leases = [a_lease(n) for n in (1, 2, 3)]
    refinery.endless |= {lease.task.id for lease in leases}
    with working(workshop, *leases) as crew:
        crew.take_on(leases)
        assert crew.held == {lease.task.id for lease in leases}
        until(lambda: len(events_of(workshop, "miner.refining")) == 3)
        refinery.endless.remove(leases[1].task.id)
        until(lambda: crew.held == {leases[0].task.id, leases[2].task.id})
        crew.wait(0.0)
        refinery.endless.clear()
        until(lambda: not crew.held)
    assert len(workshop.ledger.submitted) == 3


@pytest.mark.parametrize(
    "fault", [BadInput("no WARC"), NotFound("no file"), Late("too late"), Unfit("bad"), ValueError("a bug")]
)
def test_what_ends_one_lease_gives_it_back_and_leaves_the_others_alone(workshop, refinery, fault, monkeypatch):
    monkeypatch.setattr(crews, "LONGEST_REST_SECONDS", 0.0)
    doomed, sound = a_lease(1), a_lease(2)
    refinery.faults[doomed.task.id] = fault
    refinery.endless.add(sound.task.id)
    with working(workshop, doomed, sound) as crew:
        until(lambda: crew.held == {sound.task.id})
        crew.wait(0.0)  # raises nothing
        assert not (workshop.folder / doomed.task.id).exists()
        refinery.endless.clear()
        until(lambda: not crew.held)
    assert workshop.ledger.released == [doomed.task.id]
    assert [s.lease_id for s in workshop.ledger.submitted] == [sound.id]
    (lost,) = events_of(workshop, "miner.lost")
    status = read_status(workshop.folder.parent)
    assert lost["task"] == status.last_error.task_id == doomed.task.id
    assert (status.given_up, status.submitted) == (1, 1)


def test_a_cancel_from_the_server_ends_that_lease_only(workshop, refinery):
    cancelled, kept = a_lease(1, term_seconds=0.8), a_lease(2, term_seconds=0.8)
    refinery.endless |= {cancelled.task.id, kept.task.id}
    workshop.ledger.cancelled.add(cancelled.id)
    with working(workshop, cancelled, kept) as crew:
        until(lambda: crew.held == {kept.task.id})
    assert not workshop.ledger.released  # it was lost before
    assert [event["task"] for event in events_of(workshop, "miner.lost")] == [cancelled.task.id]


def test_heartbeats_go_on_while_a_service_is_away(workshop, monkeypatch):
    lease, beats = a_lease(term_seconds=0.8), []
    monkeypatch.setattr(workshop.ledger, "heartbeat", lambda *_: beats.append(1) or SimpleNamespace(cancel=False))
    monkeypatch.setattr("athena.node._pause", lambda state: 1.0)
    workshop.ledger.fails = 1
    with working(workshop, lease) as crew:
        until(lambda: not crew.held)
    assert workshop.ledger.submitted and len(beats) >= 3


@pytest.mark.parametrize("fault", [Misconfigured("no token"), Unavailable("blocked")])
def test_a_fault_of_the_node_itself_ends_it_and_keeps_the_leases(workshop, refinery, fault, monkeypatch):
    monkeypatch.setattr(crews, "patiently", lambda step, *arguments: step(*arguments))
    broken, other = a_lease(1), a_lease(2)
    refinery.faults[broken.task.id] = fault
    refinery.endless.add(other.task.id)
    with pytest.raises(type(fault)), working(workshop, broken, other) as crew:
        while True:
            crew.wait(0.1)
    until(lambda: not crew.held)  # the other one stopped too
    assert workshop.stopping.is_set()
    assert not workshop.ledger.released and not events_of(workshop, "miner.lost")


def test_after_failures_in_a_row_nothing_new_is_claimed_for_a_while(workshop, refinery, monkeypatch):
    monkeypatch.setattr(crews, "LONGEST_REST_SECONDS", 1.0)
    lease, started = a_lease(), time.monotonic()
    refinery.faults[lease.task.id] = BadInput("no WARC")
    with working(workshop, lease) as crew:
        until(lambda: not crew.held)
        crew.wait(0.0)
        assert time.monotonic() - started >= 1.0


def test_threads_that_do_not_stop_in_time_hold_nobody(workshop, refinery, monkeypatch):
    monkeypatch.setattr(crews, "STOP_SECONDS", 0.1)
    hanging = threading.Event()
    monkeypatch.setattr(work, "refine_task", lambda *_, **__: hanging.wait(5) and manifest(a_lease().task))
    started = time.monotonic()
    with working(workshop, a_lease()):
        pass
    assert time.monotonic() - started < 4
    hanging.set()
