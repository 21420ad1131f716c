"""Runs a recipe over sources: one WARC for a validator, a whole shard or anything else, resumable, for a miner."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from athena.crawl import Crawl
from athena.events import EventLog
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import Manifest, Task
from athena.refine.assembly import DUPLICATE, Label, assemble, finished_manifest, signatures
from athena.refine.flow import Flow
from athena.refine.parts import Chunk, Parts, SourceParts, table_of
from athena.refine.pool import Pool
from athena.refine.recipe import Document, Recipe
from athena.refine.records import Record
from athena.refine.sources.opening import Source
from athena.refine.sources.warc import WarcSource
from athena.refine.text.minhash import first_of_each
from athena.refine.worker import NO_VERDICT, WITHIN_A_GIB, FailSafe

_BEAT_SECONDS = 1.0

Heartbeat = Callable[[dict[str, int]], None]
Finished = Callable[[Manifest, Flow], None]


@dataclass(frozen=True)
class WarcResult:
    """What a recipe made of one WARC. `table` has ROW_SCHEMA, rows by offset; records = rows + all rejected."""

    path: str
    table: pa.Table
    rejected: dict[str, int]
    undecided: tuple[int, ...] = ()
    """Offsets of the records that count under a `none.` reason: this machine could not tell what becomes of them."""

    @property
    def records(self) -> int:
        return int(self.table.num_rows) + sum(self.rejected.values())


@dataclass(frozen=True)
class Work:
    """What is to be done to which sources, and by how many processes. Those change no byte of the result."""

    recipe: Recipe
    sources: Sequence[Source]
    left_out: LeftOut = NOTHING_LEFT_OUT
    workers: int = 1
    fail_safe: FailSafe = WITHIN_A_GIB

    def identity(self, label: Label) -> dict[str, str]:
        """Names the parts that this work makes."""
        return {"task": label.task_id, "recipe": self.recipe.hash, "left_out": self.left_out.digest}

    def pool(self) -> Pool:
        return Pool(self.recipe, workers=self.workers, left_out=self.left_out, fail_safe=self.fail_safe)


@dataclass(frozen=True)
class CrawlFile:
    """The place of a WARC file in a crawl."""

    crawl: Crawl
    name: str

    def open(self) -> BinaryIO:
        return self.crawl.open(self.name)


def _silent(_: dict[str, int]) -> None:
    pass


def refine_warc(
    path: str,
    recipe: Recipe,
    crawl: Crawl,
    *,
    left_out: LeftOut = NOTHING_LEFT_OUT,
    heartbeat: Heartbeat = _silent,
) -> WarcResult:
    """One WARC, near-duplicates inside it removed. A file that is no WARC yields no rows and one `not-a-warc`.

    Pages that are `left_out` are not looked at, whatever the recipe: they count as `opted-out`. Pages that could not
    be decided count under reasons that begin with `none.`.

    Raises what the crawl raises: NotFound, Unavailable, TooLarge.
    """
    rejected: Counter[str] = Counter()
    documents: list[Document] = []
    undecided: list[int] = []
    pulse = _Pulse(heartbeat, lambda: {"records": len(documents) + rejected.total(), "rows": len(documents)})
    with Pool(recipe, left_out=left_out) as pool:
        for outcome in pool.outcomes(WarcSource(CrawlFile(crawl, path)).records(rejected), pulse.beat):
            if isinstance(outcome.result, Document):
                documents.append(outcome.result)
            else:
                rejected[outcome.result.reason] += 1
                if outcome.result.reason in NO_VERDICT:
                    undecided.append(outcome.offset)
    table = table_of(documents)
    kept = np.array(first_of_each(signatures(table)), dtype=bool)
    rejected[DUPLICATE] += int((~kept).sum())
    return WarcResult(path, table.filter(pa.array(kept)), dict(sorted((+rejected).items())), tuple(undecided))


def refine_task(
    task: Task,
    hotkey: str,
    recipe: Recipe,
    crawl: Crawl,
    out: Path,
    *,
    events: EventLog,
    left_out: LeftOut = NOTHING_LEFT_OUT,
    heartbeat: Heartbeat = _silent,
    workers: int = 1,
) -> Manifest:
    """Refines a task's shard into `out`, as `refine_sources` does. Raises what the crawl raises."""
    sources = [WarcSource(CrawlFile(crawl, path)) for path in task.shard.warc_paths]
    work = Work(recipe, sources, left_out, workers)
    return refine_sources(work, Label(task.id, hotkey, task.rule_version), out, events=events, heartbeat=heartbeat)


