"""What a crawl's listing is called and what a path from it may look like. Listings come from others: capped, strict."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from pydantic import TypeAdapter, ValidationError

from athena.errors import BadInput, TooLarge
from athena.protocol import CrawlId, WarcPath

MAX_LISTING_BYTES = 16 * 2**20
"""Compressed. A crawl of 100,000 WARC files has a listing of about 1 MB."""
MAX_INFLATED_LISTING_BYTES = 64 * 2**20
_INFLATE_STEP_BYTES = 256 * 2**10

_CRAWL_ID: TypeAdapter[str] = TypeAdapter(CrawlId)
_WARC_PATH: TypeAdapter[str] = TypeAdapter(WarcPath)


def listing_path(crawl: str) -> str:
    """Relative path of a crawl's gzipped list of WARC files, as on data.commoncrawl.org. Raises BadInput."""
    try:
        crawl = _CRAWL_ID.validate_python(crawl)
    except ValidationError as error:
        raise BadInput(
            f"{crawl!r} is not a crawl id", remedy="name one like CC-MAIN-2026-43, CC-NEWS-2026-10 or LOCAL-demo"
        ) from error
    family, _, month = crawl.partition("CC-NEWS-")
    if not family:
        return f"crawl-data/CC-NEWS/{month.replace('-', '/')}/warc.paths.gz"
    return f"crawl-data/{crawl}/warc.paths.gz"


def checked_path(path: str) -> str:
    """`path` if it is a safe relative path below the crawl's root. Raises BadInput."""
    try:
        return _WARC_PATH.validate_python(path)
    except ValidationError as error:
        raise BadInput(
            f"{path[:120]!r} is not a path of a WARC file",
            remedy="use at most 300 letters, digits and . _ = - between slashes",
        ) from error


def parse_listing(compressed: bytes) -> Iterator[str]:
    """The paths in a gzipped listing, one per line, in order.

    Raises TooLarge when it inflates past the cap, BadInput when it is no whole gzip stream or a line is no safe path.
    """
    return map(checked_path, filter(None, gzipped_lines(compressed)))


def gzipped_lines(compressed: bytes) -> Iterator[str]:
    """The lines of a gzipped listing. Raises as `parse_listing`, but looks into no line."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    pending, rest, inflated = compressed, b"", 0
    while not inflater.eof:
        try:
            chunk = inflater.decompress(pending, _INFLATE_STEP_BYTES)
        except zlib.error as error:
            raise BadInput("the crawl's listing is not a gzip file") from error
        pending = inflater.unconsumed_tail
        if not chunk and not inflater.eof:
            raise BadInput("the crawl's listing is cut off", remedy="fetch it again")
        inflated += len(chunk)
        if inflated > MAX_INFLATED_LISTING_BYTES:
            raise TooLarge(f"the crawl's listing inflates past {MAX_INFLATED_LISTING_BYTES} bytes")
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(_decoded, lines)
    yield _decoded(rest)


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")
