"""WARC bytes → HTML records with their place in the file.

The file is cut into records here, not by the WARC library: one gzip member (or one plain record) at a time, with a
cap on what it inflates to, so that a bomb costs 8 MiB, a torn tail costs one record, and a record parses from its
byte range to the same value as from the whole file. FastWARC parses what was cut out.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from fastwarc.warc import WarcRecord, WarcRecordType

from athena.errors import BadInput, TooLarge
from athena.refine.text import html as pages

MAX_RECORD_BYTES = 8 << 20  # Common Crawl cuts payloads at 5 MiB
_MAX_HEADER_BYTES = 64 << 10
_MAX_FIELD_CHARS = 8 << 10  # URLs of this length break browsers and servers
_CHUNK_BYTES = 8 << 10  # deflate expands at most 1032-fold, so one chunk inflates to at most 8.3 MiB
_GZIP_MAGIC = b"\x1f\x8b"
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML_START = re.compile(rb"[\s\x00\xef\xbb\xbf]*<(?:!doctype html|html|head|body|title|meta)\b", re.IGNORECASE)
_DIGEST = re.compile(r"[a-z0-9-]{1,16}:[A-Za-z0-9+/=_-]{16,128}")
_CONTENT_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)

Decoding = Literal["all", "transfer", "content", "none"]


@dataclass(frozen=True)
class Record:
    """One document as its source holds it: an HTML response of a WARC file, or what another source has.

    `offset` and `length` are its (compressed) bytes in the file at `warc_path`, which for other sources than WARC
    files is the URI of the file with its revision. `body` has HTTP transfer and content codings removed, and at most
    MAX_RECORD_BYTES; `charset` is what the HTTP header declares. `is_text` says that the body is plain text in UTF-8,
    not a page that text must be extracted from. `payload_digest` is the WARC's own, or the sha1 of `body`.
    """

    warc_path: str
    offset: int
    length: int
    record_id: str
    url: str
    date: str
    payload_digest: str
    charset: str | None
    body: bytes
    is_text: bool = False


@dataclass(frozen=True)
class _Frame:
    """The bytes of one record, inflated; cut at MAX_RECORD_BYTES if `whole` is false."""

    offset: int
    length: int
    raw: bytes
    whole: bool


class _Skip(Exception):
    """A record that yields no page, with the reason under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Truncated(Exception):
    """The file ends, or turns to noise, inside a record."""


def read_records(stream: BinaryIO, warc_path: str, rejected: Counter[str] | None = None) -> Iterator[Record]:
    """Every HTML response of a WARC file, gzipped by record or plain, in file order; constant memory.

    Responses that yield no record are counted in `rejected` by reason: not-html, too-large, malformed, and truncated
    for a tail that is cut off or damaged (all before it is used). Raises BadInput if the file is no WARC at all.
    """
    return _records(stream, warc_path, Counter() if rejected is None else rejected, _parse)


def read_texts(stream: BinaryIO, name: str, rejected: Counter[str] | None = None) -> Iterator[Record]:
    """Every plain-text `conversion` record of a WET file, as `read_records` reads pages; `name` is the file's URI."""
    return _records(stream, name, Counter() if rejected is None else rejected, _parse_text)


def _records(
    stream: BinaryIO, path: str, counts: Counter[str], parse: Callable[[_Frame, str], Record | None]
) -> Iterator[Record]:
    try:
        for frame in _frames(stream):
            _refuse_other_formats(frame)
            try:
                record = parse(frame, path)
            except _Skip as skip:
                counts[skip.reason] += 1
            else:
                if record is not None:
                    yield record
    except _Truncated:
        counts["truncated"] += 1


