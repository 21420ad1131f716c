"""What the gates look at: one verified dataset, the crawl behind it, and the validator's own refinement of one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from athena import draw
from athena.crawl import Crawl
from athena.evalpack import EvalPack
from athena.judge.rules import Rules
from athena.optout import LeftOut
from athena.protocol import Commitment, Hotkey, Manifest, Noun, Task
from athena.refine.recipe import Recipe

_UNDECIDED = b"athena.undecided"


class Found(Noun):
    """One commitment that a lease backs, with the blocks that its judgement depends on.

    `seed_block` lies after the reveal and `block_hash` is its hash: every draw comes from it, but for those that
    `Case.reference_seed` makes.
    """

    commitment: Commitment
    task: Task
    issued_block: int
    deadline_block: int
    commit_block: int
    seed_block: int
    block_hash: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]

    @property
    def hotkey(self) -> Hotkey:
        return self.commitment.hotkey

    @property
    def key(self) -> str:
        """Names the case in files and in the queue: one miner's commitment to one dataset for one task.

        All empty datasets have one root, so the root alone would not tell two miners apart.
        """
        return f"{self.task.id}-{self.hotkey}-{self.commitment.dataset.root}"


@dataclass(frozen=True)
class Rival:
    """An earlier dataset by somebody else, as fetched when it was judged."""

    folder: Path
    hotkey: str
    commit_block: int
    task_id: str


class Case(Found):
    """A commitment to be judged, with what the validator knows of others.

    The seeds of the validator's own arms come from `reference_hash`, the hash of the task's first seed block, so that
    all cases of the task share those arms. `median_blocks`, the task's median time from lease to commitment, and
    `deadline_block` decide the time factor; without a median nobody is late.
    """

    reference_hash: str
    rivals: tuple[Rival, ...] = ()
    median_blocks: int | None = None

    def seed(self, *labels: str) -> bytes:
        """A draw's seed: from the seed block, for this task."""
        return draw.seed_of(self.block_hash, self.task.id, *labels)

    def reference_seed(self, *labels: str) -> bytes:
        """The same for what all cases of the task share."""
        return draw.seed_of(self.reference_hash, self.task.id, *labels)


class Rows:
    """Rows of a dataset whose bytes, schema and Merkle root were checked."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @property
    def count(self) -> int:
        return int(self.table.num_rows)

    def at(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Rows one at a time, in the given order."""
        for index in indices:
            yield self.table.slice(index, 1).to_pylist()[0]

    @property
    def tokens(self) -> int:
        """Sum of the token counts that the rows claim."""
        return sum(self.table["token_count"].to_pylist())

    def texts(self) -> Iterator[str]:
        """All texts in file order, a batch in memory at a time."""
        for batch in self.table.select(["text"]).to_batches(max_chunksize=1024):
            yield from batch.column("text").to_pylist()

    def urls(self) -> Iterator[str]:
        """All addresses in file order."""
        for batch in self.table.select(["url"]).to_batches(max_chunksize=1024):
            yield from batch.column("url").to_pylist()

    def of_warc(self, path: str) -> Rows:
        return Rows(self.table.filter(pc.equal(self.table["warc_path"], path)))

    @cached_property
    def by_offset(self) -> dict[int, str]:
        """Texts by record offset; for rows of one WARC file."""
        offsets = self.table["warc_offset"].to_pylist()
        return dict(zip(offsets, self.texts(), strict=True))

    @property
    def undecided(self) -> frozenset[int]:
        """Offsets of records of which this validator could not tell whether they give a row."""
        return frozenset(json.loads((self.table.schema.metadata or {}).get(_UNDECIDED, b"[]")))


def noting_undecided(table: pa.Table, offsets: Sequence[int]) -> pa.Table:
    """The table with what `Rows.undecided` gives, which a Parquet file keeps."""
    return table.replace_schema_metadata({_UNDECIDED: json.dumps(offsets)})


@dataclass(frozen=True)
class Evidence:
    """Everything that a gate may use. What costs much is made once, when first asked for.

    `left_out` are the domains that the miner had to leave out. `refined(path)` are the validator's own canonical rows
    of a WARC file, without them; it raises Unavailable where the crawl does
    not answer, as does everything here that is built on it.
    """

    case: Case
    rules: Rules
    manifest: Manifest
    rows: Rows
    crawl: Crawl
    pack: EvalPack
    canonical_recipe: Recipe
    left_out: LeftOut
    refined: Callable[[str], Rows]
    rival_rows: Callable[[Rival], Rows]

    def seed(self, *labels: str) -> bytes:
        """A seed for this hotkey's dataset alone."""
        return self.case.seed(self.case.hotkey, *labels)

    @cached_property
    def warc(self) -> str:
        """The WARC file that the set is compared on: the first drawn one with enough canonical tokens, else the first.

        Nobody knows it while the data can still change.
        """
        paths = self.case.task.shard.warc_paths
        order = [paths[i] for i in draw.sample(self.case.seed("warc"), len(paths), len(paths))]
        enough = (path for path in order if self.refined(path).tokens >= self.rules.proxy.min_tokens)
        return next(enough, order[0])

    @cached_property
    def canonical(self) -> Rows:
        """The validator's own canonical rows of `warc`."""
        return self.refined(self.warc)

    @cached_property
    def drawn(self) -> Rows:
        """The dataset's rows of `warc`."""
        return self.rows.of_warc(self.warc)
