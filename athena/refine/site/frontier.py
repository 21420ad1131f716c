"""The durable state of a site's crawl: what was tried, what is still to try, and the WARC file so far.

`<out>.part` holds the pages and `<out>.frontier` one JSON line per address that was tried: what was found there, and
how long the WARC file was then. Both are cut back to the last whole line after a crash.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from athena.durable import finish
from athena.errors import BadInput, Conflict

MAX_FRONTIER = 100_000


@dataclass(frozen=True)
class SiteReport:
    """Pages in the WARC file, and how many addresses were tried without one, by reason."""

    pages: int
    refused: dict[str, int]


@dataclass
class Frontier:
    """What was tried, what is still to try, and the WARC file so far: always what the two files on disk say."""

    out: Path
    warc: BinaryIO
    journal: BinaryIO
    start: str
    queue: deque[str] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    pages: int = 0
    tries: int = 0
    finished: bool = False

    @classmethod
    def open(cls, out: Path, start: str) -> Frontier:
        """Goes on with what lies beside `out`, or begins. Raises Conflict if that is another crawl, or in use."""
        journal = out.with_name(f"{out.name}.frontier").open("a+b")
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            journal.close()
            raise Conflict(f"another process crawls into {out}") from error
        warc = out.with_name(f"{out.name}.part").open("a+b")
        frontier = cls(out, warc, journal, start)
        try:
            frontier._restore()
        except Conflict:
            warc.close()
            journal.close()
            raise
        return frontier

    def next(self) -> str | None:
        """An address that was not tried yet, the first found first."""
        while self.queue:
            url = self.queue.popleft()
            if url not in self.tried:
                return url
        return None

    def has_tried(self, url: str) -> bool:
        return url in self.tried

    def note(self, urls: list[str], links: list[str], reason: str | None, raw: bytes = b"") -> None:
        """Makes it durable that `urls` were tried, with the page first, so that a line never speaks of a torn one."""
        if raw:
            self.warc.write(raw)
            self.warc.flush()
            os.fsync(self.warc.fileno())
        new = [url for url in links if url not in self.known][: max(0, MAX_FRONTIER - len(self.known))]
        line = {"tried": urls, "found": new, "refused": reason, "end": self.warc.seek(0, os.SEEK_END)}
        self._write(line)
        self._apply(line)

    def forget(self, lines: int) -> None:
        """Takes back the last tries: a site that could not be reached is to be asked again."""
        kept = self._lines()[:-lines]
        self.tries -= lines
        self.journal.truncate(sum(map(len, kept)))
        os.fsync(self.journal.fileno())

    def finish(self) -> SiteReport:
        """Gives the WARC file its name. Raises BadInput where it has no page."""
        report = SiteReport(self.pages, dict(sorted(self.refused.items())))
        if self.pages:
            finish(Path(self.warc.name), self.out)
        else:
            Path(self.warc.name).unlink()
        Path(self.journal.name).unlink()
        self.finished = True
        if not self.pages:
            raise BadInput(f"no page of {self.start} could be had: {report.refused}", remedy="start at another page")
        return report

    def close(self) -> None:
        """Leaves what a later call goes on with; nothing where nothing was tried."""
        if not self.tries and not self.finished:
            Path(self.warc.name).unlink()
            Path(self.journal.name).unlink()
        self.warc.close()
        self.journal.close()

    def _lines(self) -> list[bytes]:
        self.journal.seek(0)
        return [line for line in self.journal if line.endswith(b"\n")]

    def _restore(self) -> None:
        lines = self._lines()
        entries = [json.loads(line) for line in lines]
        if entries and entries[0]["start"] != self.start:
            raise Conflict(f"{self.journal.name} is of another crawl", remedy="name another file, or remove it")
        end = entries[-1].get("end", 0) if entries else 0
        if self.warc.seek(0, os.SEEK_END) < end:  # a finished crawl, whose file has its final name already
            lines, entries, end = [], [], 0
        self.journal.truncate(sum(map(len, lines)))  # cuts off a line that a crash tore
        self.warc.truncate(end)
        if not entries:
            self._write({"start": self.start})
        self.known.add(self.start)
        self.queue.append(self.start)
        for entry in entries[1:]:
            self._apply(entry)

    def _write(self, line: dict[str, Any]) -> None:
        self.journal.write(json.dumps(line).encode() + b"\n")
        self.journal.flush()
        os.fsync(self.journal.fileno())

    def _apply(self, line: dict[str, Any]) -> None:
        self.tries += 1
        self.tried.update(line["tried"])
        self.known.update(line["tried"], line["found"])
        self.queue.extend(line["found"])
        if line["refused"] is None:
            self.pages += 1
        else:
            self.refused[line["refused"]] += 1
