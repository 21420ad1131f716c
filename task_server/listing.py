"""Where a crawl's listing comes from: the crawl itself, checked against Common Crawl's list of crawls, or a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from athena.crawl import Manners, open_crawl
from athena.crawl_http import HttpCrawl
from athena.crawl_paths import MAX_LISTING_BYTES, checked_path, gzipped_lines
from athena.errors import BadInput, Misconfigured, NotFound, TooLarge, Unavailable
from task_server.settings import COMMON_CRAWL, ImportSettings

COLLINFO_URL = "https://index.commoncrawl.org/collinfo.json"
MAX_COLLINFO_BYTES = 2**20
"""Twice a thousand crawls; a hundred and some were listed in 2026."""
NUM_NAMED = 3  # newest crawls that a refusal names

_MAIN = re.compile(r"CC-MAIN-\d{4}-\d{2}")
_ADDRESS = re.compile(r"(https?://[a-z0-9.:\[\]-]+)/([^?#\s]+)", re.IGNORECASE)
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Listing:
    """The WARC files of a crawl: `paths` below `url`, in the listing's order. `name` is for people."""

    crawl: str
    url: str
    name: str
    paths: Sequence[str]


class _Collection(BaseModel):
    """One crawl in collinfo.json. What else stands there is not needed; old crawls have ids of other forms."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    name: Annotated[str, StringConstraints(pattern=r"^\P{C}{1,200}$")]


_COLLINFO = TypeAdapter(Annotated[list[_Collection], Field(max_length=2000)])


def find_listing(settings: ImportSettings) -> Listing:
    """What the import command was told to import. Raises as `fetch_listing` and `read_list`."""
    if settings.list is not None:
        return read_list(settings.list, settings.crawl)
    return fetch_listing(settings.crawl, settings.crawl_url, settings.collinfo_url, Manners(contact=settings.contact))


def fetch_listing(crawl: str, crawl_url: str, collinfo_url: str | None, manners: Manners) -> Listing:
    """The listing of a crawl, or of the `latest` one. Asks the list of crawls first, if there is one.

    Raises NotFound for a crawl that is not listed, BadInput for a listing that is none, CrawlBlocked when told to go,
    Unavailable.
    """
    if collinfo_url is None and crawl_url.rstrip("/") == COMMON_CRAWL:
        collinfo_url = COLLINFO_URL
    name = crawl
    if crawl == "latest" or (_MAIN.fullmatch(crawl) and collinfo_url is not None):
        crawl, name = _look_up(crawl, collinfo_url, manners)
    with closing(open_crawl(crawl_url, manners)) as source:
        return Listing(crawl, crawl_url, name, tuple(source.warc_paths(crawl)))


def read_list(file: Path, crawl: str) -> Listing:
    """The WARC files that a file names, one https:// address or local path a line, as a crawl of that id.

    The crawl lies where all of them lie: on the server, or in the deepest folder that holds them. Relative paths start
    at the current folder. Raises BadInput, with the line, for a file that is not there or lies elsewhere than the one
    before it; NotFound and TooLarge for the list itself.
    """
    places = [_place(number, line) for number, line in enumerate(_lines(file), start=1) if line]
    if not places:
        raise BadInput(f"{file} names no WARC file", remedy="write one https:// address or local path a line")
    for place in places:
        if place.root != places[0].root:
            raise BadInput(
                f"line {place.number} of {file} lies on {place.root or 'this machine'}, "
                f"the lines before it on {places[0].root or 'this machine'}",
                remedy="import each with a list and a crawl id of its own",
            )
    root, paths = places[0].root, [place.path for place in places]
    if not root:
        folder = Path(os.path.commonpath([Path(path).parent for path in paths]))
        root, paths = folder.as_uri(), [Path(path).relative_to(folder).as_posix() for path in paths]
    return Listing(crawl, root, crawl, tuple(map(checked_path, paths)))


def _look_up(crawl: str, collinfo_url: str | None, manners: Manners) -> tuple[str, str]:
    """Id and name of a listed crawl."""
    if collinfo_url is None:
        raise BadInput(f"there is no list of crawls to look for the {crawl} one in", remedy="name the crawl by its id")
    names = _collinfo(collinfo_url, manners)
    newest = sorted(filter(_MAIN.fullmatch, names), reverse=True)
    chosen = next(iter(newest), crawl) if crawl == "latest" else crawl
    if chosen not in names:
        raise NotFound(
            f"{collinfo_url} does not list {crawl}; the newest crawls are {', '.join(newest[:NUM_NAMED]) or 'none'}",
            remedy="name one of them, or latest",
        )
    return chosen, names[chosen]


def _collinfo(url: str, manners: Manners) -> dict[str, str]:
    """The name of each crawl by its id."""
    base, _, path = url.rpartition("/")
    if not re.fullmatch(r"https?://[^/?#]+(/[^?#]*)?", base) or not path:
        raise Misconfigured(f"{url!r} is no list of crawls", remedy=f"use {COLLINFO_URL}")
    with closing(HttpCrawl(base, manners)) as server:
        content = server.whole(path, MAX_COLLINFO_BYTES)
    try:
        return {collection.id: collection.name for collection in _COLLINFO.validate_json(content)}
    except ValidationError as error:
        raise BadInput(f"{url} is not a list of crawls: {error.errors()[0]['msg']}") from error


class _Place(NamedTuple):
    """One line of a list: a path on the server `root`, or a local one where `root` is empty."""

    number: int
    root: str
    path: str


def _lines(file: Path) -> Iterable[str]:
    try:
        if file.stat().st_size > MAX_LISTING_BYTES:
            raise TooLarge(f"{file} is over {MAX_LISTING_BYTES} bytes")
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFound(f"{file} is no file") from error
    except OSError as error:
        raise Unavailable(f"{file} cannot be read: {error.strerror}") from error
    lines = gzipped_lines(content) if content.startswith(_GZIP) else content.decode("utf-8", "replace").split("\n")
    return map(str.strip, lines)


def _place(number: int, line: str) -> _Place:
    if "://" not in line:
        return _Place(number, "", _local(number, line))
    address = _ADDRESS.fullmatch(line)
    if address is None:
        raise BadInput(
            f"line {number}, {line[:120]!r}, is not the plain http(s) address of a file",
            remedy="give https:// addresses or local paths",
        )
    server, path = address.groups()
    return _Place(number, server.lower(), path)


def _local(number: int, line: str) -> str:
    """The file itself: links are followed, as its crawl's folder must really hold it."""
    try:
        file = Path(line).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"line {number}, {line[:120]!r}, is no file on this machine") from error
    if not file.is_file():
        raise BadInput(f"line {number}, {line[:120]!r}, is no file")
    return str(file)
