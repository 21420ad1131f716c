"""Common Crawl over HTTP, as a guest: own name, one request at a time, back-off, and a full stop when told to go.

Manners follow what Common Crawl's operators ask for: data requests at least 0.55 s apart (cdx_toolkit), retries after
503 "Slow Down" no faster than one a second, and 403 as a block that retrying only prolongs (cc-downloader).
"""

from __future__ import annotations

import io
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import BinaryIO, TypeVar, cast

import httpx

from athena.crawl_paths import MAX_LISTING_BYTES, checked_path, listing_path, parse_listing
from athena.errors import BadInput, Blocked, Misconfigured, NotFound, TooLarge, Unavailable

MAX_WARC_BYTES = 8 * 2**30
"""Common Crawl writes about 1 GB a file."""
MAX_RANGE_BYTES = 64 * 2**20
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")

T = TypeVar("T")


class CrawlBlocked(Blocked):
    """The crawl answered 403: this address is blocked. Stop; asking again prolongs the block."""

    code = "crawl-blocked"


class _Transient(Exception):
    """One attempt failed in a way that another may not; `wait_seconds` is what the server asked for."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Manners:
    """How this process behaves towards a crawl's server."""

    min_interval_seconds: float = 0.6
    """Between the starts of two requests, over all threads of the process."""
    jitter_seconds: float = 0.3
    """Random extra pause before each request and retry, so that nodes do not march in step."""
    max_attempts: int = 8
    first_backoff_seconds: float = 1.0
    """Doubled after each failed attempt. At least 1: what Common Crawl asks for after a 503."""
    max_backoff_seconds: float = 60.0
    timeout_seconds: float = 60.0
    """For connecting, and between two chunks of a body."""
    contact: str = ""
    """Mail address or page of whoever runs this node, sent in the User-Agent."""

    def __post_init__(self) -> None:
        if self.first_backoff_seconds < 1:
            raise Misconfigured("first_backoff_seconds is under 1", remedy="Common Crawl asks for 1 or more")
        if re.search(r"[^\x20-\x7e]", self.contact):
            raise Misconfigured("contact must be printable ASCII", remedy="give a mail address or a URL")

    @property
    def user_agent(self) -> str:
        return f"athena-network/{version('athena-network')} ({self.contact or 'operator gave no contact'})"

    def backoff_seconds(self, attempt: int) -> float:
        """Pause after the `attempt`-th failure in a row, counted from 0."""
        return float(min(self.max_backoff_seconds, self.first_backoff_seconds * 2.0 ** min(attempt, 30)))


