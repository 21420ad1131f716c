"""The mixture's choice: each text once, no miner over its share. On disk, so that memory does not grow with the data.

Several miners refine the same shard, so most texts arrive more than once: the copy of the better paid miner is
credited, and where that miner's share is full, the next supplier's. The outcome does not depend on the order in which
datasets or documents arrive.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from athena.errors import Unavailable
from athena.train.mixture import Candidate, MixtureRules, allocate, crawl_of

CACHE_KIB = 32 * 2**10
"""Of each of the two databases; what does not fit lies on disk."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS scanned (dataset INTEGER PRIMARY KEY, refused TEXT, dropped TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS document (
    dataset INTEGER NOT NULL, row INTEGER NOT NULL, hotkey TEXT NOT NULL, warc_path TEXT NOT NULL,
    offset INTEGER NOT NULL, tokens INTEGER NOT NULL, language TEXT NOT NULL, crawl TEXT NOT NULL,
    text_hash BLOB NOT NULL, bands BLOB NOT NULL
);
"""
# Documents by priority, the best paid miner's first: their ranks decide every tie.
_RANK = """
CREATE TABLE w.ranked (rank INTEGER PRIMARY KEY, document INTEGER NOT NULL, text_hash BLOB NOT NULL);
INSERT INTO w.ranked (document, text_hash)
    SELECT d.rowid, d.text_hash FROM document d JOIN w.incentive i USING (hotkey) WHERE i.value > 0
    ORDER BY i.value DESC, d.warc_path, d.offset, d.hotkey, d.dataset, d.row;
CREATE TABLE w.unit (rank INTEGER PRIMARY KEY, text_hash BLOB NOT NULL, bands BLOB NOT NULL);
INSERT INTO w.unit
    SELECT MIN(r.rank), d.text_hash, d.bands FROM w.ranked r JOIN document d ON d.rowid = r.document
    GROUP BY d.text_hash, d.bands ORDER BY 1;
