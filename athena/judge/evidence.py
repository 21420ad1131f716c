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
from athena.judge import score
from athena.judge.known import KnownRelease
from athena.judge.public_work import PublicWork
from athena.judge.rules import PayRules, Rules
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
    visible_block: int | None = None
    """From which on anyone could read the commitment, and so the data; null where it was never sealed."""

    @property
    def hotkey(self) -> Hotkey:
        return self.commitment.hotkey

    @property
    def key(self) -> str:
        """Names the case in files and in the queue: one miner's commitment to one dataset for one task.

        All empty datasets have one root, so the root alone would not tell two miners apart.
        """
        return f"{self.task.id}-{self.hotkey}-{self.commitment.dataset.root}"

    def may_copy(self, other: Found) -> bool:
        """Whether another's dataset of some of the same WARC files lay open when this one was committed to.

        Of two that were committed to in one block, neither can copy the other, so there is no tie to break.
        """
        opened = other.commit_block if other.visible_block is None else other.visible_block
        files = set(self.task.shard.warc_paths)
        return (
            self.hotkey != other.hotkey
            and opened < self.commit_block
            and not files.isdisjoint(other.task.shard.warc_paths)
        )


@dataclass(frozen=True)
class Rival:
    """A dataset by somebody else that lay open before the case was committed to, as fetched when it was judged.

    A score sheet names it by `commitment`.
    """

    folder: Path
    hotkey: str
    commit_block: int
    task_id: str
    commitment: Commitment | None = None


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

    def arm_seed(self, name: str, number: int, owner: str = "") -> str:
        """The seed of one proxy run, 64 hex characters. Arms that nobody owns are shared by all cases of the task."""
        seed_of = self.seed if owner else self.reference_seed
        return seed_of("arm", name, owner, str(number)).hex()

    def time_factor(self, rules: PayRules) -> float:
        """τ of the work, from the blocks of lease, commitment and deadline."""
        elapsed, limit = (block - self.issued_block for block in (self.commit_block, self.deadline_block))
        median = elapsed if self.median_blocks is None else self.median_blocks
        return score.time_factor(elapsed, median, limit, rules)


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
    def offsets(self) -> list[int]:
        """Offsets of the rows' records in their WARC files, in file order."""
        offsets: list[int] = self.table["warc_offset"].to_pylist()
        return offsets

    @property
    def tokens(self) -> int:
        """Sum of the token counts that the rows claim."""
        return sum(self.table["token_count"].to_pylist())

    def texts(self) -> Iterator[str]:
        """All texts in file order, a batch in memory at a time."""
        for batch in self.table.select(["text"]).to_batches(max_chunksize=1024):
            yield from batch.column("text").to_pylist()

    def drawn_texts(self, seed: bytes, count: int) -> Iterator[str]:
        """Texts of `count` rows (of all, where there are fewer) in drawn order."""
        for index in draw.sample(seed, self.count, count):
            yield self.table["text"][index].as_py()

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
    not answer, as does everything here that is built on it. `public_work(path, places)`
    is what public recipes make of the records at these (offset, length). `known` are the filters of public releases
    that this validator has.
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
    public_work: Callable[[str, Sequence[tuple[int, int]]], list[PublicWork | None]]
    known: tuple[KnownRelease, ...] = ()

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
