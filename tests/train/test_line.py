"""When a trunk grows and when branches are cut, over folders that stand for what training leaves."""

import os
import shutil

import pytest

from athena.errors import BadInput, Conflict, NotFound
from athena.optout import NOTHING_LEFT_OUT
from athena.protocol import DatasetRef
from athena.train.line import Line, TrunkFailed
from athena.train.mixture import AcceptedDataset
from athena.train.runs_record import RunSpec
from athena.train.runs_table import RUNS_FILE, RunTable
from athena.train.trunk import (
    BRANCH,
    NOTHING,
    BranchInputs,
    Nothing,
    RunSettings,
    TrunkInputs,
    add_stage,
    begin_trunk,
    cut_branch,
    datasets_of,
    newest_step,
    read_noun,
    stages_of,
)

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
INPUTS = TrunkInputs(settings=RunSettings(preset="tiny"), hub="file:///hub", eval_pack="/pack")
NOW = 1e9


def dataset(number, incentive=0.5):
    ref = DatasetRef(location="file:alice/x", revision="0" * 40, root=f"{number:064x}")
    return AcceptedDataset(hotkey=ALICE, task_id=f"{number:032x}", dataset=ref, incentive=incentive)


@pytest.fixture
def table(tmp_path):
    with RunTable(tmp_path / RUNS_FILE) as table:
        yield table


@pytest.fixture
def line(table, tmp_path):
    return Line(table, tmp_path, "athena", INPUTS, devices=1)


@pytest.fixture
def finish(table):
    """The trunk, or another run, trains to a step and is done."""

    def make(name, step=None):
        claim = table.claim(("cpu:0",), now=1e12)
        os.close(claim.lock)
        assert claim.run.name == name
        if step is not None:
            checkpoint(claim.run.folder, step)
        table.finish(name, now=NOW, step=step or 0)

    return make


def checkpoint(folder, step):
    made = folder / "checkpoints" / f"step-{step:08d}"
    (made / "optimizer").mkdir(parents=True)
    (made / "model.safetensors").write_text(f"weights at {step}")
    (made / "optimizer" / "0.bin").write_text("momentum")
    (made / "checkpoint.json").write_text("{}")
    return made


def test_the_trunk_takes_each_dataset_once_and_only_when_it_is_idle(table, line, finish):
    assert line.idle
    line.extend([dataset(1), dataset(2), dataset(3, incentive=0.0)], NOTHING_LEFT_OUT)
    assert not line.idle and table.run("athena").state == "queued"
    assert [d.dataset.root for d in line.unseen([dataset(2), dataset(4)])] == [dataset(4).dataset.root]
    finish("athena", step=100)
    assert line.idle
    line.extend([dataset(4)], NOTHING_LEFT_OUT)
    assert table.run("athena").state == "queued" and table.run("athena").spec.lineage["stages"] == 2
    with pytest.raises(NotFound, match="no dataset"):
        line.extend([dataset(5, incentive=0.0)], NOTHING_LEFT_OUT)
    assert len(stages_of(line.folder)) == 2


def test_a_kill_between_folder_and_table_loses_no_stage(table, tmp_path, line, finish):
    add_stage(line.folder, [dataset(1)], NOTHING_LEFT_OUT)
    assert Line(table, tmp_path, "athena", INPUTS, devices=1).trunk.state == "queued"
    finish("athena", step=10)
    add_stage(line.folder, [dataset(2)], NOTHING_LEFT_OUT)
    again = Line(table, tmp_path, "athena", INPUTS, devices=1)
    assert again.trunk.state == "queued" and again.trunk.spec.lineage["stages"] == 2
    assert datasets_of(again.folder) == {dataset(1).dataset.root, dataset(2).dataset.root}


def test_one_branch_for_each_stage_unless_a_schedule_says_otherwise(table, line, finish):
    assert not line.branch_is_due(5, 0)
    line.extend([dataset(1)], NOTHING_LEFT_OUT)
    finish("athena", step=100)
    assert line.branch_is_due(10, 0)
    branch = line.branch(10)
    assert (branch.name, branch.spec.parent, branch.spec.config["steps"]) == ("athena-0000100", "athena", 125)
    assert not line.branch_is_due(11, 0) and not line.branch_is_due(9999, 10)
    finish(branch.name)
    line.extend([dataset(2)], NOTHING_LEFT_OUT)
    checkpoint(line.folder, 150)
    assert not line.branch_is_due(15, 0), "the stage is not at its end"
    assert not line.branch_is_due(15, 10) and line.branch_is_due(20, 10)
    finish("athena", step=200)
    assert line.branch_is_due(15, 0)
    assert line.branch(30).name == "athena-0000200"


