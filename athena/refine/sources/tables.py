"""Tables with a column of text, as datasets are published: JSON Lines, CSV and Parquet → rows, in constant memory."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from athena.errors import BadInput
from athena.refine.parquet_pages import largest_page, open_parquet
from athena.refine.records import MAX_RECORD_BYTES

TEXT_COLUMNS = ("text", "content", "raw_content")
"""Where the text is looked for when no column is named: C4 and The Pile, RefinedWeb and StarCoder, RedPajama."""
_DATE_COLUMNS = ("date", "timestamp")
_MAX_LINE_BYTES = 2 * MAX_RECORD_BYTES  # JSON and CSV escapes make a line longer than its text
_MAX_DATE_CHARS = 64
_BATCH_ROWS = 16  # a dictionary lets a batch be as many times as large as a page
_MAX_PAGE_BYTES = 32 << 20
_BUFFER_BYTES = 1 << 20  # without it, a column of a whole row group is read at once


@dataclass(frozen=True)
class Row:
    """A row's text in UTF-8, at most MAX_RECORD_BYTES, where it lies, and what the row itself says of its origin."""

    offset: int
    length: int
    text: bytes
    url: str | None
    date: str | None


def json_rows(stream: BinaryIO, column: str | None, rejected: Counter[str], start: int = 0) -> Iterator[Row]:
    """The objects of a JSON Lines file, one per line, from the line that begins at byte `start` on."""
    for offset, line in _lines(stream, start):
        if line is None:
            rejected["too-large"] += 1
            continue
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            rejected["malformed"] += 1
            continue
        if isinstance(values, dict):
            yield from _row(offset, len(line), values, column, rejected)
        else:
            rejected["malformed"] += 1


def csv_rows(
    stream: BinaryIO, column: str | None, rejected: Counter[str], start: int = 0, *, delimiter: str = ","
) -> Iterator[Row]:
    """The rows below a header line, from the row that begins at byte `start` on. A row may span lines by quotes."""
    csv.field_size_limit(_MAX_LINE_BYTES)  # for the whole process: the csv module knows no other way
    lines = _CsvLines(stream)
    try:
        header = next(csv.reader(lines, delimiter=delimiter), None)
    except (csv.Error, UnicodeDecodeError):
        rejected["malformed"] += 1
        return
    if header is None:
        return
    if start:
        lines.skip_to(start)
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.row_start = lines.position
        try:
            values = next(reader, None)
        except (csv.Error, UnicodeDecodeError):
            rejected["malformed"] += 1
            reader = csv.reader(lines, delimiter=delimiter)
            continue
        if values is None:
            return
        if not values:  # a blank line
            continue
        if len(values) != len(header):
            rejected["malformed"] += 1
            continue
        length = lines.position - lines.row_start
        yield from _row(lines.row_start, length, dict(zip(header, values, strict=True)), column, rejected)


def parquet_rows(stream: BinaryIO, column: str | None, rejected: Counter[str], start: int = 0) -> Iterator[Row]:
    """The rows of a Parquet file from number `start` on.

    Memory is that of a few pages: the pages' headers are read first, and a row group with a page that is too large is
    counted, not unpacked.
    """
    try:
        metadata = open_parquet(stream).metadata
    except BadInput:
        rejected["malformed"] += 1
        return
    schema = metadata.schema.to_arrow_schema()
    text = _text_column([field.name for field in schema if _is_text(field.type)], column)
    if text is None:
        rejected["no-text"] += metadata.num_rows - start
        return
    names = [text, *(name for name in ("url", *_DATE_COLUMNS) if name in schema.names and name != text)]
    file = pq.ParquetFile(stream, metadata=metadata, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    number = 0
    try:
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            if number + group.num_rows > start:
                if _fits(stream, group, names):
                    yield from _group_rows(file, index, number, names, start, rejected)
                else:
                    rejected["too-large"] += group.num_rows
            number += group.num_rows
    except (BadInput, OSError, ValueError):  # pyarrow's errors derive from the last two
        rejected["truncated"] += 1


def _row(
    offset: int, length: int, values: Mapping[str, Any], column: str | None, rejected: Counter[str]
) -> Iterator[Row]:
    """One row, or none and a count."""
    name = _text_column([name for name, value in values.items() if isinstance(value, str)], column)
    if name is None:
        rejected["no-text"] += 1
        return
    text = values[name].encode("utf-8", "replace")  # JSON can spell half a surrogate pair, which UTF-8 cannot
    if len(text) > MAX_RECORD_BYTES:
        rejected["too-large"] += 1
        return
    yield Row(offset, length, text, _url(values.get("url")), _date(values))


def _text_column(names: list[str], column: str | None) -> str | None:
    wanted = TEXT_COLUMNS if column is None else (column,)
    return next((name for name in wanted if name in names), None)


def _url(value: object) -> str | None:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None


def _date(values: Mapping[str, Any]) -> str | None:
    for name in _DATE_COLUMNS:
        value = values.get(name)
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, str) and value and len(value) <= _MAX_DATE_CHARS:
            return value.encode("utf-8", "replace").decode()
    return None


def _lines(stream: BinaryIO, start: int) -> Iterator[tuple[int, bytes | None]]:
    """Offset and bytes of each line without its end; None for a line over the cap, which is passed over in pieces."""
    position = _pass(stream, start)
    while line := stream.readline(_MAX_LINE_BYTES):
        offset = position
        position += len(line)
        if line.endswith(b"\n") or len(line) < _MAX_LINE_BYTES:
            yield offset, line.rstrip(b"\r\n")
            continue
        while piece := stream.readline(_MAX_LINE_BYTES):
            position += len(piece)
            if piece.endswith(b"\n"):
                break
        yield offset, None


def _pass(stream: BinaryIO, size: int) -> int:
    """Reads past `size` bytes, as far as there are any: what unpacks a file cannot seek."""
    left = max(0, size)
    while left and (chunk := stream.read(min(left, _MAX_LINE_BYTES))):
        left -= len(chunk)
    return max(0, size) - left


class _CsvLines:
    """Lines for the csv module, which asks for no line before it needs it; so `position` is where a row ends."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.position = 0
        self.row_start = 0

    def skip_to(self, position: int) -> None:
        self.position += _pass(self._stream, position - self.position)

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(_MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        first = self.position == 0
        self.position += len(line)
        if self.position - self.row_start > _MAX_LINE_BYTES:
            raise csv.Error("a row over the cap")
        return line.decode("utf-8-sig" if first else "utf-8")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _fits(stream: BinaryIO, group: Any, names: list[str]) -> bool:
    """Whether no page of these columns unpacks to more than the cap. Raises BadInput for malformed page headers."""
    columns = (group.column(index) for index in range(group.num_columns))
    return all(largest_page(stream, column) <= _MAX_PAGE_BYTES for column in columns if column.path_in_schema in names)


def _group_rows(
    file: pq.ParquetFile, group: int, number: int, names: list[str], start: int, rejected: Counter[str]
) -> Iterator[Row]:
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names, use_threads=False):
        columns = {name: _plain(batch.column(batch.schema.get_field_index(name))) for name in names}
        for index in range(max(0, start - number), batch.num_rows):
            try:
                values = {name: column[index].as_py() for name, column in columns.items()}
            except UnicodeDecodeError:
                rejected["undecodable"] += 1
                continue
            yield from _row(number + index, 1, values, names[0], rejected)
        number += batch.num_rows


def _plain(column: pa.Array) -> pa.Array:
    """Times in microseconds, the finest that Python has."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    return column
