"""Files that are no WARC → records: which kind a file is, where it lies, and documents that fill a whole file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, Protocol, cast
from urllib.parse import quote

import zstandard

from athena.durable import sha256_of
from athena.errors import BadInput, Unavailable
from athena.refine.records import MAX_RECORD_BYTES, Record
from athena.refine.sources.tables import Row, csv_rows, json_rows, parquet_rows
from athena.refine.text import html

Kind = Literal["text", "html", "pdf", "json", "csv", "tsv", "parquet", "warc", "wet"]
Packing = Literal["", ".gz", ".zst"]

_KINDS: dict[str, Kind] = {
    ".txt": "text", ".md": "text", ".markdown": "text", ".html": "html", ".htm": "html", ".xhtml": "html",
    ".pdf": "pdf", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".warc": "warc", ".wet": "wet",
}  # fmt: skip
_SELDOM_PACKED = ("pdf", "parquet")
_TABLES = ("json", "csv", "tsv", "parquet")
MAX_PDF_BYTES = 64 << 20
_MAX_URL_BYTES = 8192
_ZSTD_CHUNK_BYTES = 1 << 10  # a block of 128 KiB packs into 4 bytes, so one chunk unpacks to at most 32 MiB
# What a damaged or cut file makes the decompressors raise.
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


@dataclass(frozen=True)
class Form:
    """How a file is to be read. Compression of a WARC file belongs to its format: `packing` is empty there."""

    kind: Kind
    packing: Packing = ""


def form_of(file_name: str) -> Form:
    """The form that a file's name promises. Raises BadInput for a kind of file that no text is read from."""
    path = PurePosixPath(file_name.lower())
    packing: Packing = ".gz" if path.suffix == ".gz" else ".zst" if path.suffix == ".zst" else ""
    kind = _KINDS.get(path.with_suffix("").suffix if packing else path.suffix)
    if kind == "warc" and packing != ".zst":
        return Form("warc")
    if kind == "wet" and packing != ".zst":
        return Form("wet")
    if kind is None or kind in ("warc", "wet") or (packing and kind in _SELDOM_PACKED):
        raise BadInput(
            f"{file_name[:200]!r} is of no kind that text is read from",
            remedy=f"use {', '.join(_KINDS)}; WARC, WET and tables also with .gz",
        )
    return Form(kind, packing)


