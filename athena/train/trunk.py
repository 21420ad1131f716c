"""Continuous training as folders: a trunk that grows by stages of new data, and branches cut from it. No torch here.

A trunk trains at a stable learning rate and can always go on. A branch starts from one of its checkpoints and leads the
learning rate to zero; what comes out is what a release is made of (warmup-stable-decay, Hu et al. 2024).

    trunk.json                          what it is, written first
    stages/0000/inputs.json             datasets of a stage; beside it mixture/ and tokens/, or nothing.json
    tokenizer/ initial/ before.json     made of the first stage, and the same for ever
    checkpoints/step-N/                 beside metrics.jsonl

A branch's folder holds branch.json, `from/` (the trunk's checkpoint, which may be gone from the trunk by then), its own
checkpoints/, and trained.json when it is done.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from athena.durable import write_file
from athena.errors import BadInput, Conflict, NotFound
from athena.optout import LeftOut
from athena.protocol import Noun
from athena.train.folders import staged
from athena.train.mixture import AcceptedDataset, canonical_order
from athena.train.runs_record import Run, RunSpec
from athena.train.runs_table import RunTable
from athena.train.trackers import TrackerName

TRUNK, BRANCH, INPUTS, NOTHING = "trunk.json", "branch.json", "inputs.json", "nothing.json"
FROM = "from"
_STEP = re.compile(r"step-(\d{8})")
NounType = TypeVar("NounType", bound=Noun)


class RunSettings(Noun):
    """What a model is, besides its data."""

    preset: str
    seed: int = 0
    max_miner_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The most of a stage that one miner may supply; with fewer miners than fit, an equal share."""
    decay_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of a branch's steps, counted from the trunk's first, in which the learning rate falls to zero."""


class TrunkInputs(Noun):
    """trunk.json. Where the datasets and the evaluation pack lie may differ from machine to machine; the rest not."""

    settings: RunSettings
    hub: str
    eval_pack: str
    tracker: TrackerName = "none"


class StageInputs(Noun):
    """inputs.json of a stage: written first, so that a restart trains on the data that the stage began with."""

    datasets: tuple[AcceptedDataset, ...]
    left_out: tuple[str, ...] = ()
    """Domains whose pages are not trained on."""
    block: Annotated[int, Field(ge=0)] = 0
    """The chain's newest block then: for the stage after it, incentive counts from there on."""


class Nothing(Noun):
    """nothing.json: why a stage holds no document to train on. The trunk is the same without it."""

    reason: str


class BranchInputs(Noun):
    """branch.json. `trunk` is that folder; the branch anneals in `decay_steps` steps after the trunk's `step`."""

    trunk: str
    step: Annotated[int, Field(ge=1)]
    decay_steps: Annotated[int, Field(ge=1)]


def begin_trunk(folder: Path, inputs: TrunkInputs) -> None:
    """Decides what the trunk is, once. Raises Conflict where it is another already."""
    if (folder / TRUNK).exists() and read_noun(folder / TRUNK, TrunkInputs).settings != inputs.settings:
        raise Conflict(f"{folder} holds a trunk of other settings", remedy="choose another model name or state")
    write_file(folder / TRUNK, inputs.canonical())


def add_stage(folder: Path, accepted: Iterable[AcceptedDataset], left_out: LeftOut, block: int = 0) -> Path:
    """Decides the data of a trunk's next stage, at a block; its folder. Raises NotFound when none is paid."""
    datasets = tuple(d for d in canonical_order(accepted) if d.incentive > 0)
    if not datasets:
        raise NotFound("no dataset is accepted yet", remedy="wait until validators have set weights for a miner")
    stage = folder / "stages" / f"{len(stages_of(folder)):04d}"
    inputs = StageInputs(datasets=datasets, left_out=tuple(sorted(left_out.domains)), block=block)
    write_file(stage / INPUTS, inputs.canonical())
    return stage


def stages_of(folder: Path) -> list[Path]:
    """The folders of a trunk's stages, those without a document included, in order."""
    return sorted(path.parent for path in (folder / "stages").glob(f"*/{INPUTS}"))


def datasets_of(folder: Path) -> set[str]:
    """The roots of all datasets that a trunk was ever given."""
    return {d.dataset.root for stage in stages_of(folder) for d in read_noun(stage / INPUTS, StageInputs).datasets}


