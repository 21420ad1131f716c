"""The judge's threads over the durable queue: side by side, in order where it matters, stopped anywhere."""

import threading
import time
from contextlib import closing

import pytest

from athena.errors import Misconfigured, NotFound, Unavailable
from athena.events import EventLog, read_events
from athena.judge.assess import Bench, dataset_folder
from athena.judge.evidence import Found
from athena.judge.inspection import NO_PACK
from athena.judge.outbox import SheetRepository
from athena.judge.queue import LAST_READ, CaseQueue
from athena.judge.rules import rules_of
from athena.judge.work import Judge
from athena.protocol import Commitment, DatasetRef, Shard, Task

HOTKEYS = (
    "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y",
)
PATIENCE_SECONDS = 30


class FakeHub:
    """A hub without datasets: judging ends at its first answer, which `asked` may hold back or turn into a fault."""

    scheme = "file"

    def __init__(self, asked=lambda name: None):
        self.asked, self.order = asked, []

    def sizes(self, name, revision):
        self.order.append(name)
        self.asked(name)
        raise NotFound("no such dataset")


class FakeLedger:
    def __init__(self):
        self.posted = []

    def post_sheet(self, signed):
        self.posted.append(signed)


def found(number, *, warc=None, hotkey=0, commit_block=None):
    """Case `number` of its own WARC file, unless it names another."""
    shard = Shard(crawl="LOCAL-files", warc_paths=(warc or f"{number}.warc.gz",))
    task = Task(shard=shard, rule_version="demo-1", opened_block=1)
    ref = DatasetRef(location=f"file:org/set-{number}", revision="a" * 40, root=f"{number:064x}")
    return Found(
        commitment=Commitment(dataset=ref, task_id=task.id, hotkey=HOTKEYS[hotkey]), task=task, issued_block=5,
        deadline_block=500, commit_block=commit_block or 10 + number, seed_block=100, block_hash="0x" + "ab" * 32,
    )  # fmt: skip


@pytest.fixture
def queue(tmp_path):
    with CaseQueue(tmp_path / "queue.sqlite") as queue:
        queue.note(LAST_READ, 100)
        yield queue


@pytest.fixture
def make_judge(tmp_path, queue):
    """A judge over a fake hub, and the ledger that its sheets go to."""
    ledger = FakeLedger()

    def make(hub, **options):
        changes = {name: options.pop(name) for name in ("packs", "events") if name in options}
        bench = Bench(
            hub=hub, crawl=None, pack=NO_PACK, rules=rules_of("demo-1"), validator=HOTKEYS[0],
            workdir=tmp_path / "work", workers=None, **{"events": EventLog(None), **changes},
        )  # fmt: skip
        return Judge(tmp_path / "queue.sqlite", bench, ledger, lambda message: "0" * 128, **options), ledger

    return make


def enqueue(queue, *cases):
    for case in cases:
        queue.enqueue(
            case.key, hotkey=case.hotkey, task_id=case.task.id, commit_block=case.commit_block,
            payload=case.canonical().decode(), due_at=0.0,
        )  # fmt: skip


def wait_until(condition):
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_cases_are_judged_side_by_side_and_their_sheets_posted(queue, make_judge):
    together = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    enqueue(queue, *(found(number) for number in range(3)))
    judge, ledger = make_judge(FakeHub(lambda name: together.wait()), cases=3)
    with judge:
        wait_until(lambda: len(ledger.posted) == 3)
        assert judge.failure is None
    assert queue.counts() == {"fail": 3} and not queue.unposted()


def test_cases_of_one_file_are_judged_one_after_the_other_in_the_order_of_their_commitments(queue, make_judge):
    at_once, most = threading.Semaphore(1), []

    def alone(name):
        most.append(at_once.acquire(blocking=False))
        time.sleep(0.05)
        at_once.release()

    cases = [found(number, warc="same.warc.gz", hotkey=number % 3, commit_block=90 - number) for number in range(4)]
    enqueue(queue, *cases)
    hub = FakeHub(alone)
    judge, ledger = make_judge(hub, cases=3)
    with judge:
        wait_until(lambda: len(ledger.posted) == 4)
    assert all(most)
    assert hub.order == [f"org/set-{number}" for number in (3, 2, 1, 0)]


def test_a_set_that_two_tasks_name_is_fetched_by_one_at_a_time(queue, make_judge):
    first, second = found(1), found(2, hotkey=1)
    ref = first.commitment.dataset
    second = second.model_copy(update={"commitment": second.commitment.model_copy(update={"dataset": ref})})
    enqueue(queue, first, second)
    held = threading.Event()
    hub = FakeHub(lambda name: held.wait(PATIENCE_SECONDS))
    judge, _ = make_judge(hub, cases=2)
    with judge:
        wait_until(lambda: hub.order)
        time.sleep(0.7)  # longer than the judge's pause between two looks
        assert len(hub.order) == 1
        held.set()
        wait_until(lambda: queue.counts() == {"fail": 2})


def test_what_ends_a_thread_is_kept_and_the_case_stays_open(queue, make_judge):
    def broken(name):
        raise ZeroDivisionError

    enqueue(queue, found(1))
    judge, _ = make_judge(FakeHub(broken))
    with judge:
        wait_until(lambda: judge.failure)
    assert isinstance(judge.failure, ZeroDivisionError)
    assert queue.counts() == {None: 1}


