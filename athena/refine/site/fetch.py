"""One web site as a polite guest: robots.txt, one request at a time, pauses, caps, and no way into a private net.

robots.txt is taken as RFC 9309 says, save that a 403 for it stops everything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import urldefrag, urljoin

import httpx
from protego import Protego

from athena.crawl_http import Manners
from athena.errors import BadInput, Blocked, Unavailable
from athena.refine.records import MAX_RECORD_BYTES

MAX_BODY_BYTES = MAX_RECORD_BYTES - (64 << 10)  # a WARC record with its headers stays below the refinery's cap
MAX_REDIRECTS = 5
ROBOT = "athena-network"
_MAX_ROBOTS_BYTES = 500 << 10  # what RFC 9309 asks for at least
_MAX_URL_CHARS = 2000
_MAX_WAIT_SECONDS = 3600.0
_MAX_ATTEMPTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_HTML = ("text/html", "application/xhtml+xml")


class Refused(Exception):
    """A page that is not to be had or not wanted, with the reason under which it is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Answer:
    """A complete answer. `body` is as it was sent, content codings included."""

    url: str
    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key.lower() == name)


def canonical(link: str, base: str) -> str:
    """The absolute address of a link, one spelling each, without fragment. Raises BadInput where it is no web page."""
    try:
        url = httpx.URL(urldefrag(urljoin(base, link.strip())).url)
    except (ValueError, httpx.InvalidURL) as error:
        raise BadInput(f"not a web address: {link[:200]!r}") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or len(str(url)) > _MAX_URL_CHARS:
        raise BadInput(f"not a web address: {link[:200]!r}", remedy="use https://host/path")
    return str(url)


def same_site(one: str, other: str) -> bool:
    """The same host, and the same port, unless both are the defaults of their schemes."""
    first, second = httpx.URL(one), httpx.URL(other)
    return (first.host, first.port) == (second.host, second.port)