def parse_record(raw: bytes, warc_path: str, offset: int) -> Record:
    """The record that a byte range holds. Raises BadInput unless the range is exactly one HTML response.

    Raises TooLarge if it inflates beyond MAX_RECORD_BYTES.
    """
    try:
        frames = list(_frames(io.BytesIO(raw)))
    except _Truncated:
        raise BadInput("the byte range ends inside a record") from None
    if len(frames) != 1 or frames[0].length != len(raw):
        raise BadInput(f"the byte range holds {len(frames)} records, not one")
    try:
        record = _parse(_Frame(offset, len(raw), frames[0].raw, frames[0].whole), warc_path)
    except _Skip as skip:
        if skip.reason == "too-large":
            raise TooLarge(f"the record inflates to more than {MAX_RECORD_BYTES} bytes") from None
        raise BadInput(f"the byte range holds no page: {skip.reason}") from None
    if record is None:
        raise BadInput("the byte range holds no HTTP response")
    return record


def decoded(record: Record) -> str:
    """The page's characters. Raises BadInput where no charset fits."""
    return pages.decode(record.body, record.charset)


def visible_text(record: Record) -> str:
    """All visible text of the page in document order, one line per block.

    Raises BadInput where no charset fits, or the markup is too much for a parser.
    """
    return pages.visible_text(decoded(record))


class _Source:
    """Reads a stream forward, knows its position, and takes back bytes that belong to what follows."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._held = b""
        self.position = 0

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer only at the end of the stream."""
        data, self._held = self._held[:size], self._held[size:]
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        self.position += len(data)
        return data

    def unread(self, data: bytes) -> None:
        self._held = data + self._held
        self.position -= len(data)


def _frames(stream: BinaryIO) -> Iterator[_Frame]:
    source = _Source(stream)
    while head := source.read(_CHUNK_BYTES):
        source.unread(head)
        if head.startswith(_GZIP_MAGIC):
            yield _gzip_frame(source)
        elif not head.strip(b"\r\n\x00"):  # some writers pad between or after records
            source.read(len(head))
        elif head[:1] in b"\r\n":
            source.read(len(head) - len(head.lstrip(b"\r\n")))
        elif head == _GZIP_MAGIC[:1]:
            raise _Truncated
        else:
            yield _plain_frame(source)


def _gzip_frame(source: _Source) -> _Frame:
    offset = source.position
    inflate = zlib.decompressobj(wbits=31)
    kept = bytearray()
    size = 0
    while not inflate.eof:
        chunk = source.read(_CHUNK_BYTES)
        if not chunk:
            raise _Truncated
        try:
            out = inflate.decompress(chunk)
        except zlib.error as error:
            raise _Truncated from error
        size += len(out)
        kept += out[: MAX_RECORD_BYTES - len(kept)]
    source.unread(inflate.unused_data)
    return _Frame(offset, source.position - offset, bytes(kept), size <= MAX_RECORD_BYTES)


def _plain_frame(source: _Source) -> _Frame:
    offset = source.position
    kept = bytearray()
    while (end := kept.find(b"\r\n\r\n")) < 0:
        chunk = source.read(_CHUNK_BYTES)
        if not chunk or len(kept) > _MAX_HEADER_BYTES:
            if offset == 0 and not kept.startswith(b"WARC/"):
                return _Frame(0, len(kept), bytes(kept), True)  # no WARC file: the caller says so
            raise _Truncated
        kept += chunk
    if not kept.startswith(b"WARC/"):
        if offset == 0:
            return _Frame(0, len(kept), bytes(kept), True)
        raise _Truncated
    declared = _CONTENT_LENGTH.search(kept, 0, end + 2)
    if declared is None:
        raise _Truncated
    size = end + 4 + int(declared.group(1))
    source.unread(bytes(kept[size:]))
    del kept[size:]
    seen = len(kept)
    while seen < size:
        chunk = source.read(min(_CHUNK_BYTES, size - seen))
        if not chunk:
            raise _Truncated
        seen += len(chunk)
        kept += chunk[: max(0, MAX_RECORD_BYTES - len(kept))]
    return _Frame(offset, size, bytes(kept[:MAX_RECORD_BYTES]), size <= MAX_RECORD_BYTES)


def _refuse_other_formats(frame: _Frame) -> None:
    if frame.offset:
        return
    if frame.raw.startswith(b"filedesc:"):
        raise BadInput("this is an ARC file, the format before WARC", remedy="convert it with warcio recompress")
    if not frame.raw.startswith(b"WARC/"):
        raise BadInput("this is not a WARC file")
    if _has_more_than_one_record(frame):
        raise BadInput("the WARC file is gzipped as a whole, not record by record", remedy="run warcio recompress")


