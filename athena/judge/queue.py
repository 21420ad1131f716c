"""A validator's durable list of cases, in one SQLite file. Killed at any moment, it goes on where it was.

A case counts as seen only once its sheet is stored, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from athena.database import Database
from athena.protocol import Outcome, SignedSheet

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cases (
    key TEXT PRIMARY KEY,
    hotkey TEXT NOT NULL,
    task_id TEXT NOT NULL,
    commit_block INTEGER NOT NULL,
    payload TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL,
    outcome TEXT CHECK (outcome IN ('pass', 'fail', 'none')),
    sheet TEXT,
    posted INTEGER NOT NULL DEFAULT 0,
    published INTEGER NOT NULL DEFAULT 0,
    unfinished INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS gains (
    key TEXT PRIMARY KEY,
    pack TEXT NOT NULL,
    rule_version TEXT NOT NULL,
    hotkey TEXT NOT NULL,
    public REAL NOT NULL,
    sealed REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""
# What is asked for twice a second are the few cases that something is still to be done about, of all ever judged.
_OPEN = "(outcome IS NULL OR outcome = 'none')"
_UNPOSTED, _UNPUBLISHED = (f"{column} = 0 AND outcome IN ('pass', 'fail')" for column in ("posted", "published"))
_INDEXES = f"""
CREATE INDEX IF NOT EXISTS cases_by_block ON cases (commit_block, key);
CREATE INDEX IF NOT EXISTS cases_open ON cases (commit_block, key, due_at) WHERE {_OPEN};
CREATE INDEX IF NOT EXISTS cases_unposted ON cases (commit_block, key) WHERE {_UNPOSTED};
CREATE INDEX IF NOT EXISTS cases_unpublished ON cases (commit_block, key) WHERE {_UNPUBLISHED};
"""
QUEUE_FILE = "queue.sqlite"
"""Its name in a validator's state folder."""
LAST_READ, WEIGHED_EPOCH, WEIGHED_BLOCK = "last_read_block", "weighed_epoch", "weighed_block"
"""Numbers that are noted in it."""
_ADDED = ("published", "unfinished")  # columns that queue files of earlier versions lack
_FIRST_RETRY_SECONDS = 30.0
_MAX_RETRY_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class Entry:
    """A case that is due. `payload` is what it was enqueued with; `attempts` ended without a verdict so far."""

    key: str
    hotkey: str
    task_id: str
    commit_block: int
    payload: str
    attempts: int


@dataclass(frozen=True)
class Known:
    """A case as far as the disk is concerned: whose files it has, how old it is, and whether they are still needed."""

    task_id: str
    commit_block: int
    payload: str
    settled: bool


@dataclass(frozen=True)
class Gains:
    """What cases gained on both halves of the pack with this hash: (hotkey, effect on the public, on the sealed half),
    in the order in which they were kept."""

    pack: str
    rule_version: str
    effects: list[tuple[str, float, float]]


