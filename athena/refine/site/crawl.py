"""A polite crawl of one web site into a WARC file, which goes on where it was interrupted."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import lxml.etree
import lxml.html
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from athena.errors import BadInput, Conflict, Unavailable
from athena.refine.records import Record, decoded, parse_record
from athena.refine.site.fetch import Answer, Refused, Site, canonical, same_site
from athena.refine.site.frontier import Frontier, SiteReport
from athena.refine.text import html

_MAX_LINKS_PER_PAGE = 2000
_TRIES_PER_PAGE = 10  # a trap of dead links ends the crawl as surely as one of pages
_UNREACHABLE_IN_A_ROW = 5
_NO_PAGES = frozenset(
    (
        ".7z", ".avi", ".bmp", ".bz2", ".css", ".csv", ".doc", ".docx", ".eot", ".epub", ".exe", ".gif", ".gz", ".ico",
        ".iso", ".jpeg", ".jpg", ".js", ".json", ".m4a", ".mov", ".mp3", ".mp4", ".mpg", ".ogg", ".pdf", ".png", ".ppt",
        ".pptx", ".rar", ".rss", ".svg", ".tar", ".tgz", ".tif", ".tiff", ".ttf", ".wav", ".webm", ".webp", ".woff",
        ".woff2", ".xls", ".xlsx", ".xml", ".zip",
    )
)  # fmt: skip
"""Suffixes of files that are no pages: not asked for at all."""
_DROPPED_HEADERS = ("transfer-encoding", "content-length", "set-cookie")


def crawl_site(
    start: str,
    out: Path,
    *,
    max_pages: int,
    pause_seconds: float = 1.0,
    contact: str = "",
    page_seconds: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int], None] = lambda pages: None,
) -> SiteReport:
    """Fetches up to `max_pages` HTML pages of the host of `start`, nearest first, into the WARC file `out`.

    Killed at any moment and called again with the same `start` and `out`, it goes on; no page is twice in the file.
    Raises Conflict if `out` exists or another process writes to it, BadInput where no page could be had, Blocked where
    the site wants no robots or is not the public one that it seems, Unavailable where it asks to come back later.
    """
    if out.exists():
        raise Conflict(f"{out} exists", remedy="name another file, or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        Site(start, pause_seconds=pause_seconds, contact=contact, page_seconds=page_seconds, sleep=sleep) as site,
        closing(Frontier.open(out, site.start)) as frontier,
    ):
        site.read_robots()
        unreachable = 0
        while frontier.pages < max_pages and frontier.tries < _TRIES_PER_PAGE * max_pages:
            url = frontier.next()
            if url is None:
                break
            reason = _visit(url, site, frontier)
            unreachable = unreachable + 1 if reason == "unreachable" else 0
            if unreachable == _UNREACHABLE_IN_A_ROW or (unreachable and frontier.tries == 1):
                frontier.forget(unreachable)
                raise Unavailable(f"{site.start} cannot be reached", remedy="go on later")
            progress(frontier.pages)
        return frontier.finish()


def _visit(url: str, site: Site, frontier: Frontier) -> str | None:
    """Fetches one address and notes what came of it. The reason if it was no page."""
    try:
        answer, passed = site.page(url)
        if answer.url != url and frontier.has_tried(answer.url):
            raise Refused("known")
    except Refused as refusal:
        frontier.note([url], [], refusal.reason)
        return refusal.reason
    raw = _warc_record(answer)
    try:
        keep, links = _read_page(parse_record(raw, url, 0), answer, site)
    except BadInput:  # what the refinery could not read either
        frontier.note(passed, [], "unreadable")
        return "unreadable"
    reason = None if keep else "noindex"
    frontier.note(passed, links, reason, raw if keep else b"")
    return reason


def _warc_record(answer: Answer) -> bytes:
    """The answer as one gzip member of a WARC file. Session cookies are nobody's business."""
    headers = [(key, value) for key, value in answer.headers if key.lower() not in _DROPPED_HEADERS]
    headers.append(("Content-Length", str(len(answer.body))))
    status = StatusAndHeaders(f"{answer.status} {answer.phrase}", headers, protocol="HTTP/1.1")
    body, buffer = io.BytesIO(answer.body), io.BytesIO()
    writer = WARCWriter(buffer, gzip=True)
    writer.write_record(
        writer.create_warc_record(answer.url, "response", body, length=len(answer.body), http_headers=status)
    )
    return buffer.getvalue()


def _read_page(record: Record, answer: Answer, site: Site) -> tuple[bool, list[str]]:
    """Whether the page lets itself be kept, and the pages of this site that it lets robots follow links to."""
    text = decoded(record)
    if html.is_overloaded(text):
        raise BadInput("the page has more markup than parsers bear")
    parser = lxml.html.HTMLParser(encoding="utf-8")
    try:
        tree = lxml.html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except lxml.etree.ParserError as error:
        raise BadInput("the page has no element") from error
    robots = [meta.get("content", "") for meta in tree.iter("meta") if meta.get("name", "").lower() == "robots"]
    orders = {word.strip().lower() for word in ",".join([*robots, answer.header("x-robots-tag")]).split(",")}
    index = orders.isdisjoint(("noindex", "none"))
    if not orders.isdisjoint(("nofollow", "none")):
        return index, []
    base = next((element.get("href") for element in tree.iter("base") if element.get("href")), "")
    try:
        base = canonical(base, answer.url)
    except BadInput:
        base = answer.url
    return index, list(dict.fromkeys(_links(tree, base, site)))[:_MAX_LINKS_PER_PAGE]


def _links(tree: Any, base: str, site: Site) -> Iterator[str]:
    for element in tree.iter("a"):
        if not element.get("href") or "nofollow" in element.get("rel", "").lower().split():
            continue
        try:
            url = canonical(element.get("href"), base)
        except BadInput:
            continue
        if same_site(url, site.start) and PurePosixPath(urlsplit(url).path.lower()).suffix not in _NO_PAGES:
            yield url
