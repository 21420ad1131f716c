"""Runs a recipe over WARC files: one for a validator, a whole shard, resumable, for a miner."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from athena.crawl import Crawl
from athena.durable import finish, sha256_of, write_file
from athena.errors import BadInput, TooLarge
from athena.events import EventLog
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import FileEntry, Manifest, Task, merkle_root
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, ROW_SCHEMA, leaves, parquet_writer
from athena.refine.minhash import Signature, first_of_each
from athena.refine.recipe import Document, Recipe, Rejected
from athena.refine.records import read_records

DUPLICATE = "duplicate"
NOT_A_WARC = "not-a-warc"
OPTED_OUT = "opted-out"
_BEAT_SECONDS = 1.0

Heartbeat = Callable[[dict[str, int]], None]


@dataclass(frozen=True)
class WarcResult:
    """What a recipe made of one WARC. `table` has ROW_SCHEMA, rows by offset; records = rows + all rejected."""

    path: str
    table: pa.Table
    rejected: dict[str, int]

    @property
    def records(self) -> int:
        return int(self.table.num_rows) + sum(self.rejected.values())


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

    Pages that are `left_out` are not looked at, whatever the recipe: they count as `opted-out`.

    Raises what the crawl raises: NotFound, Unavailable, TooLarge.
    """
    result = _refine_pages(path, recipe, crawl, left_out, heartbeat)
    kept = np.array(first_of_each(_signatures(result.table)), dtype=bool)
    rejected = Counter(result.rejected)
    rejected[DUPLICATE] += int((~kept).sum())
    return WarcResult(path, result.table.filter(pa.array(kept)), dict(sorted((+rejected).items())))


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
) -> Manifest:
    """Refines a task's shard into `out` (data.parquet, then manifest.json) and returns the manifest.

    Pages that are `left_out` are not looked at, as in `refine_warc`.

    Killed at any moment and called again, it goes on after the last finished WARC and ends with the same bytes. The
    finished WARCs wait in a folder beside `out`, named `<out>.parts`. `heartbeat` gets the counts so far about every
    second; what it raises ends the work. Raises what the crawl raises.
    """
    finished = _finished(out, task, hotkey, recipe)
    if finished is not None:
        return finished
    parts = _Parts.open(out, task, recipe, left_out)
    done = parts.done()
    if done:
        events.emit("refine.resumed", task=task.id, warcs=len(done), of=len(task.shard.warc_paths))
    progress: Counter[str] = Counter()
    for index, path in enumerate(task.shard.warc_paths):
        if index not in done:
            events.emit("refine.warc.start", task=task.id, warc=path)
            result = _refine_pages(path, recipe, crawl, left_out, lambda now: heartbeat(dict(progress + Counter(now))))
            parts.store(index, result)
        counts = parts.counts(index)
        progress.update(records=counts.records, rows=counts.rows, warcs=1)
        heartbeat(dict(progress))
        if index not in done:
            events.emit(
                "refine.warc.done", task=task.id, warc=path, records=counts.records, kept=counts.rows,
                rejected=counts.rejected,
            )  # fmt: skip
    manifest = _assemble(task, hotkey, recipe, parts, out)
    shutil.rmtree(parts.folder)
    return manifest


def _refine_pages(path: str, recipe: Recipe, crawl: Crawl, left_out: LeftOut, heartbeat: Heartbeat) -> WarcResult:
    """Every page of a WARC through the recipe, duplicates still inside."""
    rejected: Counter[str] = Counter()
    documents: list[Document] = []
    beat_at = time.monotonic() + _BEAT_SECONDS
    with crawl.open(path) as stream:
        try:
            for record in read_records(stream, path, rejected):
                result = Rejected(OPTED_OUT) if left_out.covers(record.url) else recipe.process(record)
                if isinstance(result, Rejected):
                    rejected[result.reason] += 1
                else:
                    documents.append(result)
                if time.monotonic() >= beat_at:
                    heartbeat({"records": len(documents) + rejected.total(), "rows": len(documents)})
                    beat_at = time.monotonic() + _BEAT_SECONDS
        except TooLarge:
            raise
        except BadInput:  # only the first bytes of a file can raise it
            rejected[NOT_A_WARC] += 1
    return WarcResult(path, _table(documents), dict(sorted(rejected.items())))