def test_a_case_that_ends_the_process_again_and_again_lets_the_others_through(queue, make_judge):
    def broken(name):
        if name == "org/set-1":
            raise ZeroDivisionError

    enqueue(queue, found(1), found(2))
    judge, _ = make_judge(FakeHub(broken))
    for _ in range(2):  # the second time at once: a validator that was only restarted loses no time
        with pytest.raises(ZeroDivisionError):
            judge.judge_next(queue)
    assert judge.judge_next(queue) and queue.counts() == {None: 1, "fail": 1}
    assert not judge.judge_next(queue)
    assert 20 < queue.next_due_at() - time.time() <= 30


def test_stopped_in_the_middle_nothing_is_held_against_the_case(queue, make_judge):
    begun, stopped = threading.Event(), threading.Event()

    def away(name):
        begun.set()
        stopped.wait(PATIENCE_SECONDS)
        raise Unavailable("cut off")

    enqueue(queue, found(1))
    judge, _ = make_judge(FakeHub(away))
    judge.start()
    assert begun.wait(PATIENCE_SECONDS)
    threading.Timer(0.2, stopped.set).start()
    judge.stop()
    assert queue.counts() == {None: 1}
    again, _ = make_judge(FakeHub())
    assert again.judge_next(queue) and queue.counts() == {"fail": 1}


def test_a_service_that_is_away_puts_a_case_off(queue, make_judge):
    def away(name):
        raise Unavailable("503")

    enqueue(queue, found(1))
    judge, ledger = make_judge(FakeHub(away))
    assert judge.judge_next(queue) and not judge.judge_next(queue)
    judge.post(queue)
    assert queue.counts() == {"none": 1} and ledger.posted == []


class NoPacks:
    def at(self, block):
        raise Misconfigured(f"no pack at block {block}")


def test_without_the_pack_of_its_block_a_case_waits_and_nothing_ends(queue, make_judge):
    enqueue(queue, found(1))
    judge, _ = make_judge(FakeHub(), packs=NoPacks())
    assert not judge.judge_next(queue) and not judge.judge_next(queue)
    assert queue.counts() == {None: 1} and queue.due(time.time()) is None


def test_a_sheet_says_what_its_draws_and_times_came_from(queue, make_judge, tmp_path):
    rival = found(1, warc="same.warc.gz", hotkey=1, commit_block=20)
    case = found(2, warc="same.warc.gz", hotkey=2, commit_block=30)
    enqueue(queue, rival, case)
    dataset_folder(tmp_path / "work", rival.commitment).mkdir(parents=True)
    judge, _ = make_judge(FakeHub())
    assert judge.judge_next(queue) and judge.judge_next(queue)
    basis = list(queue.sheets())[1].sheet.basis
    assert basis.shard == case.task.shard and basis.deadline_block == 500
    assert (basis.block_hash, basis.reference_hash) == (case.block_hash, rival.block_hash)
    assert basis.median_blocks == 20  # of 15 and 25 blocks
    assert basis.num_rivals == 1 and basis.rivals[0].commitment == rival.commitment


class FlakyHub:
    def __init__(self):
        self.published = []

    def resolve(self, name, reference):
        raise NotFound("no repository")

    def publish(self, folder, name, *, message):
        self.published.append(message)
        if len(self.published) == 1:
            raise Unavailable("429")
        return "a" * 40


def test_now_and_then_sheets_go_to_the_hub_and_the_disk_is_tidied(queue, make_judge, tmp_path):
    enqueue(queue, found(1), found(2))
    hub, log = FlakyHub(), tmp_path / "events.jsonl"
    sheets = SheetRepository(hub, "org/sheets", tmp_path / "sheets")
    judge, _ = make_judge(FakeHub(), sheets=sheets, max_bytes=1 << 20, events=EventLog(log))
    while judge.judge_next(queue):
        pass
    judge.tend(queue)
    assert len(queue.unpublished(10)) == 2
    judge.tend(queue)
    assert hub.published == ["2 score sheets"] * 2 and queue.unpublished(10) == []
    states = [event for event in read_events(log) if event["event"] == "validator.state"]
    assert [state["cases"] for state in states] == [{"fail": 2}] * 2


def test_a_queue_file_of_an_earlier_version_goes_on(tmp_path):
    import sqlite3

    old = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(old)) as db:
        db.execute(
            "CREATE TABLE cases (key TEXT PRIMARY KEY, hotkey TEXT NOT NULL, task_id TEXT NOT NULL,"
            " commit_block INTEGER NOT NULL, payload TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,"
            " due_at REAL NOT NULL, outcome TEXT, sheet TEXT, posted INTEGER NOT NULL DEFAULT 0) STRICT"
        )
        db.execute("INSERT INTO cases (key, hotkey, task_id, commit_block, payload, due_at) VALUES ('a','','',1,'',0)")
        db.commit()
    with CaseQueue(old) as queue:
        queue.begin("a", now=0.0)
        assert queue.due(1.0).key == "a" and queue.unpublished(1) == []
