"""The trainer's loop over a chain and a ledger that say what they are told, and runs that are scripts."""

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from athena.chain.client import Head, Neuron
from athena.events import EventLog, read_events
from athena.node import Member
from athena.protocol import DatasetRef
from athena.registry import Registry, Standing
from athena.settings import TrainerSettings
from athena.train.line import TrunkFailed
from athena.train.runs_table import RUNS_FILE, RunTable
from athena.train.trunk import stages_of
from neurons import trainer

MINER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
VALIDATOR = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
# What a run leaves that others look at: a trunk 10 steps further for each of its stages, a branch nothing.
RUN = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
stages = len(list(folder.glob("stages/*/inputs.json")))
if stages:
    made = folder / "checkpoints" / f"step-{10 * stages:08d}"
    made.mkdir(parents=True, exist_ok=True)
    (made / "checkpoint.json").write_text("{}")
if sys.argv[2]:
    sys.exit(sys.argv[2])
"""


@dataclass
class World:
    """What the chain and the ledger say at each block."""

    datasets: dict[int, int] = field(default_factory=dict)  # number of a dataset -> block at which it is passed
    block: int = 0

    def heads(self):
        while self.block < 5000:
            self.block += 1
            yield self.head()

    def head(self):
        return Head(number=self.block, hash=f"0x{self.block:064x}")

    def neurons(self, block=None):
        return [
            Neuron(1, MINER, "c", stake=0.0, validator_permit=False, incentive=0.9, registered_block=1, last_update=1),
            Neuron(2, VALIDATOR, "d", stake=9.0, validator_permit=True, incentive=0, registered_block=1, last_update=1),
        ]  # fmt: skip

    def sheets(self):
        passed = [number for number, block in self.datasets.items() if block <= self.block]
        return [SimpleNamespace(sheet=sheet(number)) for number in passed]

    def stats(self):
        return SimpleNamespace(submissions=len(self.sheets()))

    def opt_outs(self):
        return []


def sheet(number):
    ref = DatasetRef(location="file:alice/x", revision="0" * 40, root=f"{number:064x}")
    return SimpleNamespace(
        hotkey=MINER,
        task_id=f"{number:032x}",
        dataset=ref,
        validator=VALIDATOR,
        outcome="pass",
        effect=None,
        rule_version="1",
    )


def standing(version, state, gate="first"):
    changed_at = datetime(2026, 1, 1, tzinfo=UTC)
    return Standing(version=version, release="0" * 64, state=state, changed_at=changed_at, gate=gate, revision="1" * 40)


class Shelf:
    """Releases: `gates` is what the gate says of one after the other."""

    def __init__(self, gates):
        self.model = "athena"
        self.gates = list(gates)
        self.standings = {}
        self.kill_after_cut = False

    def registry(self):
        return Registry(model="athena", standings=self.standings)

    def folder_of(self, version):
        return f"/releases/{version}"

    def cut(self, trained, version, places):
        if self.kill_after_cut:
            raise KeyboardInterrupt
        self.standings[version] = standing(version, "candidate", self.gates[0])

    def ship(self, version, places):
        if self.gates.pop(0) in ("first", "better"):
            self.standings[version] = standing(version, "released", self.standings[version].gate)
        return self.standings[version]


@pytest.fixture
def run_trainer(tmp_path, monkeypatch):
    """The loop until it made `releases` releases, in one state folder; its events."""

    def make(world, shelf, *, releases, fail="", **fields):
        settings = TrainerSettings(
            network="ws://127.0.0.1:1", hub=f"file://{tmp_path}/hub", state=tmp_path / "state", model_name="athena",
            devices="cpu:1", min_datasets=1, settle_blocks=3, look_blocks=2, releases=releases, **fields,
        )  # fmt: skip
        monkeypatch.setattr(trainer, "join_subnet", lambda _: Member(None, VALIDATOR, world, world))
        monkeypatch.setattr(trainer, "genuine", lambda signed: (each.sheet for each in signed))
        monkeypatch.setattr(trainer, "Releases", lambda *_: shelf)
        monkeypatch.setattr(trainer, "read_trained", lambda folder: folder)
        command = lambda run, events: [sys.executable, "-c", RUN, str(run.folder), fail]  # noqa: E731
        monkeypatch.setattr(trainer, "command_of", command)
        trainer.train(settings, EventLog(tmp_path / "events.jsonl"))
        return [e for e in read_events(tmp_path / "events.jsonl") if e["event"].startswith("trainer.")]

    return make


def named(events, name):
    return [event for event in events if event["event"] == name]


def test_new_winners_grow_the_trunk_and_every_stage_becomes_a_release(run_trainer, tmp_path):
    world, shelf = World({1: 0, 2: 0}), Shelf(["first", "better"])
    events = run_trainer(world, shelf, releases=1)
    assert [e["version"] for e in named(events, "trainer.released")] == ["0.1.0"]
    world.datasets[3] = world.block + 10
    events = run_trainer(world, shelf, releases=2)
    assert [e["version"] for e in named(events, "trainer.released")] == ["0.1.0", "0.2.0"]
    assert [e["datasets"] for e in named(events, "trainer.extended")] == [2, 1]
    assert [e["run"] for e in named(events, "trainer.branched")] == ["athena-0000010", "athena-0000020"]
    assert len(stages_of(tmp_path / "state" / "athena")) == 2


def test_one_that_the_gate_holds_is_no_release_and_its_version_is_used_again(run_trainer, tmp_path):
    world, shelf = World({1: 0}), Shelf(["first", "worse", "better"])
    run_trainer(world, shelf, releases=1)
    world.datasets |= {2: world.block, 3: world.block + 400}
    events = run_trainer(world, shelf, releases=2)
    assert [e["version"] for e in named(events, "trainer.held")] == ["0.2.0"]
    assert [e["version"] for e in named(events, "trainer.released")] == ["0.1.0", "0.2.0"]
    with RunTable(tmp_path / "state" / RUNS_FILE) as table:
        assert table.run("athena-0000020").result == "held as 0.2.0: worse than the release before it"


def test_a_release_begun_before_a_kill_keeps_its_version(run_trainer):
    world, shelf = World({1: 0}), Shelf(["first"])
    shelf.kill_after_cut = True
    with pytest.raises(KeyboardInterrupt):
        run_trainer(world, shelf, releases=1)
    shelf.kill_after_cut = False
    shelf.standings["0.7.0"] = standing("0.7.0", "released")  # by a person meanwhile
    events = run_trainer(world, shelf, releases=1)
    assert [e["version"] for e in named(events, "trainer.released")] == ["0.1.0"]


def test_the_version_after_the_greatest_that_left_this_machine():
    def registry(**states):
        found = [standing(name[1:].replace("_", "."), state) for name, state in states.items()]
        return Registry(model="athena", standings={each.version: each for each in found})

    assert trainer.next_version(registry(), "0.1.0") == "0.1.0"
    assert trainer.next_version(registry(v0_1_0="candidate"), "0.1.0") == "0.1.0"
    assert trainer.next_version(registry(v0_9_0="released", v0_10_0="yanked", v0_11_0="candidate"), "0.1.0") == "0.11.0"


def test_a_trunk_that_failed_ends_the_trainer_with_what_to_do(run_trainer):
    with pytest.raises(TrunkFailed, match=r"the loss is nan.*athena runs resume athena"):
        run_trainer(World({1: 0}), Shelf([]), releases=1, fail="the loss is nan")
