"""A validator's score sheets as a repository, on every hub."""

import json

import pytest

from athena.errors import Unavailable
from athena.hub import BRANCH
from athena.judge import outbox
from athena.judge.outbox import SheetRepository
from athena.judge.queue import CaseQueue
from athena.judge.rules import BLOCKS_PER_DAY
from athena.protocol import DatasetRef, ScoreSheet, SignedSheet

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
NAME = "validator/sheets"


@pytest.fixture
def queue(tmp_path):
    with CaseQueue(tmp_path / "queue.sqlite") as queue:
        yield queue


def settle(queue, number, *, day=0, outcome="pass"):
    sheet = ScoreSheet(
        task_id=f"{number:032x}", hotkey=HOTKEY, validator=HOTKEY, rule_version="1", eval_pack="1" * 64,
        dataset=DatasetRef(location="file:a/b", revision="2" * 40, root="3" * 64), issued_block=1, commit_block=number,
        seed_block=day * BLOCKS_PER_DAY + number, outcome=outcome, gates=(),
    )  # fmt: skip
    key = str(number)
    queue.enqueue(key, hotkey=HOTKEY, task_id=sheet.task_id, commit_block=number, payload="", due_at=0.0)
    queue.settle(key, SignedSheet(sheet=sheet, signature="0" * 128), now=0.0)


def published(hub, tmp_path):
    """Task numbers by file of the newest revision; every line is a signed sheet."""
    into = tmp_path / f"read-{len(list(tmp_path.iterdir()))}"
    hub.fetch(NAME, hub.resolve(NAME, BRANCH), into, max_bytes=1 << 20)
    return {
        file.name: [
            int(SignedSheet.model_validate(json.loads(line)).sheet.task_id, 16)
            for line in file.read_bytes().splitlines()
        ]
        for file in sorted(into.rglob("*.jsonl"))
    }


def test_final_sheets_are_published_by_day_and_once(hub, queue, tmp_path):
    repository = SheetRepository(hub, NAME, tmp_path / "sheets")
    assert repository.publish(queue) == 0
    for number, outcome in ((1, "pass"), (2, "none"), (3, "fail")):
        settle(queue, number, outcome=outcome)
    assert repository.publish(queue) == 2
    first = hub.resolve(NAME, BRANCH)
    assert repository.publish(queue) == 0 and hub.resolve(NAME, BRANCH) == first
    settle(queue, 4)
    settle(queue, 5, day=2)
    assert repository.publish(queue) == 2
    assert published(hub, tmp_path) == {"day-00000.jsonl": [1, 3, 4], "day-00002.jsonl": [5]}


def test_batches_are_bounded(hub, queue, tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "MAX_BATCH", 2)
    repository = SheetRepository(hub, NAME, tmp_path / "sheets")
    for number in range(5):
        settle(queue, number)
    assert [repository.publish(queue) for _ in range(4)] == [2, 2, 1, 0]
    assert published(hub, tmp_path) == {"day-00000.jsonl": [0, 1, 2, 3, 4]}


def test_another_state_folder_goes_on_with_what_the_hub_has(hub, queue, tmp_path):
    settle(queue, 1)
    SheetRepository(hub, NAME, tmp_path / "sheets").publish(queue)
    with CaseQueue(tmp_path / "other.sqlite") as other:
        settle(other, 2)
        SheetRepository(hub, NAME, tmp_path / "elsewhere" / "sheets").publish(other)
    assert published(hub, tmp_path) == {"day-00000.jsonl": [1, 2]}


class Interrupted:
    """The hub, which lets go of a publish before or after it happened."""

    def __init__(self, hub, *, before):
        self._hub, self._before = hub, before

    def __getattr__(self, name):
        return getattr(self._hub, name)

    def publish(self, *arguments, **options):
        if not self._before:
            self._hub.publish(*arguments, **options)
        raise Unavailable("cut off")


@pytest.mark.parametrize("before", [True, False])
def test_interrupted_the_next_publish_does_it_again(hub, queue, tmp_path, before):
    settle(queue, 1)
    with pytest.raises(Unavailable):
        SheetRepository(Interrupted(hub, before=before), NAME, tmp_path / "sheets").publish(queue)
    settle(queue, 2)
    assert SheetRepository(hub, NAME, tmp_path / "sheets").publish(queue) == 2
    assert published(hub, tmp_path) == {"day-00000.jsonl": [1, 2]}