def last_block(folder: Path) -> int | None:
    """The block at which a trunk got its last stage; None before the first."""
    stages = stages_of(folder)
    return read_noun(stages[-1] / INPUTS, StageInputs).block if stages else None


def trunk_spec(folder: Path, name: str, devices: int) -> RunSpec:
    """How the trunk stands in the table of runs; another one with each stage."""
    inputs = read_noun(folder / TRUNK, TrunkInputs)
    stages = stages_of(folder)
    return RunSpec(
        name=name,
        kind="trunk",
        folder=str(folder),
        devices=devices,
        config=inputs.settings.model_dump(mode="json"),
        lineage={
            "stages": len(stages),
            "datasets": len(datasets_of(folder)),
            "inputs": [read_noun(stage / INPUTS, StageInputs).digest()[:16] for stage in stages],
        },
    )


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint of a trunk or branch."""
    return max((step for step, _ in _checkpoints(folder)), default=None)


def cut_branch(
    table: RunTable, trunk: Run, *, now: float, decay_share: float | None = None, block: int | None = None
) -> RunSpec:
    """Queues a branch from the trunk's newest checkpoint, and keeps that checkpoint for it.

    The same again is the same branch. `block` is noted where the branch is cut on a schedule. Raises BadInput where
    `trunk` is none, Conflict before its first checkpoint, or where a branch from there decays in another way.
    """
    if trunk.spec.kind != "trunk":
        raise BadInput(f"{trunk.name} is a {trunk.spec.kind} run", remedy="name a trunk: see `athena runs list`")
    step = newest_step(trunk.folder)
    if step is None:
        raise Conflict(f"{trunk.name} has no checkpoint yet", remedy="wait for its first")
    settings = read_noun(trunk.folder / TRUNK, TrunkInputs).settings
    share = settings.decay_share if decay_share is None else decay_share
    decay_steps = max(1, round(step * share / (1 - share)))
    name = f"{trunk.name}-{step:07d}"
    folder = trunk.folder.parent / "branches" / name
    if not (folder / BRANCH).exists():
        _keep_checkpoint(
            trunk.folder, BranchInputs(trunk=str(trunk.folder), step=step, decay_steps=decay_steps), folder
        )
    kept = read_noun(folder / BRANCH, BranchInputs)
    if kept.decay_steps != decay_steps:
        raise Conflict(f"{name} anneals in {kept.decay_steps} steps", remedy="cut the next one from a later checkpoint")
    lineage = {**trunk.spec.lineage, "branch_step": step} | ({} if block is None else {"block": block})
    spec = RunSpec(
        name=name, kind="branch", folder=str(folder), devices=trunk.spec.devices, parent=trunk.name,
        config={**trunk.spec.config, "steps": step + decay_steps, "decay_steps": decay_steps}, lineage=lineage,
    )  # fmt: skip
    if name not in {run.name for run in table.runs()}:
        table.add(spec, now=now)
    return spec


def _keep_checkpoint(trunk: Path, inputs: BranchInputs, folder: Path) -> None:
    """Makes a branch's folder, with hard links to the checkpoint: the trunk removes its own names in time.

    Raises Conflict where the trunk removed it just now.
    """
    source = dict(_checkpoints(trunk))[inputs.step]
    with staged(folder) as out:
        for path in sorted(source.rglob("*")):
            target = out / FROM / source.name / path.relative_to(source)
            if path.is_dir():
                target.mkdir(parents=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, target)
            except FileNotFoundError as error:
                raise Conflict(f"{source} is gone", remedy="ask again: there is a newer checkpoint") from error
        (out / BRANCH).write_bytes(inputs.canonical())


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after so many steps, as the loop names it."""
    return f"step-{step:08d}"


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    found = (folder / "checkpoints").glob("step-*/checkpoint.json")
    return sorted((int(m[1]), path.parent) for path in found if (m := _STEP.fullmatch(path.parent.name)))


def read_noun(file: Path, kind: type[NounType]) -> NounType:
    """A noun that a run left in a file. Raises NotFound, BadInput."""
    if not file.exists():
        raise NotFound(f"{file} is not there yet")
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} is damaged: {error}", remedy="remove the run's folder and start again") from error
