"""Finished chunks of a refinement on disk: what a run that was killed need not do again.

<parts>/job.json                    what is being made of what; parts of anything else are removed
<parts>/00003/000017.parquet        rows of a chunk, where it has any
<parts>/00003/000017.json           its counts and examples; its existence proves the rows
<parts>/00003/end.json              the source is done: how many chunks it has, and what its reader rejected
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from athena.durable import finish, write_file
from athena.refine.flow import EXAMPLES_PER_REASON, Example, Flow, joined
from athena.refine.manifest import ROW_SCHEMA, parquet_writer
from athena.refine.pool import Outcome
from athena.refine.recipe import Document

CHUNK_RECORDS = 256
"""A run of consecutive records of one source, the unit of progress: a few seconds of work."""
CHUNK_TEXT_CHARS = 16 << 20
"""A chunk with more text than this ends early."""
_URL_CHARS = 300


@dataclass
class Chunk:
    """A chunk on the way: what the recipe made of consecutive records."""

    documents: list[Document] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    chars: int = 0

    @property
    def records(self) -> int:
        return len(self.documents) + self.rejected.total()

    @property
    def full(self) -> bool:
        return self.records >= CHUNK_RECORDS or self.chars >= CHUNK_TEXT_CHARS

    def add(self, outcome: Outcome) -> None:
        result = outcome.result
        if isinstance(result, Document):
            self.documents.append(result)
            self.chars += len(result.row["text"])
            return
        self.rejected[result.reason] += 1
        examples = self.examples.setdefault(result.reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            examples.append(Example(outcome.url[:_URL_CHARS], result.excerpt))


@dataclass(frozen=True)
class Counts:
    """Of a chunk or a source: records = rows + all rejected."""

    rows: int
    rejected: Counter[str]

    @property
    def records(self) -> int:
        return self.rows + self.rejected.total()


@dataclass(frozen=True)
class SourceParts:
    """The parts of one source: its first chunks, as many as are done."""

    folder: Path

    @property
    def done(self) -> bool:
        return self._end.exists()

    @property
    def chunks(self) -> int:
        """How many chunks are done."""
        return sum(1 for _ in self._read_chunks())

    def counts(self) -> Counts:
        """Of what is done; without what the reader rejected, as long as the source is not done."""
        rows, rejected = 0, Counter[str]()
        for chunk in self._read_chunks():
            rows += chunk["rows"]
            rejected.update(chunk["rejected"])
        if self.done:
            rejected.update(json.loads(self._end.read_bytes())["rejected"])
        return Counts(rows, rejected)

    def store(self, index: int, chunk: Chunk) -> None:
        if chunk.documents:
            temporary = self.folder / f"{index:06}.part"
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with parquet_writer(temporary) as writer:
                writer.write_table(table_of(chunk.documents))
            finish(temporary, self._rows_file(index))
        content = {
            "rows": len(chunk.documents),
            "rejected": dict(chunk.rejected),
            "examples": {reason: [asdict(e) for e in found] for reason, found in chunk.examples.items()},
        }
        write_file(self._counts_file(index), json.dumps(content).encode())

    def end(self, chunks: int, rejected: Counter[str]) -> None:
        write_file(self._end, json.dumps({"chunks": chunks, "rejected": dict(rejected)}).encode())

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """The rows of all chunks that are done, in order."""
        files = [self._rows_file(i) for i, chunk in enumerate(self._read_chunks()) if chunk["rows"]]
        if not files:
            empty = ROW_SCHEMA.empty_table()
            return empty if columns is None else empty.select(columns)
        return pa.concat_tables([pq.read_table(file, columns=columns, use_threads=False) for file in files])

    def flow(self) -> Flow:
        def of(chunk: dict[str, Any]) -> Flow:
            examples = {why: tuple(Example(**e) for e in found) for why, found in chunk["examples"].items()}
            return Flow(chunk["rejected"], examples)

        reader = json.loads(self._end.read_bytes())["rejected"] if self.done else {}
        return joined([*map(of, self._read_chunks()), Flow(reader, {})])

    @property
    def _end(self) -> Path:
        return self.folder / "end.json"

    def _rows_file(self, index: int) -> Path:
        return self.folder / f"{index:06}.parquet"

    def _counts_file(self, index: int) -> Path:
        return self.folder / f"{index:06}.json"

    def _read_chunks(self) -> Iterator[dict[str, Any]]:
        index = 0
        while (file := self._counts_file(index)).exists():
            yield json.loads(file.read_bytes())
            index += 1


@dataclass(frozen=True)
class Parts:
    """The parts of all sources of a job, in a folder beside its dataset."""

    folder: Path

    @classmethod
    def beside(cls, out: Path) -> Parts:
        return cls(out.with_name(f"{out.name}.parts"))

    def open(self, identity: dict[str, str]) -> None:
        """Removes the parts unless they are of the job with this identity."""
        content = json.dumps({**identity, "chunk": f"{CHUNK_RECORDS} records, {CHUNK_TEXT_CHARS} chars"}).encode()
        job = self.folder / "job.json"
        if not job.exists() or job.read_bytes() != content:
            self.remove()
            write_file(job, content)

    def of(self, source: int) -> SourceParts:
        return SourceParts(self.folder / f"{source:05}")

    def flow(self, sources: int) -> Flow:
        """What happened to the records of the first so many sources, near-duplicates not looked for."""
        return joined(self.of(index).flow() for index in range(sources))

    def remove(self) -> None:
        """The identity goes first: a folder that is half removed belongs to no job."""
        (self.folder / "job.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def table_of(documents: Iterable[Document]) -> pa.Table:
    """Rows with ROW_SCHEMA, in order."""
    rows = [{**d.row, "minhash": None if d.minhash is None else d.minhash.tolist()} for d in documents]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)
