"""What a validator publishes about a dataset is what anyone finds who judges it again."""

import dataclasses
import time

import pytest

from athena.judge import work
from athena.judge.evidence import Found
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.queue import CaseQueue
from athena.judge.verification import case_of, compared, recomputed
from athena.protocol import Shard, Task

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")


def test_a_sheet_follows_from_itself_and_from_the_data(world, canonical, tmp_path):
    sheet = world.judge(world.publish(list(world.rows), recipe=canonical))
    assert sheet.outcome == "pass" and recomputed(sheet, world.bench.rules) == []
    again = world.judge(case_of(sheet), workdir=tmp_path)
    assert compared(sheet, again) == []


def test_a_sheet_that_passes_what_the_gates_refuse_is_found_out(world, tmp_path):
    honest = world.judge(world.publish(list(world.rows)))
    faked = world.altered(lambda i, row: {**row, "text": f"Entirely made up, sentence by sentence, number {i}."})
    case = world.publish(faked)
    bought = honest.model_copy(update={"dataset": case.commitment.dataset})
    told = {difference.what for difference in compared(bought, world.judge(case_of(bought), workdir=tmp_path))}
    assert "outcome" in told and "gate provenance" in told


@pytest.mark.full
def test_side_by_side_or_one_after_the_other_the_sheets_are_the_same(world, tmp_path, monkeypatch):
    tasks = [Task(shard=Shard(crawl=world.task.shard.crawl, warc_paths=(path,)), rule_version="demo-1", opened_block=1)
             for path in world.paths]  # fmt: skip
    cases = [world.publish(world.refine(recipe, "bob", task), hotkey="bob", task=task)
             for task in tasks for recipe in ("fineweb-1", "unfiltered-1")]  # fmt: skip
    monkeypatch.setattr(work, "rules_of", lambda version: world.bench.rules)
    found = []
    for at_once in (1, 4):
        file = tmp_path / f"{at_once}.sqlite"
        with CaseQueue(file) as queue, ProxyWorkers(2) as workers:
            for number, case in enumerate(cases):
                seen = Found(
                    **{name: getattr(case, name) for name in Found.model_fields} | {"commit_block": 150 + number}
                )
                queue.enqueue(
                    seen.key, hotkey=seen.hotkey, task_id=seen.task.id, commit_block=seen.commit_block,
                    payload=seen.canonical().decode(), due_at=0.0,
                )  # fmt: skip
            bench = dataclasses.replace(world.bench, workdir=tmp_path / f"work-{at_once}", workers=workers)
            with work.Judge(file, bench, Ledger(), lambda message: "0" * 128, cases=at_once) as judge:
                while None in queue.counts():
                    assert judge.failure is None
                    time.sleep(0.1)
            found.append([signed.sheet for signed in queue.sheets()])
    assert [sheet.outcome for sheet in found[0]] == ["pass"] * 4
    assert found[0] == found[1]


class Ledger:
    def post_sheet(self, signed):
        pass
