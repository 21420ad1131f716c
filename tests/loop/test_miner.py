"""The miner's loop over a real refinery and hub: several leases at once, stopped and started again."""

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from athena.chain.client import Head
from athena.errors import Conflict
from athena.events import EventLog, read_events
from athena.hub import open_hub
from athena.node import Member
from athena.protocol import Commitment, Lease, Shard, Task
from athena.refine.work import commits
from athena.refine.work.status import read_status
from athena.refine.work.status_board import StatusBoard
from athena.settings import MinerSettings, parse_settings
from neurons import miner

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
NUM_TASKS = 3


class Told(Exception):
    """Stands in for SIGTERM, which unwinds the main thread wherever it is."""


class Server:
    """A task server with one task per WARC file, each leased once; `told` is raised at a claim once `stop` says so."""

    def __init__(self, stop):
        self.stop, self.held, self.asked, self.submitted, self.most = stop, {}, [], [], 0
        self.lock = threading.Lock()
        self.left = [
            Task(shard=Shard(crawl="LOCAL-files", warc_paths=(f"{n}.warc.gz",)), rule_version="demo-1", opened_block=1)
            for n in range(NUM_TASKS)
        ]

    def opt_outs(self):
        return ()

    def leases(self, *, hotkey, state):
        assert (hotkey, state) == (HOTKEY, "active")
        return list(self.held.values())

    def claim(self, count):
        if self.stop(self):
            raise Told
        with self.lock:
            self.asked.append(count)
            while self.left and len(self.held) < count:
                task, now = self.left.pop(0), datetime.now(UTC)
                self.held[task.id] = Lease(
                    id=f"{len(self.left):032x}", task=task, hotkey=HOTKEY, state="active", fencing=1, issued_at=now,
                    heartbeat_at=now, expires_at=now + timedelta(seconds=60), deadline_at=now + timedelta(hours=1),
                    issued_block=1, deadline_block=100_000,
                )  # fmt: skip
            self.most = max(self.most, len(self.held))
            return list(self.held.values())

    def heartbeat(self, lease, progress):
        return SimpleNamespace(cancel=False)

    def release(self, lease):
        raise Conflict("not expected")

    def submit(self, submission):
        with self.lock:
            self.submitted.append(submission)
            (task_id,) = [t for t, lease in self.held.items() if lease.id == submission.lease_id]
            del self.held[task_id]
        return SimpleNamespace(accepted=True)


class Chain:
    """Ten blocks at every look."""

    def __init__(self):
        self.number, self.texts = 100, []

    def head(self):
        self.number += 10
        return Head(self.number, "0x00")

    def commitments(self, block):
        return []

    def commit(self, text, *, sealed, reveal_in_blocks):
        assert sealed
        self.texts.append(text)


@pytest.fixture
def mine(tmp_path, monkeypatch, plain_warc):
    """Runs the loop against a task server until that says stop; (server, chain)."""
    monkeypatch.setattr(commits, "BUSY_SECONDS", 0.01)
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    for n in range(NUM_TASKS):
        (crawl / f"{n}.warc.gz").write_bytes(plain_warc(range(10 * n, 10 * n + 4), 80))
    settings = parse_settings(
        MinerSettings, "miner",
        ["--network=ws://127.0.0.1:1", f"--hub={(tmp_path / 'hub').as_uri()}", f"--crawl-url={crawl.as_uri()}",
         f"--state={tmp_path / 'state'}", "--recipe=unfiltered-1", "--leases=2", "--workers=1", "--idle-seconds=0.1",
         "--commit-read-blocks=2"],
    )  # fmt: skip

    def run(server, chain):
        board = StatusBoard(settings.state_folder, hotkey=HOTKEY, recipe=settings.recipe)
        events = EventLog(tmp_path / "events.jsonl")
        with pytest.raises(Told):
            miner.work(settings, events, Member(None, HOTKEY, chain, server), board)

    return run


def test_all_tasks_end_as_commitments_to_datasets_on_the_hub(mine, tmp_path):
    server, chain = Server(stop=lambda server: len(server.submitted) == NUM_TASKS), Chain()
    mine(server, chain)
    committed = {Commitment.parse(text, signer=HOTKEY).dataset for text in chain.texts}
    assert committed == {submission.dataset for submission in server.submitted} and len(committed) == NUM_TASKS
    assert server.most == 2 and set(server.asked) == {2}
    hub = open_hub((tmp_path / "hub").as_uri())
    for dataset in committed:
        assert set(hub.sizes(dataset.repository, dataset.revision)) == {"data.parquet", "manifest.json"}
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["status.json", "tasks"]
    assert list((tmp_path / "state" / "tasks").iterdir()) == []
    status = read_status(tmp_path / "state")
    assert (status.submitted, status.given_up, status.leases) == (NUM_TASKS, 0, ())
    outcomes = [e["outcome"] for e in read_events(tmp_path / "events.jsonl") if e["event"] == "miner.inspected"]
    assert outcomes == ["pass"] * NUM_TASKS


def test_a_stopped_miner_goes_on_with_the_leases_that_it_held(mine, tmp_path):
    server, chain = Server(stop=lambda server: bool(server.held)), Chain()
    mine(server, chain)  # stopped at its second claim
    held = set(server.held)
    left_over = tmp_path / "state" / "tasks" / ("0" * 32)
    left_over.mkdir(parents=True)
    server.stop = lambda server: len(server.submitted) == NUM_TASKS
    mine(server, chain)
    assert held <= {submission.manifest.task_id for submission in server.submitted}
    assert not left_over.exists() and len(chain.texts) == NUM_TASKS
