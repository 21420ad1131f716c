"""lineage.parquet: every document that a release ate, laid out so that a page or a domain is found in seconds.

Rows are sorted by `host`, the labels of the page's host from the right (`org.example.www.`), then by URL. A domain with
its sub-domains is then one stretch of rows, which the smallest and greatest value of each row group lead to: nothing
else is read, whatever the size of the file.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from athena.errors import BadInput
from athena.optout import host_of

HOST = "host"
ROWS_PER_GROUP = 32_768
ROWS_IN_MEMORY = 1_048_576  # sorted at a time: about a GiB
_ORDER = [(HOST, "ascending"), ("url", "ascending"), ("record_id", "ascending")]


@dataclass(frozen=True)
class Sought:
    """Pages at `url`, of `domain` with its sub-domains, or refined by `hotkey`: what is given has to hold together."""

    url: str | None = None
    domain: str | None = None
    hotkey: str | None = None

    @property
    def reach(self) -> tuple[str, str] | None:
        """The least and the greatest host that can match; None where any can."""
        host = host_of(self.url) if self.url is not None else self.domain
        if host is None:
            return None
        least = host_key(host)
        return (least, least) if self.url is not None else (least, least + "\U0010ffff")

    def matches(self, table: pa.Table) -> pa.Table:
        """The rows that match, of a table with columns `host`, `url` and `hotkey`."""
        if self.url is not None:
            table = table.filter(pc.equal(table["url"], self.url))
        if self.hotkey is not None:
            table = table.filter(pc.equal(table["hotkey"], self.hotkey))
        if self.domain is not None:
            table = table.filter(pc.starts_with(table[HOST], host_key(self.domain)))
        return table


def host_key(host: str) -> str:
    """`www.example.org` as `org.example.www.`: sub-domains of a domain lie behind it, and no other host between."""
    return "".join(f"{label}." for label in reversed(host.lower().rstrip(".").split(".")))


def write_lineage(documents: Path, target: Path, rows_in_memory: int = ROWS_IN_MEMORY) -> None:
    """Writes the rows of `documents` (with at least url and record_id), sorted, to `target`. Same rows, same bytes.

    At most `rows_in_memory` rows are held at a time: more are sorted in parts, which are then merged.
    """
    with pq.ParquetFile(documents) as file, tempfile.TemporaryDirectory(dir=target.parent, prefix=".sort-") as aside:
        schema = file.schema_arrow.append(pa.field(HOST, pa.string()))
        parts: list[Path] = []
        for table in _portions(file, rows_in_memory):
            hosts = pa.array([host_key(host_of(url)) for url in table["url"].to_pylist()], pa.string())
            parts.append(Path(aside) / f"{len(parts)}.parquet")
            _write(parts[-1], schema, [table.append_column(HOST, hosts).sort_by(_ORDER)])
        _write(target, schema, _merged(parts, schema))


def _portions(file: pq.ParquetFile, rows: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in file.iter_batches(batch_size=min(ROWS_PER_GROUP, rows), use_threads=False):
        held.append(batch)
        if sum(b.num_rows for b in held) >= rows:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _write(target: Path, schema: pa.Schema, tables: Sequence[pa.Table] | Iterator[pa.Table]) -> None:
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.select(schema.names), row_group_size=ROWS_PER_GROUP)


def _merged(parts: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of sorted files in one order, a row group at a time; of each file one group is held."""
    if len(parts) == 1:
        with pq.ParquetFile(parts[0]) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)
        return
    names = [name for name, _ in _ORDER]
    rows = heapq.merge(*(_rows(part) for part in parts), key=lambda row: tuple(row[name] or "" for name in names))
    held: list[dict[str, Any]] = []
    for row in rows:
        held.append(row)
        if len(held) == ROWS_PER_GROUP:
            yield pa.Table.from_pylist(held, schema=schema)
            held = []
    if held:
        yield pa.Table.from_pylist(held, schema=schema)


def _rows(part: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(part) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group).to_pylist()


def find_documents(lineage: Path, sought: Sought) -> Iterator[pa.Table]:
    """The matching rows of a lineage.parquet, one table for each row group that has some.

    Raises BadInput for a file that is not one.
    """
    try:
        with pq.ParquetFile(lineage) as file:
            if not {HOST, "url", "hotkey"} <= set(file.schema_arrow.names):
                raise BadInput(f"{lineage} is not a lineage", remedy="give the lineage.parquet of a release")
            for group in _reached(file, sought.reach):
                found = sought.matches(file.read_row_group(group, use_threads=False))
                if found.num_rows:
                    yield found.drop_columns([HOST])
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{lineage} cannot be read: {error}", remedy="download the release again") from error


def _reached(file: pq.ParquetFile, reach: tuple[str, str] | None) -> Iterator[int]:
    column = file.schema_arrow.names.index(HOST)
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(column).statistics
        if reach is None or not _has_range(statistics) or _overlap((statistics.min, statistics.max), reach):
            yield group


def _has_range(statistics: Any) -> bool:
    """Values of over 4 KiB leave a row group without."""
    return statistics is not None and bool(statistics.has_min_max)


def _overlap(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
