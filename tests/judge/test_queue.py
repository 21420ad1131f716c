import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from athena.judge.queue import CaseQueue
from athena.protocol import DatasetRef, ScoreSheet, SignedSheet

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def signed(outcome: str) -> SignedSheet:
    sheet = ScoreSheet(
        task_id="0" * 32, hotkey=HOTKEY, validator=HOTKEY, rule_version="1", eval_pack="1" * 64,
        dataset=DatasetRef(location="file:a/b", revision="2" * 40, root="3" * 64), issued_block=1, commit_block=10,
        seed_block=20, outcome=outcome, gates=(),
    )  # fmt: skip
    return SignedSheet(sheet=sheet, signature="0" * 128)


def add(queue: CaseQueue, key: str, block: int = 1, due_at: float = 0.0) -> bool:
    return queue.enqueue(key, hotkey=HOTKEY, task_id="0" * 32, commit_block=block, payload=f"of {key}", due_at=due_at)


@pytest.fixture
def queue(tmp_path):
    queue = CaseQueue(tmp_path / "queue.sqlite")
    yield queue
    queue.close()


def test_a_case_is_enqueued_once(queue):
    assert add(queue, "a") and not add(queue, "a", block=7)
    entry = queue.due(1.0)
    assert (entry.key, entry.commit_block, entry.payload, entry.attempts) == ("a", 1, "of a", 0)


def test_earliest_commitment_first_and_due_until_settled(queue):
    add(queue, "late", block=9)
    add(queue, "early", block=2)
    assert queue.due(1.0).key == queue.due(1.0).key == "early"
    queue.settle("early", signed("pass"), now=1.0)
    assert queue.due(1.0).key == "late"


def test_none_comes_again_later_each_time(queue):
    add(queue, "a")
    now, waits = 0.0, []
    for _ in range(4):
        queue.settle("a", signed("none"), now=now)
        assert queue.due(now) is None
        waits.append(queue.next_due_at() - now)
        now = queue.next_due_at()
        assert queue.due(now).key == "a"
    assert waits == [30.0, 60.0, 120.0, 240.0]
    queue.settle("a", signed("pass"), now=now)
    assert queue.due(now + 1e9) is None and queue.next_due_at() is None


def test_a_final_verdict_stays(queue):
    add(queue, "a")
    queue.settle("a", signed("fail"), now=0.0)
    queue.settle("a", signed("none"), now=1.0)
    assert [s.sheet.outcome for s in queue.sheets()] == ["fail"]
    assert queue.due(1e9) is None


def test_only_final_sheets_are_posted_and_once(queue):
    for key, outcome in (("a", "pass"), ("b", "none"), ("c", "fail")):
        add(queue, key)
        queue.settle(key, signed(outcome), now=0.0)
    assert [key for key, _ in queue.unposted()] == ["a", "c"]
    queue.mark_posted("a")
    assert [key for key, _ in queue.unposted()] == ["c"]


def test_sheets_are_published_once_posted_or_not(queue):
    for key, outcome in (("a", "pass"), ("b", "none"), ("c", "fail")):
        add(queue, key)
        queue.settle(key, signed(outcome), now=0.0)
    assert [key for key, _ in queue.unpublished(1)] == ["a"]
    queue.mark_published(["a"])
    assert [key for key, _ in queue.unpublished(9)] == ["c"] and len(queue.unposted()) == 2
    assert queue.status()["sheets_to_publish"] == 1 and queue.status()["to_be_tried_again"] == 1


def test_what_a_process_did_not_live_to_settle_comes_again_later_each_time(queue):
    add(queue, "a")
    now, waits = 0.0, []
    for _ in range(4):
        queue.begin("a", now=now)
        waits.append(queue.next_due_at() - now)
        now = queue.next_due_at()
    assert waits == [0.0, 30.0, 60.0, 120.0]
    queue.settle("a", signed("none"), now=now)  # it lived: the next start is a first one again
    queue.begin("a", now=1e9)
    assert queue.next_due_at() == 1e9


