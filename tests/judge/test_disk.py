"""What is removed from a validator's disk, and what stays."""

import pytest

from athena.durable import write_file
from athena.judge.assess import dataset_folder
from athena.judge.disk import task_folder, tidy
from athena.judge.evidence import Found
from athena.judge.queue import CaseQueue
from athena.protocol import Commitment, DatasetRef, Shard, Task

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
SIZE = 1000


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def queue(tmp_path):
    with CaseQueue(tmp_path / "queue.sqlite") as queue:
        yield queue


@pytest.fixture
def add(queue, work, make_sheet, sign):
    """A case with a dataset, its checked rows and what was made for it, SIZE bytes each."""

    def make(number, block, outcome=None):
        shard = Shard(crawl="LOCAL-files", warc_paths=(f"{number}.warc.gz",))
        task = Task(shard=shard, rule_version="1", opened_block=1)
        ref = DatasetRef(location="file:a/b", revision="a" * 40, root=f"{number:064x}")
        found = Found(
            commitment=Commitment(dataset=ref, task_id=task.id, hotkey=HOTKEY), task=task, issued_block=1,
            deadline_block=9, commit_block=block, seed_block=block + 1, block_hash="0x" + "ab" * 32,
        )  # fmt: skip
        queue.enqueue(
            found.key, hotkey=HOTKEY, task_id=task.id, commit_block=block, payload=found.canonical().decode(), due_at=0
        )
        if outcome is not None:
            queue.settle(found.key, sign(make_sheet(outcome=outcome)), now=0.0)
        folder = dataset_folder(work, found.commitment)
        places = {
            "dataset": folder / "data.parquet",
            "rows": folder.with_name(f"{folder.name}.arrow"),
            "made": task_folder(work, task.id) / "arms" / "a.json",
        }
        for place in places.values():
            write_file(place, bytes(SIZE))
        return lambda: {name for name, place in places.items() if place.exists()}

    return make


EVERYTHING = {"dataset", "rows", "made"}


def test_within_the_budget_everything_that_pay_remembers_stays(add, queue, work):
    left = [add(1, 10, "pass"), add(2, 20, "fail"), add(3, 30)]
    assert tidy(work, queue, oldest_block=10, max_bytes=9 * SIZE) == 9 * SIZE
    assert [there() for there in left] == [EVERYTHING] * 3


def test_what_pay_has_forgotten_goes(add, queue, work):
    left = [add(1, 10, "pass"), add(2, 20, "fail"), add(3, 5)]
    assert tidy(work, queue, oldest_block=11, max_bytes=100 * SIZE) == 6 * SIZE
    assert [there() for there in left] == [set(), EVERYTHING, EVERYTHING]


def test_over_the_budget_the_earliest_goes_first_and_what_can_be_made_again_before_datasets(add, queue, work):
    left = [add(1, 10, "pass"), add(2, 20, "pass"), add(3, 5)]
    assert tidy(work, queue, oldest_block=0, max_bytes=7 * SIZE) == 7 * SIZE
    assert [there() for there in left] == [{"dataset"}, EVERYTHING, EVERYTHING]
    assert tidy(work, queue, oldest_block=0, max_bytes=4 * SIZE) == 4 * SIZE
    assert [there() for there in left] == [set(), {"dataset"}, EVERYTHING]


@pytest.mark.parametrize("outcome", [None, "none"])
def test_what_an_open_case_needs_stays_whatever_the_budget(add, queue, work, outcome):
    there = add(1, 10, outcome)
    half = next(path for path in (work / "datasets").iterdir() if path.suffix == ".arrow")
    write_file(half.with_name(f".{half.name}.part"), bytes(SIZE))
    assert tidy(work, queue, oldest_block=1000, max_bytes=0) == 4 * SIZE
    assert there() == EVERYTHING


def test_what_a_killed_removal_left_goes_the_next_time(add, queue, work):
    add(1, 10, "pass")
    write_file(work / "tasks" / ".gone-x" / "file", bytes(SIZE))
    assert tidy(work, queue, oldest_block=0, max_bytes=3 * SIZE) == 3 * SIZE
    assert not (work / "tasks" / ".gone-x").exists()


def test_an_empty_folder_is_tidy(queue, work):
    assert tidy(work, queue, oldest_block=0, max_bytes=0) == 0