def _table(documents: list[Document]) -> pa.Table:
    rows = [{**d.row, "minhash": None if d.minhash is None else d.minhash.tolist()} for d in documents]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def _signatures(table: pa.Table) -> Iterator[Signature | None]:
    for value in table["minhash"]:
        yield value.values.to_numpy() if value.is_valid else None


@dataclass(frozen=True)
class _Counts:
    records: int
    rows: int
    rejected: dict[str, int]


@dataclass(frozen=True)
class _Parts:
    """Finished WARCs of a task: NNNNN.parquet, then NNNNN.json, whose existence proves the first."""

    folder: Path

    @classmethod
    def open(cls, out: Path, task: Task, recipe: Recipe, left_out: LeftOut) -> _Parts:
        """The parts beside `out`; what another task, recipe or opt-out list left there is removed."""
        folder = out.with_name(f"{out.name}.parts")
        identity = json.dumps({"task": task.id, "recipe": recipe.hash, "left_out": left_out.digest}).encode()
        job = folder / "job.json"
        if not job.exists() or job.read_bytes() != identity:
            shutil.rmtree(folder, ignore_errors=True)
            write_file(job, identity)
        return cls(folder)

    def done(self) -> set[int]:
        return {int(path.stem) for path in self.folder.glob("[0-9]*.json")}

    def store(self, index: int, result: WarcResult) -> None:
        temporary = self.folder / f"{index:05}.part"
        with parquet_writer(temporary) as writer:
            writer.write_table(result.table, row_group_size=max(1, result.table.num_rows))
        finish(temporary, self.folder / f"{index:05}.parquet")
        counts = {"records": result.records, "rows": result.table.num_rows, "rejected": result.rejected}
        write_file(self.folder / f"{index:05}.json", json.dumps(counts).encode())

    def counts(self, index: int) -> _Counts:
        return _Counts(**json.loads((self.folder / f"{index:05}.json").read_bytes()))

    def read(self, index: int, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self.folder / f"{index:05}.parquet", columns=columns, use_threads=False)


def _finished(out: Path, task: Task, hotkey: str, recipe: Recipe) -> Manifest | None:
    path = out / MANIFEST_FILE
    if not path.exists():
        return None
    manifest = Manifest.model_validate_json(path.read_bytes())
    if (manifest.task_id, manifest.hotkey, manifest.recipe) == (task.id, hotkey, recipe.ref):
        return manifest
    path.unlink()
    return None


def _assemble(task: Task, hotkey: str, recipe: Recipe, parts: _Parts, out: Path) -> Manifest:
    """The shard's dataset from its parts: near-duplicates go, the first by (path index, offset) stays."""
    indices = range(len(task.shard.warc_paths))
    kept = np.array(first_of_each(s for i in indices for s in _signatures(parts.read(i, ["minhash"]))), dtype=bool)
    rejected: Counter[str] = Counter()
    records = rows = tokens = start = 0
    row_leaves: list[bytes] = []
    temporary = parts.folder / f"{DATA_FILE}.part"
    with parquet_writer(temporary) as writer:
        for index in indices:
            counts, table = parts.counts(index), parts.read(index)
            table = table.filter(pa.array(kept[start : start + counts.rows]))
            start += counts.rows
            records += counts.records
            rejected.update(counts.rejected)
            rejected[DUPLICATE] += counts.rows - table.num_rows
            if not table.num_rows:
                continue
            writer.write_table(table, row_group_size=table.num_rows)
            rows += table.num_rows
            tokens += sum(table["token_count"].to_pylist())
            row_leaves.extend(leaves(table, hotkey))
    out.mkdir(parents=True, exist_ok=True)
    data = out / DATA_FILE
    finish(temporary, data)
    entry = FileEntry(path=DATA_FILE, bytes=data.stat().st_size, sha256=sha256_of(data), rows=rows)
    manifest = Manifest(
        task_id=task.id,
        hotkey=hotkey,
        rule_version=task.rule_version,
        recipe=recipe.ref,
        files=(entry,),
        records=records,
        rows=rows,
        rejected=dict(sorted((+rejected).items())),
        tokens=tokens,
        root=merkle_root(row_leaves),
    )
    write_file(out / MANIFEST_FILE, manifest.canonical())
    return manifest
