"""What a Parquet file would unpack to, read from its page headers before anything is unpacked.

A footer's sizes are claims. The reader allocates what each page header says, and a dictionary lets a few bytes stand
for gigabytes; so every page header is walked first, and dictionaries are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from athena.errors import BadInput, TooLarge

_MAX_PAGE_HEADER_BYTES = 4096
_MAX_FOREIGN_HEADER_BYTES = 64 << 10  # other writers put the least and greatest value into it
_MAX_DEPTH = 4
_DATA_PAGE = 0
_PLAIN = 0
# Thrift compact protocol: element types that a page header can hold.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 12


def check_pages(file: BinaryIO, metadata: Any, *, max_bytes: int, max_values_per_row: int) -> None:
    """Raises TooLarge if the pages unpack to more than `max_bytes`; BadInput for any but plain, undictionaried pages.

    `metadata` is pyarrow's FileMetaData of `file`. No column may hold more than `max_values_per_row` values per row.
    """
    unpacked = 0
    for group_index in range(metadata.num_row_groups):
        group = metadata.row_group(group_index)
        for column_index in range(group.num_columns):
            column = group.column(column_index)
            if column.has_dictionary_page:
                raise BadInput("a column is dictionary-encoded", remedy="write Parquet with use_dictionary=False")
            size, values = _walk(file, column)
            unpacked += size
            if unpacked > max_bytes:
                raise TooLarge(f"the rows unpack to more than {max_bytes} bytes")
            if values > group.num_rows * max_values_per_row:
                raise BadInput(f"column {column.path_in_schema} holds more values than its rows can")


def largest_page(file: BinaryIO, column: Any) -> int:
    """Bytes that the largest page of a column chunk, its dictionary included, unpacks to. Raises BadInput.

    `column` is pyarrow's metadata of the chunk, of a file that may be encoded in any way.
    """
    position = column.data_page_offset
    if column.has_dictionary_page:
        position = min(position, column.dictionary_page_offset)
    end, largest = position + column.total_compressed_size, 0
    while position < end:
        file.seek(position)
        header = _Thrift(file.read(_MAX_FOREIGN_HEADER_BYTES))
        fields = header.struct()
        unpacked, packed = fields.get(2), fields.get(3)
        if not (isinstance(unpacked, int) and isinstance(packed, int) and unpacked >= 0 and packed >= 0):
            raise BadInput("a page header has no sizes")
        largest = max(largest, unpacked)
        position += header.position + packed
    return largest


def _walk(file: BinaryIO, column: Any) -> tuple[int, int]:
    """Unpacked bytes and number of values of one column chunk."""
    position, end = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    size = values = 0
    while position < end:
        file.seek(position)
        header = _Thrift(file.read(_MAX_PAGE_HEADER_BYTES))
        fields = header.struct()
        page = fields.get(5)
        kind, unpacked, packed = fields.get(1), fields.get(2), fields.get(3)
        if kind != _DATA_PAGE or not isinstance(page, dict) or page.get(2) != _PLAIN:
            raise BadInput("a page is not a plain data page of version 1", remedy="write data_page_version 1.0")
        if not (isinstance(unpacked, int) and isinstance(packed, int) and unpacked >= 0 and packed >= 0):
            raise BadInput("a page header has no sizes")
        if not isinstance(page.get(1), int) or page[1] < 0:
            raise BadInput("a page header has no number of values")
        size += unpacked
        values += page[1]
        position += header.position + packed
    if position != end:
        raise BadInput("the pages of a column chunk overlap its end")
    return size, values


@dataclass
class _Thrift:
    """Just enough of Thrift's compact protocol to read a page header."""

    raw: bytes
    position: int = field(default=0)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MAX_DEPTH:
            raise BadInput("a page header is nested too deeply")
        fields: dict[int, Any] = {}
        identifier = 0
        while (head := self._byte()) != 0:
            delta = head >> 4
            identifier = identifier + delta if delta else self._zigzag()
            if identifier in fields:
                raise BadInput("a page header names a field twice")
            fields[identifier] = self._value(head & 0x0F, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._zigzag()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise BadInput("a page header holds what page headers do not")

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        taken = self.raw[self.position : self.position + size]
        if len(taken) != size:
            raise BadInput("a page header is cut off or too long")
        self.position += size
        return taken

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise BadInput("a page header holds a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def open_parquet(file: BinaryIO) -> pq.ParquetFile:
    """pyarrow's reader on an open file. Raises BadInput if the footer is not one."""
    try:
        return pq.ParquetFile(file, pre_buffer=False)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these two
        raise BadInput(f"not a Parquet file: {error}") from error
