"""One model's continuous training over the table of runs: when its trunk grows, when a branch is cut. No torch here.

Everything it decides lies in the trunk's folder or in the table before anything follows from it, so a trainer that is
killed and started again decides nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from athena.errors import AthenaError, NotFound
from athena.optout import LeftOut
from athena.train.mixture import AcceptedDataset
from athena.train.runs_record import Run
from athena.train.runs_table import RunTable
from athena.train.trunk import (
    NOTHING,
    Nothing,
    TrunkInputs,
    add_stage,
    begin_trunk,
    cut_branch,
    datasets_of,
    last_block,
    newest_step,
    read_noun,
    stages_of,
    trunk_spec,
)

RELEASING = "releasing "
"""How the result of a branch begins while a release is made of it; the version follows."""


class TrunkFailed(AthenaError):
    """The trunk ended with an error that a restart does not mend: nothing new can be trained on it."""

    code = "trunk-failed"


class Line:
    """The trunk `name` in `state/name`, and its branches. Raises Conflict where that folder is another trunk's."""

    def __init__(self, table: RunTable, state: Path, name: str, inputs: TrunkInputs, devices: int) -> None:
        self._table = table
        self._name = name
        self._devices = devices
        self.folder = state / name
        begin_trunk(self.folder, inputs)
        self._enter()

    @property
    def trunk(self) -> Run:
        """The trunk's row. Raises NotFound before the first stage, TrunkFailed."""
        run = self._table.run(self._name)
        if run.state == "failed":
            remedy = f"see {run.folder / 'run.log'}, then: athena runs resume {run.name}"
            raise TrunkFailed(f"{run.name} failed: {run.error}", remedy=remedy)
        return run

    @property
    def idle(self) -> bool:
        """Whether the trunk may take a stage: it has trained on all that it was given."""
        return not stages_of(self.folder) or self.trunk.state == "done"

    def unseen(self, accepted: Iterable[AcceptedDataset]) -> list[AcceptedDataset]:
        """Those of the datasets that the trunk was never given."""
        seen = datasets_of(self.folder)
        return [dataset for dataset in accepted if dataset.dataset.root not in seen]

    @property
    def last_block(self) -> int | None:
        """The block at which the trunk got its last stage; None before the first."""
        return last_block(self.folder)

    def extend(self, accepted: Iterable[AcceptedDataset], left_out: LeftOut, block: int = 0) -> None:
        """Gives the trunk, which is idle, a stage of new data, at a block. Raises NotFound when none of it is paid."""
        add_stage(self.folder, accepted, left_out, block)
        self._enter()

    def nothing(self) -> Iterator[str]:
        """Why stages came to hold no document, each told once."""
        for stage in stages_of(self.folder):
            told = stage / f"{NOTHING}.told"
            if (stage / NOTHING).exists() and not told.exists():
                yield read_noun(stage / NOTHING, Nothing).reason
                told.touch()

    def branch_is_due(self, block: int, every_blocks: int) -> bool:
        """Whether it is time to cut a branch: at the end of each stage, or every so many blocks where that is not 0.

        Never twice from one step of the trunk.
        """
        step = newest_step(self.folder)
        cut = self._branches()
        if step is None or step <= max(_numbers(cut, "branch_step"), default=0):
            return False
        if every_blocks == 0:
            return self.trunk.state == "done"
        return block - max(_numbers(cut, "block"), default=-every_blocks) >= every_blocks

    def branch(self, block: int) -> Run:
        """Cuts a branch from the trunk's newest checkpoint."""
        spec = cut_branch(self._table, self.trunk, block=block, now=time.time())
        return self._table.run(spec.name)

    def to_release(self) -> list[Run]:
        """The branches that are done and of which no release was made yet, earliest first."""
        return [
            run
            for run in self._branches()
            if run.state == "done" and (run.result is None or run.result.startswith(RELEASING))
        ]

    def settle(self, branch: Run, result: str) -> None:
        """Notes what became of a branch."""
        self._table.settle(branch.name, result)

    def released(self) -> int:
        """How many of the branches were released."""
        return sum((run.result or "").startswith("released ") for run in self._branches())

    def _branches(self) -> list[Run]:
        return [run for run in self._table.runs() if run.spec.parent == self._name]

    def _enter(self) -> None:
        """The trunk's row says what its folder holds: also after a kill between the two."""
        if not stages_of(self.folder):
            return
        spec = trunk_spec(self.folder, self._name, self._devices)
        try:
            run = self._table.run(self._name)
        except NotFound:
            self._table.add(spec, now=time.time())
            return
        if run.spec.lineage != spec.lineage and run.state == "done":
            self._table.extend(spec, now=time.time())


def _numbers(runs: Iterable[Run], field: str) -> list[int]:
    """A field of the runs' lineage, of those that have it."""
    return [value for run in runs if isinstance(value := run.spec.lineage.get(field), int)]