class HttpCrawl:
    """A crawl below an http(s) base URL, such as https://data.commoncrawl.org. Safe to share between threads.

    A loopback host (a cache on this machine) is asked without pauses between requests; back-off stays.
    """

    def __init__(
        self, base_url: str, manners: Manners | None = None, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        manners = manners or Manners()
        loopback = httpx.URL(base_url).host in _LOOPBACK
        self.manners = replace(manners, min_interval_seconds=0.0, jitter_seconds=0.0) if loopback else manners
        self._base = base_url.rstrip("/")
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._blocked = False
        self._client = httpx.Client(
            # identity: a WARC file's gzip members are the content, never a transfer coding to undo
            headers={"User-Agent": self.manners.user_agent, "Accept-Encoding": "identity"},
            timeout=self.manners.timeout_seconds,
            follow_redirects=False,
            trust_env=not loopback,
        )

    def close(self) -> None:
        self._client.close()

    def warc_paths(self, crawl: str) -> Iterator[str]:
        return parse_listing(self.whole(listing_path(crawl), MAX_LISTING_BYTES))

    def whole(self, path: str, max_bytes: int) -> bytes:
        """A small file at once. Raises TooLarge over the cap."""
        return self.persist(path, lambda: self._whole(path, max_bytes))

    def open(self, path: str) -> BinaryIO:
        path = checked_path(path)
        response = self.persist(path, lambda: self._opened(path))
        stream = _ResumingStream(self, path, response)
        return cast(BinaryIO, io.BufferedReader(stream, buffer_size=256 * 2**10))

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        path = checked_path(path)
        if offset < 0 or length < 1:
            raise BadInput(f"no byte range: offset {offset}, length {length}")
        if length > MAX_RANGE_BYTES:
            raise TooLarge(f"a range of {length} bytes, over {MAX_RANGE_BYTES}")
        return self.persist(path, lambda: self._range(path, offset, length))

    def persist(self, path: str, attempt: Callable[[], T]) -> T:
        """`attempt`'s result, tried again with back-off while it fails transiently. Raises Unavailable at the end."""
        for failures in range(self.manners.max_attempts):
            try:
                return attempt()
            except _Transient as error:
                reason = str(error)
                if failures + 1 < self.manners.max_attempts:
                    self.pause(failures, error.wait_seconds)
        raise Unavailable(
            f"{self._base}/{path}: {reason}, {self.manners.max_attempts} times in a row", remedy="try again later"
        )

    def pause(self, failures: int, at_least_seconds: float = 0.0) -> None:
        """Back off after the given number of earlier failures in a row."""
        backoff = self.manners.backoff_seconds(failures)
        asked = min(at_least_seconds, 10 * self.manners.max_backoff_seconds)
        self._sleep(max(backoff, asked) + random.uniform(0.0, self.manners.jitter_seconds))

    def get(self, path: str, span: str | None = None) -> httpx.Response:
        """One paced GET; the body is unread, the caller closes it. The status is 200, or 206 where `span` is given.

        Raises CrawlBlocked, NotFound, BadInput (416), Unavailable (what no retry mends), _Transient (the rest).
        """
        if self._blocked:
            raise self._block(path)
        self._take_turn()
        request = self._client.build_request(
            "GET", f"{self._base}/{path}", headers={"Range": f"bytes={span}"} if span else None
        )
        try:
            response = self._client.send(request, stream=True)
        except httpx.TransportError as error:
            raise _Transient(f"{type(error).__name__}: {error}") from error
        if response.status_code == (206 if span else 200):
            return response
        response.close()
        raise self._refusal(response, path)

    def _refusal(self, response: httpx.Response, path: str) -> Exception:
        status, where = response.status_code, f"{self._base}/{path}"
        if status == 403:
            self._blocked = True
            return self._block(path)
        if status in (404, 410):
            return NotFound(f"{where} does not exist")
        if status == 416:
            return BadInput(f"{where} ends before the byte range asked for")
        if status == 200:
            return Unavailable(f"{where}: the server ignores byte ranges", remedy="use a server that honours Range")
        if 300 <= status < 400:
            target = response.headers.get("location", "nowhere")[:200]
            return Unavailable(f"{where} redirects to {target}", remedy="set the crawl to the address it redirects to")
        if status == 429 or status >= 500:
            return _Transient(f"HTTP {status}", _retry_after_seconds(response))
        return Unavailable(f"{where} answered HTTP {status}")

    def _block(self, path: str) -> CrawlBlocked:
        return CrawlBlocked(
            f"{self._base}/{path} answered 403: this address is blocked",
            remedy="stop all crawling from this address for a day, then go on with fewer nodes",
        )

    def _take_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = (
                start + self.manners.min_interval_seconds + random.uniform(0.0, self.manners.jitter_seconds)
            )
        if start > now:
            self._sleep(start - now)

    def _whole(self, path: str, max_bytes: int) -> bytes:
        with closing(self.get(path)) as response:
            # A chunked body, as pages made on demand have, says itself where it ends.
            chunked = response.headers.get("transfer-encoding", "").lower() == "chunked"
            size = 0 if chunked else content_length(response)
            if size <= max_bytes:
                body = _read(response, max_bytes) if chunked else _read_exactly(response, size)
                if len(body) <= max_bytes:
                    return body
        raise TooLarge(f"{self._base}/{path} is over {max_bytes} bytes")

    def _opened(self, path: str) -> httpx.Response:
        response = self.get(path)
        try:
            if content_length(response) > MAX_WARC_BYTES:
                raise TooLarge(f"{self._base}/{path} is over {MAX_WARC_BYTES} bytes")
        except (_Transient, TooLarge):
            response.close()
            raise
        return response

    def _range(self, path: str, offset: int, length: int) -> bytes:
        with closing(self.get(path, f"{offset}-{offset + length - 1}")) as response:
            first, last, total = content_range(response)
            if first == offset and last == total - 1 and last < offset + length - 1:
                raise BadInput(f"{self._base}/{path} has {total} bytes; the range asked for ends past them")
            if (first, last) != (offset, offset + length - 1) or content_length(response) != length:
                raise Unavailable(f"{self._base}/{path}: the server answered with another byte range")
            return _read_exactly(response, length)


class _ResumingStream(io.RawIOBase):
    """A whole file; a broken connection is taken up again where it broke, as long as the file stays the same."""

    def __init__(self, crawl: HttpCrawl, path: str, response: httpx.Response) -> None:
        self._crawl = crawl
        self._path = path
        self._response = response
        self._chunks = response.iter_raw()
        self._etag = response.headers.get("etag")
        self._total = content_length(response)
        self._position = 0  # of what arrived
        self._rest = b""  # arrived, not yet handed on
        self._breaks = 0  # in a row, without a byte between them

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # Buffer is typed from 3.12 on
        while not self._rest:
            if self._position == self._total:
                return 0
            try:
                self._rest = next(self._chunks, b"")[: self._total - self._position]
                reason = "the connection closed early"
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            if self._rest:
                self._breaks = 0
                self._position += len(self._rest)
            else:
                self._resume(reason)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def _resume(self, reason: str) -> None:
        self._response.close()
        if self._breaks >= self._crawl.manners.max_attempts:
            raise Unavailable(f"{self._path}: {reason} at byte {self._position}, again and again")
        self._crawl.pause(self._breaks)
        self._breaks += 1
        span = f"{self._position}-{self._total - 1}"
        self._response = self._crawl.persist(self._path, lambda: self._crawl.get(self._path, span))
        self._chunks = self._response.iter_raw()
        expected = (self._position, self._total - 1, self._total)
        if content_range(self._response) != expected or self._response.headers.get("etag") != self._etag:
            raise Unavailable(f"{self._path} changed while it was being read", remedy="read it again from its start")


def content_length(response: httpx.Response) -> int:
    """The promised length of the body. Raises _Transient where there is none: completeness could not be checked."""
    value = response.headers.get("content-length", "")
    if not re.fullmatch(r"\d{1,19}", value):
        raise _Transient("no Content-Length in the answer")
    return int(value)


def content_range(response: httpx.Response) -> tuple[int, int, int]:
    """First and last byte of a 206 answer and the file's size. Raises Unavailable."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None:
        raise Unavailable(f"{response.url}: partial answer without a Content-Range")
    first, last, total = (int(group) for group in match.groups())
    return first, last, total


def _retry_after_seconds(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"\d{1,6}", value) else 0.0


def _read_exactly(response: httpx.Response, length: int) -> bytes:
    body = _read(response, length)
    if len(body) != length:
        raise _Transient("more or fewer bytes than promised")
    return body


def _read(response: httpx.Response, max_bytes: int) -> bytes:
    """The body; of one over the cap, a little more than the cap."""
    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > max_bytes:
                break
    except httpx.TransportError as error:
        raise _Transient(f"{type(error).__name__}: {error}") from error
    return bytes(body)