def test_several_enter_the_queue_together_or_not_at_all(queue):
    with pytest.raises(ZeroDivisionError), queue.at_once():
        add(queue, "a")
        raise ZeroDivisionError
    assert queue.due(1.0) is None
    with queue.at_once():
        add(queue, "a")
        add(queue, "b")
    assert [entry.key for entry in queue.waiting(1.0)] == ["a", "b"]


def test_notes(queue):
    assert queue.noted("block") is None
    queue.note("block", 7)
    queue.note("block", 9)
    assert queue.noted("block") == 9


def test_unknown_case_cannot_be_settled(queue):
    with pytest.raises(KeyError):
        queue.settle("ghost", signed("pass"), now=0.0)


def test_killed_in_the_middle_of_settling_nothing_is_lost(tmp_path):
    """kill -9 while another process settles case after case: each is open, or has its whole sheet."""
    path = tmp_path / "queue.sqlite"
    script = f"""
import sys; from pathlib import Path; from athena.judge.queue import CaseQueue; from athena.protocol import SignedSheet
queue = CaseQueue(Path({str(path)!r})); sheet = SignedSheet.model_validate_json(sys.stdin.readline())
for i in range(100000):
    queue.enqueue(str(i), hotkey={HOTKEY!r}, task_id="0" * 32, commit_block=i, payload="", due_at=0.0)
    queue.settle(str(i), sheet, now=0.0); print(i, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(signed("pass").model_dump_json().encode() + b"\n")
    process.stdin.flush()
    for _ in range(20):
        process.stdout.readline()
    time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    said = 20 + len(process.communicate()[0].splitlines())
    queue = CaseQueue(path)
    counts = queue.counts()
    assert counts["pass"] >= said and counts.get(None, 0) <= 1
    assert len(list(queue.sheets())) == counts["pass"]
    queue.close()


class QueueMachine(RuleBasedStateMachine):
    """The queue against a model of dictionaries, reopened at any moment."""

    keys = st.sampled_from("abcd")

    def __init__(self) -> None:
        super().__init__()
        self.path = pytest.queue_folder / f"{time.monotonic_ns()}.sqlite"
        self.queue = CaseQueue(self.path)
        self.now = 0.0
        self.outcomes: dict[str, str | None] = {}
        self.due: dict[str, float] = {}
        self.attempts: dict[str, int] = {}

    @rule(key=keys)
    def enqueue(self, key):
        assert add(self.queue, key, block=ord(key), due_at=self.now) == (key not in self.outcomes)
        self.outcomes.setdefault(key, None)
        self.due.setdefault(key, self.now)
        self.attempts.setdefault(key, 0)

    @precondition(lambda self: self.outcomes)
    @rule(data=st.data(), outcome=st.sampled_from(["pass", "fail", "none"]))
    def settle(self, data, outcome):
        key = data.draw(st.sampled_from(sorted(self.outcomes)))
        self.queue.settle(key, signed(outcome), now=self.now)
        if self.outcomes[key] in (None, "none"):
            self.outcomes[key] = outcome
            self.due[key] = self.now + min(6 * 3600, 30 * 2.0 ** self.attempts[key])
            self.attempts[key] += outcome == "none"

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def reopen(self):
        self.queue.close()
        self.queue = CaseQueue(self.path)

    @invariant()
    def agrees(self):
        open_keys = [k for k, outcome in self.outcomes.items() if outcome in (None, "none")]
        due = sorted(k for k in open_keys if self.due[k] <= self.now)
        entry = self.queue.due(self.now)
        assert (entry.key if entry else None) == (due[0] if due else None)
        assert self.queue.next_due_at() == min((self.due[k] for k in open_keys), default=None)
        judged = sorted(outcome for outcome in self.outcomes.values() if outcome)
        assert sorted(s.sheet.outcome for s in self.queue.sheets()) == judged

    def teardown(self):
        self.queue.close()


@pytest.fixture(autouse=True)
def _folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(pytest, "queue_folder", tmp_path_factory.mktemp("queues"), raising=False)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
