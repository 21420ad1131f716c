"""The crawl: WARC files behind one string, over HTTP from Common Crawl or from a folder laid out like it.

<root>/crawl-data/<crawl id>/warc.paths.gz    one relative path per line
<root>/<each of those paths>
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from athena.crawl_http import MAX_RANGE_BYTES, MAX_WARC_BYTES, CrawlBlocked, HttpCrawl, Manners
from athena.crawl_paths import MAX_LISTING_BYTES, checked_path, listing_path, parse_listing
from athena.durable import finish, sha256_of, write_file
from athena.errors import BadInput, Misconfigured, NotFound, TooLarge, Unavailable

__all__ = ["Crawl", "CrawlBlocked", "FileCrawl", "LaidOut", "Manners", "Refused", "local_crawl", "open_crawl"]

_HEADER_BYTES = 64 * 2**10
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Crawl(Protocol):
    """What every adapter promises.

    Paths are checked before any I/O: BadInput for one that is not a WarcPath. NotFound where there is no such listing
    or file, TooLarge over a cap, Unavailable for a fault of the service or this machine, and CrawlBlocked, a kind of
    Unavailable, when the service wants to be left alone.
    """

    def warc_paths(self, crawl: str) -> Iterator[str]:
        """The relative paths in a crawl's listing, in its order. BadInput for a bad crawl id or listing."""
        ...

    def open(self, path: str) -> BinaryIO:
        """The whole file, still compressed, as a stream to be closed by the caller."""
        ...

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset` on; BadInput when the file ends before."""
        ...

    def close(self) -> None: ...


def open_crawl(url: str, manners: Manners | None = None) -> Crawl:
    """The crawl at "file:///folder" or below an http(s) base such as "https://data.commoncrawl.org".

    `manners` govern an HTTP crawl. Raises Misconfigured for any other URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return FileCrawl(Path(unquote(parts.path)))
    if parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment):
        return HttpCrawl(url, manners)
    raise Misconfigured(f"{url!r} is no crawl", remedy="use file:///folder or https://data.commoncrawl.org")


class FileCrawl:
    """A crawl in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def close(self) -> None: ...

    def warc_paths(self, crawl: str) -> Iterator[str]:
        with self._open(listing_path(crawl), MAX_LISTING_BYTES) as file:
            return parse_listing(file.read())

    def open(self, path: str) -> BinaryIO:
        return self._open(checked_path(path), MAX_WARC_BYTES)

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        path = checked_path(path)
        if offset < 0 or length < 1:
            raise BadInput(f"no byte range: offset {offset}, length {length}")
        if length > MAX_RANGE_BYTES:
            raise TooLarge(f"a range of {length} bytes, over {MAX_RANGE_BYTES}")
        try:
            with self._open(path, MAX_WARC_BYTES) as file:
                file.seek(offset)
                content = file.read(length)
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
        if len(content) != length:
            raise BadInput(f"{path} ends before the byte range asked for")
        return content

    def _open(self, path: str, max_bytes: int) -> BinaryIO:
        file = (self._root / path).resolve()
        if not file.is_relative_to(self._root):
            raise BadInput(f"{path} leads out of the crawl's folder")
        try:
            size = file.stat().st_size
            stream = file.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound(f"{file} is no file") from error
        except OSError as error:
            raise Unavailable(f"{file} cannot be read: {error.strerror}") from error
        if size > max_bytes:
            stream.close()
            raise TooLarge(f"{file} is over {max_bytes} bytes")
        return stream


class Refused(NamedTuple):
    """A file that is no usable WARC file, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class LaidOut:
    """A local crawl: its id, the given file behind each path of the listing, and the files left out."""

    crawl_id: str
    sources: dict[str, Path]
    refused: tuple[Refused, ...]

    @property
    def warc_paths(self) -> tuple[str, ...]:
        return tuple(self.sources)


def local_crawl(warc_files: Sequence[Path], root: Path, crawl_id: str = "LOCAL-files") -> LaidOut:
    """Lays out WARC files, gzipped or not, as a crawl below `root` for `open_crawl("file://…")`.

    Files are hard links where the file system allows, else copies, named by their content: the same content gets the
    same path. A file that cannot be used is reported, and the rest goes on. Raises BadInput when none is left, and
    Unavailable when `root` cannot be written to.
    """
    listing = root / listing_path(crawl_id)
    sources: dict[str, Path] = {}
    refused: list[Refused] = []
    for file in warc_files:
        try:
            path = local_warc_path(file, crawl_id)
        except BadInput as error:
            refused.append(Refused(file, str(error)))
        except OSError as error:
            refused.append(Refused(file, f"cannot be read: {error.strerror}"))
        else:
            _place(file, root / path)
            sources.setdefault(path, file)
    if not sources:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in refused)
        raise BadInput(f"no usable WARC file ({reasons or 'none given'})", remedy="name WARC files")
    write_listing(listing, sources)
    return LaidOut(crawl_id, sources, tuple(refused))


def local_warc_path(file: Path, crawl_id: str = "LOCAL-files") -> str:
    """The path of a WARC file in a local crawl: named by its content. Raises BadInput for one that cannot be used."""
    suffix = _warc_suffix(file)
    return f"crawl-data/{crawl_id}/warc/{sha256_of(file)[:24]}{suffix}"


def write_listing(file: Path, paths: Iterable[str]) -> None:
    """Writes a gzipped listing. Written last, its existence proves that the crawl is whole."""
    write_file(file, gzip.compress("".join(f"{path}\n" for path in paths).encode(), mtime=0))


def _place(source: Path, target: Path) -> None:
    if target.exists():
        return
    temporary = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), temporary)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, temporary)
        finish(temporary, target)
    except OSError as error:
        raise Unavailable(
            f"{target} cannot be written: {error.strerror}", remedy="make room, or name another folder"
        ) from error


def _warc_suffix(file: Path) -> str:
    """ ".warc" or ".warc.gz", by the file's first record. Raises BadInput with the reason it cannot be used."""
    with file.open("rb") as stream:
        magic = stream.read(4)
        stream.seek(0)
        if not magic:
            raise BadInput("is empty")
        if magic == _ZSTD:
            raise BadInput("is compressed with zstandard", remedy="unpack it, then `warcio recompress` it")
        if magic[:2] != _GZIP:
            _refuse_other_formats(stream.read(_HEADER_BYTES))
            return ".warc"
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        start = _inflate(inflater, stream.read, _HEADER_BYTES)
        _refuse_other_formats(start)
        head, _, _ = start.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length:[ \t]*(\d{1,12})[ \t]*\r?$", head)
        record_bytes = len(head) + 4 + int(length[1]) + 4 if length else len(start)
        inflated = len(start)
        while not inflater.eof and inflated <= record_bytes:
            chunk = _inflate(inflater, stream.read, _HEADER_BYTES)
            if not chunk:
                break
            inflated += len(chunk)
        if inflated > record_bytes:
            raise BadInput("is one gzip stream, so single records cannot be read", remedy="`warcio recompress` it")
    return ".warc.gz"


def _inflate(inflater: zlib._Decompress, read: Callable[[int], bytes], max_bytes: int) -> bytes:
    """At least one byte, at most `max_bytes`; empty at the end of the gzip member or of the file."""
    while not inflater.eof:
        pending = inflater.unconsumed_tail or read(16 * 2**10)
        try:
            chunk = inflater.decompress(pending, max_bytes)
        except zlib.error as error:
            raise BadInput("is a broken gzip file") from error
        if chunk or not pending:
            return chunk
    return b""


def _refuse_other_formats(start: bytes) -> None:
    if start.startswith(b"filedesc:"):
        raise BadInput("is an ARC file, the format before WARC", remedy="`warcio recompress` makes a WARC file of it")
    if not start.startswith(b"WARC/"):
        raise BadInput("does not begin with a WARC record")