class Site:
    """Answers of one site. To be used by one thread, in a `with` statement.

    `pause_seconds` lie between the starts of two requests, more if robots.txt asks for it. Raises Unavailable where
    the site cannot be reached or asks to come back later, Blocked where it wants no robot at all.
    """

    def __init__(
        self,
        start: str,
        *,
        pause_seconds: float,
        contact: str = "",
        page_seconds: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.start = canonical(start, start)
        self._pause_seconds = pause_seconds
        self._page_seconds = page_seconds
        self._sleep = sleep
        self._next_start = 0.0
        self._robots = Protego.parse("")
        self._private = _is_private_host(httpx.URL(self.start).host)
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(
            headers={
                "User-Agent": Manners(contact=contact).user_agent,
                "Accept": "text/html",
                "Accept-Encoding": "gzip",
            },
            timeout=min(30.0, page_seconds),
            trust_env=False,  # through a proxy, nobody could tell which address was reached
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def read_robots(self) -> None:
        """Fetches robots.txt, to be obeyed from now on. Raises Blocked where it is forbidden to read it."""
        url = canonical("/robots.txt", self.start)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                answer = self._persist(url, _MAX_ROBOTS_BYTES)
                if answer.status not in _REDIRECTS:
                    break
                url = self._redirected(answer)
        except Refused as refusal:
            raise Unavailable(f"{url}: {refusal.reason}", remedy="see that the site is up, and try again") from None
        if answer.status in (401, 403):
            raise Blocked(f"{url} answered {answer.status}: the site wants no robots", remedy="ask its operator")
        if answer.status >= 500:
            raise Unavailable(f"{url} answered {answer.status}", remedy="try again later")
        # Protego reads text; what is no UTF-8 in it cannot name this robot.
        self._robots = Protego.parse(answer.body.decode("utf-8", "replace") if answer.status == 200 else "")
        if not self.allows(self.start):
            raise Blocked(f"{url} disallows {self.start}", remedy="start at a page that robots may read")
        delay = self._robots.crawl_delay(ROBOT) or 0.0
        rate = self._robots.request_rate(ROBOT)
        if rate is not None and rate.requests > 0:
            delay = max(delay, rate.seconds / rate.requests)
        if delay > _MAX_WAIT_SECONDS:
            raise Blocked(f"{url} asks for {delay:.0f} s between requests", remedy="ask its operator")
        self._pause_seconds = max(self._pause_seconds, delay)
        self._next_start = time.monotonic() + self._pause_seconds

    def allows(self, url: str) -> bool:
        return bool(self._robots.can_fetch(url, ROBOT))

    def page(self, url: str) -> tuple[Answer, list[str]]:
        """The HTML page at `url` or where it redirects to on this site, and the addresses passed on the way.

        Raises Refused for everything else than a whole page: http-404, not-html, too-large, slow, unreachable, robots,
        other-site, redirects.
        """
        passed: list[str] = []
        while True:
            if not self.allows(url):
                raise Refused("robots")
            passed.append(url)
            answer = self._persist(url, MAX_BODY_BYTES, only_html=True)
            if answer.status in _REDIRECTS:
                if len(passed) > MAX_REDIRECTS:
                    raise Refused("redirects")
                url = self._redirected(answer)
                if url in passed:
                    raise Refused("redirects")
                continue
            if answer.status != 200:
                raise Refused(f"http-{answer.status}")
            return answer, passed

    def _redirected(self, answer: Answer) -> str:
        try:
            target = canonical(answer.header("location"), answer.url)
        except BadInput:
            raise Refused("redirects") from None
        if not same_site(target, self.start):
            if answer.url in (self.start, canonical("/robots.txt", self.start)):
                raise BadInput(f"{answer.url} redirects to another site", remedy=f"start at {target[:200]}")
            raise Refused("other-site")
        return target

    def _persist(self, url: str, max_bytes: int, *, only_html: bool = False) -> Answer:
        """An answer that is none of a busy or failing server's, tried again with growing pauses."""
        for failures in range(_MAX_ATTEMPTS):
            self._take_turn()
            try:
                answer = self._runner.run(self._get(url, max_bytes, only_html))
            except httpx.TransportError as error:
                problem, asked = type(error).__name__, 0.0
            except (httpx.InvalidURL, UnicodeError):
                raise Refused("unreachable") from None
            else:
                if answer.status not in (429, 503):
                    return answer
                problem, asked = f"HTTP {answer.status}", _retry_after_seconds(answer.header("retry-after"))
                if asked > _MAX_WAIT_SECONDS:
                    raise Unavailable(f"{url} asks to come back in {asked:.0f} s", remedy="go on then")
            if failures + 1 < _MAX_ATTEMPTS:
                self._sleep(max(asked, 2.0**failures))
        if problem.startswith("HTTP"):
            raise Unavailable(f"{url}: {problem}, {_MAX_ATTEMPTS} times in a row", remedy="go on later")
        raise Refused("unreachable")

    def _take_turn(self) -> None:
        wait = self._next_start - time.monotonic()
        if wait > 0:
            self._sleep(wait)
        self._next_start = time.monotonic() + self._pause_seconds

    async def _get(self, url: str, max_bytes: int, only_html: bool) -> Answer:
        """One request under one deadline, however slowly the bytes come."""
        try:
            async with asyncio.timeout(self._page_seconds):
                await self._check_addresses(url)
                async with self._client.stream("GET", url) as response:
                    self._check_peer(response)
                    wanted = response.status_code == 200
                    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                    if wanted and only_html and kind not in _HTML:
                        raise Refused("not-html")
                    body = await _read(response, max_bytes, cut=not only_html) if wanted else b""
        except TimeoutError:
            raise Refused("slow") from None
        headers = tuple((key.decode("latin-1"), value.decode("latin-1")) for key, value in response.headers.raw)
        return Answer(url, response.status_code, response.reason_phrase, headers, body)

    async def _check_addresses(self, url: str) -> None:
        """Before anything is sent. A name that resolves to another address a moment later is caught at the peer."""
        if self._private:
            return
        target = httpx.URL(url)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpx.ConnectError(f"{target.host} does not resolve") from error
        for *_, address in found:
            _refuse_private(str(address[0]), target.host)

    def _check_peer(self, response: httpx.Response) -> None:
        if not self._private:
            peer = response.extensions["network_stream"].get_extra_info("server_addr")
            _refuse_private(str(peer[0]), response.url.host)


def _refuse_private(address: str, host: str) -> None:
    if not _is_public(ipaddress.ip_address(address.partition("%")[0])):
        raise Blocked(f"{host} leads to the private address {address}", remedy="start at that address if you mean it")


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    real = mapped or address
    return real.is_global and not real.is_multicast


def _is_private_host(host: str) -> bool:
    """Whether a person who types this host means a private address."""
    try:
        return not _is_public(ipaddress.ip_address(host))
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


async def _read(response: httpx.Response, max_bytes: int, *, cut: bool) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            if cut:
                break
            raise Refused("too-large")
    return bytes(body[:max_bytes])


def _retry_after_seconds(value: str) -> float:
    """Seconds from now, given as a number or a date; 0 where neither."""
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
