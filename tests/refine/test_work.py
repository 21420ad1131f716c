"""A miner's work on a lease: killed after any step, it goes on, and does nothing twice that would harm."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from athena.chain.client import Committed, Head
from athena.errors import Conflict, Unavailable
from athena.events import EventLog, read_events
from athena.hub import open_hub
from athena.protocol import Commitment, Lease, Manifest, RecipeRef, Shard, Task
from athena.refine import work
from athena.refine.work import Heart, Workshop
from athena.wire import OptOut

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
TASK = Task(shard=Shard(crawl="CC-MAIN-2026-43", warc_paths=("a.warc.gz",)), rule_version="demo-1", opened_block=1)


class FakeChain:
    def __init__(self):
        self.committed, self.number, self.fails = [], 1000, 0

    def head(self):
        self.number += 1
        return Head(self.number, "0x00")

    def commitments(self, block):
        return [Committed(HOTKEY, 1, at, at, None, "sealed") for at, _ in self.committed[-1:]]

    def commit(self, text, *, sealed, reveal_in_blocks):
        if self.fails:
            self.fails -= 1
            raise Unavailable("no node")
        assert sealed and reveal_in_blocks > 0
        self.committed.append((self.number, text))


class FakeLedger:
    def __init__(self):
        self.submitted, self.fails, self.cancel = [], 0, False

    def opt_outs(self):
        return (OptOut(domain="gone.example", reason="", since_block=1),)

    def heartbeat(self, lease, progress):
        return SimpleNamespace(cancel=self.cancel)

    def submit(self, submission):
        if self.fails:
            self.fails -= 1
            raise Unavailable("no server")
        self.submitted.append(submission)
        return SimpleNamespace(accepted=True)


def a_lease(term_seconds=60.0):
    now = datetime.now(UTC)
    return Lease(
        id="1" * 32, task=TASK, hotkey=HOTKEY, state="active", fencing=7, issued_at=now, heartbeat_at=now,
        expires_at=now + timedelta(seconds=term_seconds), deadline_at=now + timedelta(hours=1), issued_block=900,
        deadline_block=2000,
    )  # fmt: skip


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A workshop whose refinery writes a small finished dataset; everything after it is real or a fake service."""
    refined = []

    def refine(task, hotkey, recipe, crawl, out, *, events, left_out, heartbeat):
        assert left_out.covers("https://gone.example/")
        heartbeat({"records": 1})
        refined.append(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "data.parquet").write_bytes(b"rows")
        (out / "manifest.json").write_bytes(b"{}")
        return manifest()

    monkeypatch.setattr(work, "refine_task", refine)
    monkeypatch.setattr(work.time, "sleep", lambda seconds: None)
    return Workshop(
        ledger=FakeLedger(), chain=FakeChain(), hub=open_hub((tmp_path / "hub").as_uri()), crawl=None, recipe=None,
        hotkey=HOTKEY, namespace="alice", sealed=True, commit_read_blocks=10, folder=tmp_path / "tasks",
        events=EventLog(tmp_path / "events.jsonl"),
    )  # fmt: skip


def manifest():
    recipe = RecipeRef(name="fineweb-1", version="1", hash="0" * 64)
    return Manifest(
        task_id=TASK.id, hotkey=HOTKEY, rule_version="demo-1", recipe=recipe, files=(), records=1, rows=1, rejected={},
        tokens=9, root="c" * 64,
    )  # fmt: skip


def test_a_lease_ends_as_a_commitment_to_what_lies_on_the_hub(workshop):
    workshop.carry_out(a_lease())
    ((_, text),) = workshop.chain.committed
    (submission,) = workshop.ledger.submitted
    commitment = Commitment.parse(text, signer=HOTKEY)
    assert commitment.dataset == submission.dataset and submission.fencing == 7
    name = submission.dataset.location.removeprefix("file:")
    assert workshop.hub.sizes(name, submission.dataset.revision) == {"data.parquet": 4, "manifest.json": 2}
    assert not (workshop.folder / TASK.id).exists()


@pytest.mark.parametrize("service", ["chain", "ledger"])
def test_a_service_that_was_away_costs_no_second_dataset_and_no_second_name(workshop, service):
    getattr(workshop, service).fails = 1
    with pytest.raises(Unavailable):
        workshop.carry_out(a_lease())
    workshop.carry_out(a_lease())
    assert len(workshop.ledger.submitted) == len(workshop.chain.committed) == 1
    published = [e["revision"] for e in read_events(workshop.folder.parent / "events.jsonl") if "revision" in e]
    assert len(published) == 2 and len(set(published)) == 1


def test_names_cannot_be_guessed(workshop):
    workshop.carry_out(a_lease())
    workshop.carry_out(a_lease())
    first, second = (s.dataset.location for s in workshop.ledger.submitted)
    assert first != second and len(first.split("athena-")[1]) == 32


def test_two_read_intervals_lie_between_two_commitments(workshop):
    workshop.carry_out(a_lease())
    workshop.carry_out(a_lease())
    (first, _), (second, _) = workshop.chain.committed
    assert second - first >= 2 * workshop.commit_read_blocks


def test_a_cancelled_lease_stops_the_work():
    ledger = FakeLedger()
    ledger.cancel = True
    with pytest.raises(Conflict), Heart(ledger, a_lease(term_seconds=0.8)) as heart:
        while True:
            heart.report({"records": 1})


def test_what_is_left_of_lost_tasks_is_swept(workshop):
    for name in (TASK.id, "0" * 32):
        (workshop.folder / name).mkdir(parents=True)
    workshop.sweep([a_lease()])
    assert [p.name for p in workshop.folder.iterdir()] == [TASK.id]