class Place(Protocol):
    """Where a file lies. `name` is its URI with its revision: the same name means the same bytes."""

    @property
    def name(self) -> str: ...

    def open(self) -> BinaryIO:
        """The file's bytes, seekable, to be closed by the caller. Raises NotFound or Unavailable."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine, named by its content: `file:folder/name.txt?sha256=<64 hex>`."""

    path: Path
    name: str

    @classmethod
    def at(cls, path: Path, shown: str) -> LocalFile:
        """`shown` is the path that rows name: relative, so that they say nothing of this machine."""
        try:
            return cls(path, f"file:{quote(shown)}?sha256={sha256_of(path)}")
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error

    def open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class FileSource:
    """A text, page, PDF or table file. `column` names the column of a table that holds the text.

    Offsets and lengths are bytes of the decompressed file: the whole file, or a line or row of a table. Parquet has
    no byte ranges of rows: there the offset is the row's number, counted from 0, and the length 1.
    """

    place: Place
    form: Form
    column: str | None = None

    @property
    def name(self) -> str:
        named = self.column is not None and self.form.kind in _TABLES
        return f"{self.place.name}#column={quote(self.column or '', safe='')}" if named else self.place.name

    def records(self, rejected: Counter[str], start: int = 0) -> Iterator[Record]:
        """Every record from offset `start` on, in file order; what yields none is counted in `rejected`.

        Reasons: too-large, undecodable, malformed (a row, or a PDF, that does not parse), no-text (a row without the
        column), encrypted or timeout (a PDF), and truncated for the rest of a file that is cut off or damaged.
        Raises Unavailable where the file cannot be read.
        """
        try:
            with _opened(self.place, self.form.packing) as stream:
                if self.form.kind in _TABLES:
                    for row in self._rows(stream, rejected, start):
                        yield self._record(row.offset, row.length, row.text, is_text=True, url=row.url, date=row.date)
                elif start == 0:
                    yield from self._whole(stream, rejected)
        except _DAMAGE:
            rejected["truncated"] += 1
        except OSError as error:
            raise Unavailable(f"{self.place.name} cannot be read: {error}") from error

    def _rows(self, stream: BinaryIO, rejected: Counter[str], start: int) -> Iterator[Row]:
        match self.form.kind:
            case "json":
                return json_rows(stream, self.column, rejected, start)
            case "parquet":
                return parquet_rows(stream, self.column, rejected, start)
            case kind:
                return csv_rows(stream, self.column, rejected, start, delimiter="\t" if kind == "tsv" else ",")

    def _whole(self, stream: BinaryIO, rejected: Counter[str]) -> Iterator[Record]:
        limit = MAX_PDF_BYTES if self.form.kind == "pdf" else MAX_RECORD_BYTES
        content = _read(stream, limit + 1)
        if len(content) > limit:
            rejected["too-large"] += 1
        elif self.form.kind == "pdf":
            yield from self._pdf(content, rejected)
        elif self.form.kind == "html":
            yield self._record(0, len(content), content, is_text=False)
        else:
            try:
                text = html.decode(content, None)
            except BadInput:
                rejected["undecodable"] += 1
            else:
                yield self._record(0, len(content), text.encode(), is_text=True)

    def _pdf(self, content: bytes, rejected: Counter[str]) -> Iterator[Record]:
        from athena.refine.sources.pdf import PdfRefused, pdf_text  # miners read no PDF, and it takes a while

        try:
            text = pdf_text(content)
        except PdfRefused as refusal:
            rejected[refusal.reason] += 1
        else:
            yield self._record(0, len(content), text.encode("utf-8", "replace"), is_text=True)

    def _record(
        self, offset: int, length: int, body: bytes, *, is_text: bool, url: str | None = None, date: str | None = None
    ) -> Record:
        name = self.name
        identity = hashlib.sha256(f"{name}\n{offset}".encode()).hexdigest()
        own = url and len(url.encode("utf-8", "replace")) <= _MAX_URL_BYTES
        return Record(
            warc_path=name,
            offset=offset,
            length=length,
            record_id=f"<urn:athena:{identity}>",
            url=url if url and own else name,
            date=date or "",
            payload_digest="sha1:" + base64.b32encode(hashlib.sha1(body).digest()).decode(),
            charset=None,
            body=body,
            is_text=is_text,
        )


class _ZstdStream(io.RawIOBase):
    """What zstandard frames unpack to. Raises EOFError if the last one is cut off, which the library passes over."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed = self._unpacked = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # Buffer is typed from 3.12 on
        while not self._unpacked:
            self._packed = self._packed or self._stream.read(_ZSTD_CHUNK_BYTES)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("a zstandard frame is cut off")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._unpacked = self._frame.decompress(self._packed)
            self._packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._unpacked))
        buffer[:count], self._unpacked = self._unpacked[:count], self._unpacked[count:]
        return count


@contextmanager
def _opened(place: Place, packing: Packing) -> Iterator[BinaryIO]:
    with place.open() as stream:
        if packing == ".gz":
            yield cast(BinaryIO, gzip.GzipFile(fileobj=stream))
        elif packing == ".zst":
            yield cast(BinaryIO, io.BufferedReader(_ZstdStream(stream), buffer_size=128 << 10))
        else:
            yield stream


def _read(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end of the file."""
    content = bytearray()
    while len(content) < size and (chunk := stream.read(size - len(content))):
        content += chunk
    return bytes(content)