class CaseQueue(Database):
    """Cases to judge, their sheets, and what is still to be posted and published.

    An object is one thread's; several may share a file. All times are Unix seconds of the caller's clock.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)
        with self.at_once():
            present = {name for _, name, *_ in self._db.execute("PRAGMA table_info(cases)")}
            for column in _ADDED:
                if column not in present:
                    self._db.execute(f"ALTER TABLE cases ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
        self._db.executescript(_INDEXES)

    def enqueue(self, key: str, *, hotkey: str, task_id: str, commit_block: int, payload: str, due_at: float) -> bool:
        """Adds a case, once: whether it was new. A known key changes nothing."""
        done = self._db.execute(
            "INSERT INTO cases (key, hotkey, task_id, commit_block, payload, due_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (key, hotkey, task_id, commit_block, payload, due_at),
        )
        return done.rowcount == 1

    def waiting(self, now: float) -> Generator[Entry, None, None]:
        """The cases without a verdict that are due by now, earliest commitment first. They stay due."""
        rows = self._db.execute(
            f"SELECT key, hotkey, task_id, commit_block, payload, attempts FROM cases INDEXED BY cases_open"
            f" WHERE {_OPEN} AND due_at <= ? ORDER BY commit_block, key",
            (now,),
        )
        with closing(rows):
            for row in rows:
                yield Entry(*row)

    def due(self, now: float) -> Entry | None:
        """The case to judge next."""
        with closing(self.waiting(now)) as entries:
            return next(entries, None)

    def begin(self, key: str, *, now: float) -> None:
        """Notes that judging starts. Of a case that a process did not live to settle, the second start comes at once,
        and each further one later: what takes this process down with it does not keep the others waiting."""
        (before,) = self._db.execute("SELECT unfinished FROM cases WHERE key = ?", (key,)).fetchone()
        again = now + _pause(before - 1) if before else now
        self._db.execute("UPDATE cases SET unfinished = unfinished + 1, due_at = ? WHERE key = ?", (again, key))

    def next_due_at(self) -> float | None:
        """When the earliest open case is due; None if all are settled."""
        (at,) = self._db.execute(f"SELECT min(due_at) FROM cases WHERE {_OPEN}").fetchone()
        return None if at is None else float(at)

    def settle(self, key: str, signed: SignedSheet, *, now: float) -> None:
        """Stores a sheet with its verdict. Outcome none makes the case due again, later each time. Final ones stay."""
        outcome = signed.sheet.outcome
        with self.at_once():
            row = self._db.execute("SELECT attempts, outcome FROM cases WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise KeyError(key)
            attempts, before = row
            if before in ("pass", "fail"):
                return
            self._db.execute(
                "UPDATE cases SET outcome = ?, sheet = ?, attempts = attempts + ?, due_at = ?, posted = 0,"
                " published = 0, unfinished = 0 WHERE key = ?",
                (outcome, signed.canonical().decode(), int(outcome == "none"), now + _pause(attempts), key),
            )

    def unposted(self) -> list[tuple[str, SignedSheet]]:
        """Sheets, by key, that the task server has not taken yet; only final verdicts are posted."""
        rows = self._db.execute(
            f"SELECT key, sheet FROM cases INDEXED BY cases_unposted WHERE {_UNPOSTED} ORDER BY commit_block, key"
        ).fetchall()
        return [(key, SignedSheet.model_validate_json(sheet)) for key, sheet in rows]

    def mark_posted(self, key: str) -> None:
        self._db.execute("UPDATE cases SET posted = 1 WHERE key = ?", (key,))

    def unpublished(self, limit: int) -> list[tuple[str, SignedSheet]]:
        """The same for the sheets' repository on the hub, at most `limit`."""
        rows = self._db.execute(
            f"SELECT key, sheet FROM cases INDEXED BY cases_unpublished WHERE {_UNPUBLISHED}"
            " ORDER BY commit_block, key LIMIT ?",
            (limit,),
        ).fetchall()
        return [(key, SignedSheet.model_validate_json(sheet)) for key, sheet in rows]

    def mark_published(self, keys: Iterable[str]) -> None:
        with self.at_once():
            self._db.executemany("UPDATE cases SET published = 1 WHERE key = ?", ((key,) for key in keys))

    def known(self) -> Iterator[Known]:
        """Every case, earliest commitment first."""
        query = (
            "SELECT task_id, commit_block, payload, outcome IN ('pass', 'fail') FROM cases ORDER BY commit_block, key"
        )
        for task_id, commit_block, payload, settled in self._db.execute(query):
            yield Known(task_id, commit_block, payload, bool(settled))

    def sheets(self, since_block: int = 0) -> Iterator[SignedSheet]:
        """The latest sheet, outcome none included, of each case with a commitment since that block, earliest first."""
        query = "SELECT sheet FROM cases WHERE sheet IS NOT NULL AND commit_block >= ? ORDER BY commit_block, key"
        for (sheet,) in self._db.execute(query, (since_block,)):
            yield SignedSheet.model_validate_json(sheet)

    def payloads(self, since_block: int = 0) -> Iterator[str]:
        """What each case with a commitment since that block was enqueued with, earliest first."""
        query = "SELECT payload FROM cases WHERE commit_block >= ? ORDER BY commit_block, key"
        for (payload,) in self._db.execute(query, (since_block,)):
            yield payload

    def keep_gain(self, key: str, *, pack: str, rule_version: str, hotkey: str, public: float, sealed: float) -> None:
        """Keeps a case's effects on both halves of a pack, which the hash of its public half names. The first stays."""
        self._db.execute(
            "INSERT INTO gains VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (key, pack, rule_version, hotkey, public, sealed),
        )

    def gains(self) -> Gains | None:
        """Those of the pack and the rule version of the one that was kept last; None where none was."""
        last = self._db.execute("SELECT pack, rule_version FROM gains ORDER BY rowid DESC LIMIT 1").fetchone()
        if last is None:
            return None
        query = "SELECT hotkey, public, sealed FROM gains WHERE pack = ? AND rule_version = ? ORDER BY rowid"
        pack, rule_version = last
        return Gains(pack, rule_version, self._db.execute(query, last).fetchall())

    def note(self, name: str, value: int) -> None:
        """Keeps a number under a name, such as the last block that was read."""
        self._db.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, value))

    def noted(self, name: str) -> int | None:
        row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def counts(self) -> dict[Outcome | None, int]:
        """Cases by outcome; None for those that were never judged."""
        return dict(self._db.execute("SELECT outcome, count(*) FROM cases GROUP BY outcome").fetchall())

    def status(self) -> dict[str, int | None]:
        """Counts and blocks, for people."""
        counts = self.counts()
        unposted, unpublished = self._db.execute(
            "SELECT coalesce(sum(posted = 0), 0), coalesce(sum(published = 0), 0) FROM cases"
            " WHERE outcome IN ('pass', 'fail')"
        ).fetchone()
        return {
            "passed": counts.get("pass", 0),
            "failed": counts.get("fail", 0),
            "never_judged": counts.get(None, 0),
            "to_be_tried_again": counts.get("none", 0),
            "sheets_to_post": unposted,
            "sheets_to_publish": unpublished,
            "measured_on_both_halves": self._db.execute("SELECT count(*) FROM gains").fetchone()[0],
            LAST_READ: self.noted(LAST_READ),
            WEIGHED_BLOCK: self.noted(WEIGHED_BLOCK),
        }


def _pause(attempts: int) -> float:
    """Seconds until the next attempt after so many failed ones."""
    return min(_MAX_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 30))
