"""WARC files, of pages or of text (WET), on this machine or behind an https address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import urlsplit

from athena.crawl_http import HttpCrawl, Manners
from athena.errors import BadInput, TooLarge
from athena.refine.records import Record, read_records, read_texts
from athena.refine.sources.files import Place, form_of

NOT_A_WARC = "not-a-warc"
COMMON_CRAWL = "data.commoncrawl.org"


@dataclass(frozen=True)
class WarcSource:
    """A WARC file: its HTML responses, or the plain texts of a WET file. Rows name it as `place` does."""

    place: Place
    is_wet: bool = False

    @property
    def name(self) -> str:
        return self.place.name

    def records(self, rejected: Counter[str]) -> Iterator[Record]:
        """As `read_records` and `read_texts`; a file that is no WARC file counts as one `not-a-warc`."""
        read = read_texts if self.is_wet else read_records
        with self.place.open() as stream:
            try:
                yield from read(stream, self.name, rejected)
            except TooLarge:
                raise
            except BadInput:  # only the first bytes of a file can raise it
                rejected[NOT_A_WARC] += 1


@dataclass(frozen=True)
class WebFile:
    """A file behind an http(s) address, read as politely as a crawl. A broken connection is taken up again.

    Rows name a file of Common Crawl by its path there, any other by its address. Neither says which version of the
    file it was: Common Crawl's never change, of others the rows' payload digests tell.
    """

    base: str
    path: str
    manners: Manners = field(default_factory=Manners)

    @classmethod
    def at(cls, url: str, manners: Manners | None = None) -> WebFile:
        """Raises BadInput for an address of another form than https://host/path."""
        parts = urlsplit(url)
        if not parts.hostname or not parts.path.strip("/") or parts.query or parts.fragment or parts.username:
            raise BadInput(f"not the address of a WARC file: {url[:200]}", remedy="use https://host/path.warc.gz")
        return cls(f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/"), manners or Manners())

    @property
    def name(self) -> str:
        return self.path if urlsplit(self.base).hostname == COMMON_CRAWL else f"{self.base}/{self.path}"

    def open(self) -> BinaryIO:
        crawl = HttpCrawl(self.base, self.manners)
        return crawl.open(self.path)


def web_source(url: str, manners: Manners | None = None) -> WarcSource:
    """The WARC or WET file at an http(s) address. Raises BadInput for any other kind of file."""
    place = WebFile.at(url, manners)
    kind = form_of(place.path).kind
    if kind not in ("warc", "wet"):
        raise BadInput(f"{url[:200]} is no WARC file", remedy="download it, and give the file")
    return WarcSource(place, is_wet=kind == "wet")