def refine_sources(
    work: Work,
    label: Label,
    out: Path,
    *,
    events: EventLog,
    heartbeat: Heartbeat = _silent,
    finished: Finished | None = None,
) -> Manifest:
    """Refines sources into `out` (data.parquet, then manifest.json) and returns the manifest.

    Killed at any moment and called again, it goes on after the last finished chunk and ends with the same bytes,
    whatever the number of workers. Finished chunks wait in a folder beside `out`, named `<out>.parts`. `heartbeat`
    gets the counts so far about every second (records, rows, finished warcs; within a source also how many workers are
    busy and how many were replaced); what it raises ends the work. `finished` is called once the dataset is
    whole and before the parts go, again if it was interrupted. Raises what the sources raise.
    """
    if finished_manifest(out, label, work.recipe) is None:
        parts = Parts.beside(out)
        parts.open(work.identity(label))
        refine_parts(work, label, parts, range(len(work.sources)), events=events, heartbeat=heartbeat)
    return finish_sources(work, label, out, finished=finished)


def finish_sources(work: Work, label: Label, out: Path, *, finished: Finished | None = None) -> Manifest:
    """Makes the dataset once all sources are done, and removes their parts; `finished` as in `refine_sources`."""
    parts = Parts.beside(out)
    manifest = finished_manifest(out, label, work.recipe)
    if manifest is None:
        manifest = assemble(parts, len(work.sources), label, work.recipe, out)
    if finished is not None and parts.folder.exists():
        finished(manifest, Flow(manifest.rejected, parts.flow(len(work.sources)).examples))
    parts.remove()
    return manifest


def refine_parts(
    work: Work,
    label: Label,
    parts: Parts,
    indices: Sequence[int],
    *,
    events: EventLog,
    heartbeat: Heartbeat = _silent,
) -> None:
    """Makes the parts of the sources with these indices, as far as they are not there yet."""
    resumed = [index for index in indices if parts.of(index).chunks]
    if resumed:
        done = sum(parts.of(index).done for index in indices)
        events.emit("refine.resumed", task=label.task_id, warcs=done, of=len(indices))
    progress = Counter(records=0, rows=0, warcs=0)
    with work.pool() as pool:
        for index in indices:
            source, own = work.sources[index], parts.of(index)
            new = not own.done
            if new:
                events.emit("refine.warc.start", task=label.task_id, warc=source.name)
                _refine_source(source, own, pool, heartbeat, progress)
            counts = own.counts()
            progress.update(records=counts.records, rows=counts.rows, warcs=1)
            heartbeat(dict(progress))
            if new:
                events.emit(
                    "refine.warc.done", task=label.task_id, warc=source.name, records=counts.records,
                    kept=counts.rows, rejected=dict(sorted(counts.rejected.items())),
                )  # fmt: skip


def _refine_source(
    source: Source, parts: SourceParts, pool: Pool, heartbeat: Heartbeat, progress: Counter[str]
) -> None:
    """Makes the chunks that are missing. The reader goes past the records of those that are there."""
    rejected: Counter[str] = Counter()
    done, chunks, chunk = parts.counts(), parts.chunks, Chunk()
    rows, decided = done.rows, done.records

    def counts() -> dict[str, int]:
        return {
            "records": progress["records"] + decided + rejected.total(),
            "rows": progress["rows"] + rows,
            "warcs": progress["warcs"],
            "busy": pool.busy,
            "replaced": pool.replaced,
        }

    pulse = _Pulse(heartbeat, counts)
    for outcome in pool.outcomes(_after(done.records, source.records(rejected), pulse), pulse.beat):
        chunk.add(outcome)
        decided += 1
        rows += isinstance(outcome.result, Document)
        if chunk.full:
            parts.store(chunks, chunk)
            chunks, chunk = chunks + 1, Chunk()
    if chunk.records:
        parts.store(chunks, chunk)
        chunks += 1
    parts.end(chunks, rejected)


def _after(count: int, records: Iterator[Record], pulse: _Pulse) -> Iterator[Record]:
    for index, record in enumerate(records):
        if index >= count:
            yield record
        else:
            pulse.beat()


class _Pulse:
    """Calls a heartbeat at most once a second, however often it beats."""

    def __init__(self, heartbeat: Heartbeat, counts: Callable[[], dict[str, int]]) -> None:
        self._heartbeat, self._counts = heartbeat, counts
        self._next = time.monotonic() + _BEAT_SECONDS

    def beat(self) -> None:
        if time.monotonic() >= self._next:
            self._heartbeat(self._counts())
            self._next = time.monotonic() + _BEAT_SECONDS