CREATE TABLE w.band (band INTEGER NOT NULL, rank INTEGER NOT NULL);
CREATE TABLE w.old_text (text_hash BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE w.old_band (band INTEGER PRIMARY KEY);
"""
_FORGET_OLD = """
INSERT OR IGNORE INTO w.old_text
    SELECT text_hash FROM w.band JOIN w.unit USING (rank) WHERE band IN (SELECT band FROM w.old_band);
DELETE FROM w.ranked WHERE text_hash IN (SELECT text_hash FROM w.old_text);
DELETE FROM w.band WHERE rank IN (SELECT rank FROM w.unit WHERE text_hash IN (SELECT text_hash FROM w.old_text));
DELETE FROM w.unit WHERE text_hash IN (SELECT text_hash FROM w.old_text);
"""
# Only documents that share a band or a text with another signature can lose to one: the rest is taken at once.
_RIVALS = """
CREATE TABLE w.contested (band INTEGER PRIMARY KEY);
INSERT INTO w.contested SELECT band FROM w.band GROUP BY band HAVING COUNT(*) > 1 ORDER BY band;
CREATE TABLE w.claim (rank INTEGER, band INTEGER, PRIMARY KEY (rank, band)) WITHOUT ROWID;
INSERT OR IGNORE INTO w.claim
    SELECT rank, band FROM w.band WHERE band IN (SELECT band FROM w.contested) ORDER BY rank, band;
CREATE TABLE w.rival (rank INTEGER PRIMARY KEY);
INSERT INTO w.rival
    SELECT rank FROM w.claim
    UNION SELECT rank FROM w.unit WHERE text_hash IN (SELECT text_hash FROM w.unit GROUP BY 1 HAVING COUNT(*) > 1);
CREATE TABLE w.text (text_hash BLOB PRIMARY KEY, rank INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO w.text SELECT text_hash, rank FROM w.unit WHERE rank NOT IN (SELECT rank FROM w.rival) ORDER BY text_hash;
CREATE TABLE w.taken (band INTEGER PRIMARY KEY);
"""
_COPIES = """
CREATE TABLE w.copy AS
    SELECT t.text_hash, MIN(r.rank) AS rank, COUNT(*) AS copies
    FROM w.ranked r CROSS JOIN w.text t ON t.text_hash = r.text_hash AND r.rank >= t.rank
        CROSS JOIN document d ON d.rowid = r.document
    GROUP BY t.text_hash, d.hotkey;
CREATE TABLE w.supply (text_hash BLOB PRIMARY KEY, shared INTEGER NOT NULL, drawn BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO w.supply SELECT text_hash, COUNT(*) > 1, drawn(text_hash) FROM w.copy GROUP BY text_hash ORDER BY text_hash;
CREATE TABLE w.credited (drawn BLOB NOT NULL, document INTEGER NOT NULL);
CREATE TABLE w.chosen (dataset INTEGER, row INTEGER, document INTEGER NOT NULL, PRIMARY KEY (dataset, row))
    WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Mixture:
    """What was chosen: tokens by what they come from, and documents that were dropped, by reason."""

    tokens_by_hotkey: dict[str, int]
    tokens_by_dataset: dict[int, int]
    tokens_by_crawl: dict[str, int]
    tokens_by_language: dict[str, int]
    dropped: Counter[str]


class CandidateTable:
    """The candidates of one mixture. As a context manager it is closed at the end.

    With a `path` what was scanned outlasts the process, unless it is of another mixture than `about`; without one it
    lies in a temporary file. Every verb raises Unavailable where the disk fails it.
    """

    def __init__(self, path: Path | None = None, about: str = "") -> None:
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._open()
        if self._one("SELECT digest FROM about") != about:
            self.close()
            self._remove()
            self._open()
            self._db.execute("INSERT INTO about VALUES (?)", (about,))
            self._db.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.OperationalError):
            raise Unavailable(f"the mixture's table failed: {error}", remedy="see that its disk has room") from error

    def close(self) -> None:
        self._db.close()

    def remove(self) -> None:
        """Closes the table and forgets all that it held."""
        self.close()
        self._remove()

    def scanned(self, dataset: int) -> bool:
        return self._one("SELECT 1 FROM scanned WHERE dataset = ?", dataset) is not None

    def add(self, dataset: int, found: Iterable[Candidate], dropped: Counter[str]) -> None:
        """Takes a dataset's candidates, all or none; `dropped` is read once they came to an end."""
        rows = (
            (c.dataset, c.row, c.hotkey, c.warc_path, c.offset, c.tokens, c.language, crawl_of(c.warc_path),
             c.text_hash, np.array(c.bands, dtype="<u8").tobytes())
            for c in found
        )  # fmt: skip
        with self._db:
            self._db.executemany("INSERT INTO document VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("INSERT INTO scanned VALUES (?, NULL, ?)", (dataset, json.dumps(dropped)))

    def refuse(self, dataset: int, reason: str) -> None:
        with self._db:
            self._db.execute("INSERT INTO scanned VALUES (?, ?, '{}')", (dataset, reason))

    def refused(self) -> dict[int, str]:
        """Why datasets were left out, by index."""
        return dict(self._db.execute("SELECT dataset, refused FROM scanned WHERE refused IS NOT NULL ORDER BY 1"))

    def mix(
        self, incentives: Mapping[str, float], rules: MixtureRules, trained: Iterable[tuple[bytes, bytes]] = ()
    ) -> Mixture:
        """Chooses the documents, which `rows` then tells.

        `incentives` by hotkey; documents of hotkeys without a positive one are left out. So are texts that are among
        the `trained` ones, or nearly: their hashes and bands. `dropped` counts what was dropped before, too.
        """
        dropped: Counter[str] = Counter()
        for (counts,) in self._db.execute("SELECT dropped FROM scanned"):
            dropped.update(json.loads(counts))
        self._begin(incentives, rules.seed)
        self._sign(trained, dropped)
        self._deduplicate(dropped)
        suppliers = self._one("SELECT COUNT(DISTINCT d.hotkey) FROM w.ranked r JOIN document d ON d.rowid = r.document")
        share = max(rules.max_miner_share, 1 / max(1, suppliers))
        self._credit(share)
        self._fill(incentives, rules, share, dropped)
        return Mixture(
            tokens_by_hotkey=self._tokens_by("w.chosen", "hotkey"),
            tokens_by_dataset=self._tokens_by("w.chosen", "dataset"),
            tokens_by_crawl=self._tokens_by("w.chosen", "crawl"),
            tokens_by_language=self._tokens_by("w.chosen", "language"),
            dropped=+dropped,
        )

    def rows(self, dataset: int) -> dict[int, bytes]:
        """The chosen rows of a dataset, ascending, with their bands, after `mix`."""
        return dict(
            self._db.execute(
                "SELECT c.row, d.bands FROM w.chosen c JOIN document d ON d.rowid = c.document "
                "WHERE c.dataset = ? ORDER BY c.row",
                (dataset,),
            )
        )

    def _open(self) -> None:
        """Opens the candidates, and a second database `w` for working a choice out, which is made anew each time."""
        scratch = "" if self._path is None else str(self._scratch)
        if self._path is not None:
            self._scratch.unlink(missing_ok=True)
        self._db = sqlite3.connect("" if self._path is None else self._path)
        self._db.execute("ATTACH ? AS w", (scratch,))
        self._db.executescript(
            f"PRAGMA main.cache_size = -{CACHE_KIB}; PRAGMA w.cache_size = -{CACHE_KIB}; PRAGMA temp_store = FILE;"
            f"PRAGMA w.journal_mode = OFF; PRAGMA w.synchronous = OFF; {_SCHEMA}"
        )

    @property
    def _scratch(self) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}.choice")

    def _remove(self) -> None:
        if self._path is not None:
            for path in (self._path, self._path.with_name(f"{self._path.name}-journal"), self._scratch):
                path.unlink(missing_ok=True)

    def _one(self, query: str, *values: Any) -> Any:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    def _begin(self, incentives: Mapping[str, float], seed: int) -> None:
        key = str(seed).encode()[:64]
        self._db.create_function(
            "drawn", 1, lambda text: hashlib.blake2b(text, key=key, digest_size=16).digest(), deterministic=True
        )
        tables = [name for (name,) in self._db.execute("SELECT name FROM w.sqlite_master WHERE type = 'table'")]
        self._db.executescript("".join(f"DROP TABLE w.{name};" for name in tables))
        self._db.execute("CREATE TABLE w.incentive (hotkey TEXT PRIMARY KEY, value REAL NOT NULL)")
        self._db.executemany("INSERT INTO w.incentive VALUES (?, ?)", incentives.items())
        self._db.executescript(_RANK)

    def _sign(self, trained: Iterable[tuple[bytes, bytes]], dropped: Counter[str]) -> None:
        """Fills w.band, after documents whose text was trained on, or one that shares a band with it, are forgotten."""
        units = self._db.execute("SELECT rank, bands FROM w.unit ORDER BY rank")
        self._db.executemany(
            "INSERT INTO w.band VALUES (?, ?)", ((band, rank) for rank, bands in units for band in _signed(bands))
        )
        for text_hash, bands in trained:
            self._db.execute("INSERT OR IGNORE INTO w.old_text VALUES (?)", (text_hash,))
            self._db.executemany("INSERT OR IGNORE INTO w.old_band VALUES (?)", ((band,) for band in _signed(bands)))
        before = self._one("SELECT COUNT(*) FROM w.ranked")
        self._db.executescript(_FORGET_OLD)
        dropped["trained on before"] += before - self._one("SELECT COUNT(*) FROM w.ranked")

    def _deduplicate(self, dropped: Counter[str]) -> None:
        """Leaves in w.text each distinct text with the rank of the document that stands for it.

        Documents are taken by rank. One whose text is already there is a copy of it; one that shares a MinHash band
        with a text taken before is dropped.
        """
        self._db.executescript(_RIVALS)
        rivals = self._db.execute("SELECT rank, text_hash FROM w.rival JOIN w.unit USING (rank) ORDER BY rank")
        beaten = "SELECT 1 FROM w.claim c WHERE rank = ? AND EXISTS (SELECT 1 FROM w.taken t WHERE t.band = c.band)"
        for rank, text_hash in rivals:
            if self._one("SELECT 1 FROM w.text WHERE text_hash = ?", text_hash) is None and not self._one(beaten, rank):
                self._db.execute("INSERT INTO w.text VALUES (?, ?)", (text_hash, rank))
                self._db.execute("INSERT INTO w.taken SELECT band FROM w.claim WHERE rank = ?", (rank,))
        self._db.executescript(_COPIES)
        copies = self._one("SELECT SUM(copies) FROM w.copy") or 0
        dropped["duplicate"] += copies - self._one("SELECT COUNT(*) FROM w.text")
        dropped["near duplicate"] += self._one("SELECT COUNT(*) FROM w.ranked") - copies

    def _credit(self, share: float) -> None:
        """Each text to its first supplier with room under `share` of all tokens, or to the first.

        Texts with one supplier go first: the others have a choice.
        """
        total = self._one(
            "SELECT SUM(d.tokens) FROM w.text t JOIN w.ranked r ON r.rank = t.rank "
            "JOIN document d ON d.rowid = r.document"
        )
        offers = self._db.execute(
            "SELECT s.drawn, r.document, d.hotkey, d.tokens FROM w.copy c CROSS JOIN w.supply s USING (text_hash) "
            "JOIN w.ranked r ON r.rank = c.rank JOIN document d ON d.rowid = r.document "
            "ORDER BY s.shared, s.drawn, r.rank"
        )
        self._db.executemany("INSERT INTO w.credited VALUES (?, ?)", _credited(offers, share * (total or 0)))

    def _fill(self, incentives: Mapping[str, float], rules: MixtureRules, share: float, dropped: Counter[str]) -> None:
        """Takes credited documents in drawn order while their miner, and their source, have room."""
        available = self._tokens_by("w.credited", "hotkey")
        by_miner = rules.weights is not None and rules.weighed_by == "hotkey"
        weights = {m: (rules.weights or {}).get(m, 0.0) if by_miner else incentives[m] for m in available}
        paid = {m: tokens for m, tokens in available.items() if weights[m] > 0}
        room = Counter(allocate(paid, weights, rules.max_tokens, max(share, 1 / max(1, len(paid)))))
        rooms = {"hotkey": room}
        if rules.weights is not None and not by_miner:
            supplied = {
                s: t for s, t in self._tokens_by("w.credited", "crawl").items() if rules.weights.get(s, 0.0) > 0
            }
            rooms["crawl"] = Counter(allocate(supplied, rules.weights, room.total(), 1.0))
        documents = self._db.execute(
            "SELECT d.dataset, d.row, c.document, d.tokens, d.hotkey, d.crawl FROM w.credited c "
            "JOIN document d ON d.rowid = c.document ORDER BY c.drawn"
        )
        self._db.executemany("INSERT INTO w.chosen VALUES (?, ?, ?)", _fitting(documents, rooms, dropped))

    def _tokens_by(self, documents: str, column: str) -> dict[Any, int]:
        return dict(
            self._db.execute(
                f"SELECT d.{column}, SUM(d.tokens) FROM {documents} c JOIN document d ON d.rowid = c.document "
                "GROUP BY 1 ORDER BY 1"
            )
        )


def _signed(bands: bytes) -> list[int]:
    """SQLite's integers are signed."""
    values: list[int] = np.frombuffer(bands, dtype="<i8").tolist()
    return values


def _credited(offers: Iterable[tuple[bytes, int, str, int]], limit: float) -> Iterator[tuple[bytes, int]]:
    used: Counter[str] = Counter()
    for drawn, suppliers in groupby(offers, key=itemgetter(0)):
        copies = list(suppliers)
        _, document, hotkey, tokens = next((c for c in copies if used[c[2]] + c[3] <= limit), copies[0])
        used[hotkey] += tokens
        yield drawn, document


def _fitting(
    documents: Iterable[tuple[int, int, int, int, str, str]], rooms: dict[str, Counter[str]], dropped: Counter[str]
) -> Iterator[tuple[int, int, int]]:
    for dataset, row, document, tokens, hotkey, crawl in documents:
        of = {"hotkey": hotkey, "crawl": crawl}
        if any(room[of[source]] < tokens for source, room in rooms.items()):
            dropped["over share"] += 1
            continue
        for source, room in rooms.items():
            room[of[source]] -= tokens
        yield dataset, row, document
