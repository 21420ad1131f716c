"""Which windows every process reads at every step: a pure function of (seed, step), for any number of processes.

New data comes in as a later stage and changes no earlier step, so that a run goes on as its data grows.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field

from athena.errors import BadInput, Conflict
from athena.protocol import Hex64, Noun, canonical_json
from athena.train.tokens import Batch, TokenStream


class LoaderState(Noun):
    """The data's part of a checkpoint: `step` batches are read, and `fingerprint` says of what and in which order."""

    step: Annotated[int, Field(ge=0)]
    fingerprint: Hex64


class Loader:
    """The batches of a run, of which this process reads its part.

    `stages` are (first step, tokens), by rising steps from 0 on, all of one window length and one end token.
    `batch_windows_of` tells the windows of a step over all processes: at least one. Raises BadInput for stages that do
    not follow each other, and for a rank that is none.
    """

    def __init__(
        self,
        stages: Sequence[tuple[int, TokenStream]],
        seed: int,
        batch_windows_of: Callable[[int], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        firsts = [first for first, _ in stages]
        if not firsts or firsts[0] != 0 or firsts != sorted(set(firsts)):
            raise BadInput(f"stages from steps {firsts}", remedy="begin with step 0 and a new step for each stage")
        if len({(stream.length, stream.info.end, stream.info.tokenizer_sha256) for _, stream in stages}) != 1:
            raise BadInput("stages of other window lengths or tokenizers", remedy="tokenize all data alike")
        if not 0 <= rank < world_size:
            raise BadInput(f"rank {rank} of {world_size}")
        self.stages = tuple(stages)
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self._firsts = firsts
        self._batch_windows_of = batch_windows_of
        self._read = [0]  # windows before each step, as far as somebody asked

    @property
    def length(self) -> int:
        return self.stages[0][1].length

    def stream(self, step: int) -> TokenStream:
        """The tokens that a step reads from."""
        return self.stages[self._stage(step)][1]

    def global_batch(self, step: int) -> list[int]:
        """The windows of a step over all processes, in order."""
        stage = self._stage(step)
        first, stream = self.stages[stage]
        begun = self._windows_before(step) - self._windows_before(first)
        return stream.windows(f"{self.seed}:{stage}", begun, self._batch_windows_of(step))

    def batches(self, step: int) -> list[int]:
        """This process's windows of a step: a run of the global batch, so that all ranks' runs make it up in order."""
        windows = self.global_batch(step)
        bound = [len(windows) * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        return windows[bound[0] : bound[1]]

    def read(self, step: int, windows: Sequence[int]) -> Batch:
        """The tokens of some of a step's windows."""
        return self.stream(step).batch(windows)

    def num_labels(self, step: int) -> int:
        """Labels that count in the step's global batch, which its loss is divided by."""
        return self.stream(step).num_labels(self.global_batch(step))

    def epochs(self, step: int) -> float:
        """How often the stage that a step belongs to has been read before it."""
        stage = self._stage(step)
        first, stream = self.stages[stage]
        return (self._windows_before(step) - self._windows_before(first)) / stream.num_windows

    def state(self, step: int) -> LoaderState:
        """After `step` steps. The fingerprint leaves out later stages, and on how many processes the run is."""
        begun = [[first, stream.info.digest(), stream.length] for first, stream in self.stages if first < max(step, 1)]
        told = canonical_json([self.seed, step, self._windows_before(step), begun])
        return LoaderState(step=step, fingerprint=hashlib.sha256(told).hexdigest())

    def check(self, state: LoaderState) -> None:
        """Raises Conflict unless this loader read the same data in the same order up to the state's step."""
        if self.state(state.step) != state:
            raise Conflict(
                f"the run read other data up to step {state.step}",
                remedy="go on with the stages, the seed and the batch sizes that it began with",
            )

    def _stage(self, step: int) -> int:
        if step < 0:
            raise BadInput(f"there is no step {step}")
        return bisect_right(self._firsts, step) - 1

    def _windows_before(self, step: int) -> int:
        while len(self._read) <= step:
            self._read.append(self._read[-1] + self._batch_windows_of(len(self._read) - 1))
        return self._read[step]