def _has_more_than_one_record(frame: _Frame) -> bool:
    end = frame.raw.find(b"\r\n\r\n", 0, _MAX_HEADER_BYTES)
    declared = _CONTENT_LENGTH.search(frame.raw, 0, end + 2) if end >= 0 else None
    if declared is None:
        return False
    return bool(frame.raw[end + 4 + int(declared.group(1)) :].strip(b"\r\n"))


def _parse(frame: _Frame, warc_path: str) -> Record | None:
    """The record of a frame; None if it is not a response. Raises _Skip for a response that yields no page."""
    warc = _open(frame, "none")
    if warc.record_type != WarcRecordType.response:
        return None
    if not warc.is_http or not _is_html(warc):
        raise _Skip("not-html")
    if not frame.whole:
        raise _Skip("too-large")
    if _has_more_than_one_record(frame):
        raise _Skip("malformed")
    return _record(frame, warc_path, warc, _body(frame), is_text=False)


def _parse_text(frame: _Frame, name: str) -> Record | None:
    """The text of a frame; None if it is no conversion. Raises _Skip for a conversion that yields no text."""
    warc = _open(frame, "none")
    if warc.record_type != WarcRecordType.conversion:
        return None
    if (warc.headers.get("Content-Type") or "").split(";")[0].strip().lower() != "text/plain":
        raise _Skip("not-text")
    if not frame.whole:
        raise _Skip("too-large")
    if _has_more_than_one_record(frame):
        raise _Skip("malformed")
    body = _read_all(warc)
    try:
        body.decode()
    except UnicodeDecodeError:
        raise _Skip("undecodable") from None
    return _record(frame, name, warc, body, is_text=True)


def _record(frame: _Frame, path: str, warc: WarcRecord, body: bytes, *, is_text: bool) -> Record:
    headers = warc.headers
    url = (headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">")
    record_id = headers.get("WARC-Record-ID")
    date = headers.get("WARC-Date") or ""
    if not url or not record_id or max(len(url), len(record_id), len(date)) > _MAX_FIELD_CHARS:
        raise _Skip("malformed")
    digest = headers.get("WARC-Payload-Digest") or ""
    if not _DIGEST.fullmatch(digest):
        digest = "sha1:" + base64.b32encode(hashlib.sha1(body).digest()).decode()
    return Record(
        warc_path=path,
        offset=frame.offset,
        length=frame.length,
        record_id=record_id,
        url=url,
        date=date,
        payload_digest=digest,
        charset=None if is_text else warc.http_charset,
        body=body,
        is_text=is_text,
    )


def _open(frame: _Frame, decoding: Decoding) -> WarcRecord:
    """The record with its HTTP headers parsed. Raises _Skip if FastWARC cannot make sense of it."""
    try:
        warc = WarcRecord.from_reader(io.BytesIO(frame.raw))
        if warc.is_http:
            warc.parse_http(auto_decode=decoding)
    except (OSError, ValueError) as error:
        raise _Skip("malformed") from error
    return warc


def _is_html(warc: WarcRecord) -> bool:
    identified = warc.headers.get("WARC-Identified-Payload-Type") or warc.http_content_type
    if identified:
        return identified.split(";")[0].strip().lower() in _HTML_TYPES
    return _HTML_START.match(warc.reader.read(1024)) is not None


def _body(frame: _Frame) -> bytes:
    """The payload without its HTTP codings; many crawlers store decoded bodies under the headers of coded ones."""
    for decoding in ("all", "transfer", "content", "none"):
        try:
            return _read_all(_open(frame, decoding))
        except OSError:
            continue
    raise _Skip("malformed")


def _read_all(warc: WarcRecord) -> bytes:
    body = bytearray()
    while chunk := warc.reader.read(_CHUNK_BYTES * 8):
        body += chunk
        if len(body) > MAX_RECORD_BYTES:
            raise _Skip("too-large")
    return bytes(body)