def test_a_branch_keeps_its_checkpoint_when_the_trunk_drops_it(table, line, finish):
    line.extend([dataset(1)], NOTHING_LEFT_OUT)
    finish("athena", step=90)
    made = checkpoint(line.folder, 100)
    spec = cut_branch(table, table.run("athena"), decay_share=0.5, now=NOW)
    folder = table.run(spec.name).folder
    kept = folder / "from" / made.name
    assert (kept / "model.safetensors").stat().st_ino == (made / "model.safetensors").stat().st_ino
    shutil.rmtree(made)
    assert (kept / "optimizer" / "0.bin").read_text() == "momentum" and (kept / "checkpoint.json").exists()
    assert read_noun(folder / BRANCH, BranchInputs) == BranchInputs(trunk=str(line.folder), step=100, decay_steps=100)


def test_the_same_branch_again_is_the_same_and_another_decay_is_refused(table, line, finish):
    line.extend([dataset(1)], NOTHING_LEFT_OUT)
    with pytest.raises(Conflict, match="no checkpoint"):
        cut_branch(table, table.run("athena"), now=NOW)
    finish("athena", step=100)
    trunk = table.run("athena")
    first = cut_branch(table, trunk, now=NOW)
    assert cut_branch(table, trunk, now=NOW + 1).name == first.name and len(table.runs()) == 2
    with pytest.raises(Conflict, match="25 steps"):
        cut_branch(table, trunk, now=NOW, decay_share=0.5)
    with pytest.raises(BadInput, match="branch run"):
        cut_branch(table, table.run(first.name), now=NOW)


def test_a_checkpoint_without_its_manifest_is_none(line):
    checkpoint(line.folder, 10)
    (checkpoint(line.folder, 20) / "checkpoint.json").unlink()
    assert newest_step(line.folder) == 10


def test_what_became_of_a_branch_is_noted_and_counted(table, line, finish):
    line.extend([dataset(1)], NOTHING_LEFT_OUT)
    finish("athena", step=100)
    branch = line.branch(1)
    assert line.to_release() == []
    finish(branch.name)
    (found,) = line.to_release()
    line.settle(found, "releasing 0.1.0")
    assert line.to_release()[0].result == "releasing 0.1.0", "a kill half way leaves it to be done"
    line.settle(found, "released 0.1.0")
    assert line.to_release() == [] and line.released() == 1


def test_a_stage_without_a_document_is_told_once(line, tmp_path):
    line.extend([dataset(1)], NOTHING_LEFT_OUT)
    (stage,) = stages_of(line.folder)
    (stage / NOTHING).write_bytes(Nothing(reason="no document to train on").canonical())
    assert list(line.nothing()) == ["no document to train on"]
    assert list(line.nothing()) == []


def test_a_failed_trunk_says_what_to_do(table, line):
    line.extend([dataset(1)], NOTHING_LEFT_OUT)
    os.close(table.claim(("cpu:0",), now=1e12).lock)
    table.fail("athena", "loss nan at step 7", now=NOW, step=7)
    with pytest.raises(TrunkFailed, match=r"loss nan.*athena runs resume athena"):
        _ = line.idle


def test_a_trunk_stays_what_it_is(tmp_path, line):
    begin_trunk(line.folder, INPUTS.model_copy(update={"hub": "file:///moved"}))
    other = INPUTS.model_copy(update={"settings": RunSettings(preset="tiny", seed=1)})
    with pytest.raises(Conflict, match="other settings"):
        begin_trunk(line.folder, other)


def test_other_runs_in_the_table_are_none_of_its_branches(table, tmp_path, line):
    table.add(RunSpec(name="mine", folder=str(tmp_path / "mine")), now=NOW)
    assert line.to_release() == [] and line.idle
