"""A validator's durable list of cases, in one SQLite file. Killed at any moment, it goes on where it was.

A case counts as seen only once its sheet is stored, in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    posted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS cases_by_block ON cases (commit_block, key);
CREATE INDEX IF NOT EXISTS cases_due ON cases (due_at) WHERE outcome IS NULL OR outcome = 'none';
"""
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


class CaseQueue:
    """Cases to judge, their sheets, and what is still to be posted. One process, one thread at a time.

    All times are Unix seconds of the caller's clock.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def enqueue(self, key: str, *, hotkey: str, task_id: str, commit_block: int, payload: str, due_at: float) -> bool:
        """Adds a case, once: whether it was new. A known key changes nothing."""
        done = self._db.execute(
            "INSERT INTO cases (key, hotkey, task_id, commit_block, payload, due_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (key, hotkey, task_id, commit_block, payload, due_at),
        )
        return done.rowcount == 1

    def due(self, now: float) -> Entry | None:
        """The case to judge next: without a verdict, due by now, earliest commitment first. It stays due."""
        row = self._db.execute(
            "SELECT key, hotkey, task_id, commit_block, payload, attempts FROM cases"
            " WHERE (outcome IS NULL OR outcome = 'none') AND due_at <= ? ORDER BY commit_block, key LIMIT 1",
            (now,),
        ).fetchone()
        return Entry(*row) if row else None

    def next_due_at(self) -> float | None:
        """When the earliest open case is due; None if all are settled."""
        (at,) = self._db.execute("SELECT min(due_at) FROM cases WHERE outcome IS NULL OR outcome = 'none'").fetchone()
        return None if at is None else float(at)

    def settle(self, key: str, signed: SignedSheet, *, now: float) -> None:
        """Stores a sheet with its verdict. Outcome none makes the case due again, later each time. Final ones stay."""
        outcome = signed.sheet.outcome
        with self._transaction():
            row = self._db.execute("SELECT attempts, outcome FROM cases WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise KeyError(key)
            attempts, before = row
            if before in ("pass", "fail"):
                return
            due_at = now + min(_MAX_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 30))
            self._db.execute(
                "UPDATE cases SET outcome = ?, sheet = ?, attempts = attempts + ?, due_at = ?, posted = 0"
                " WHERE key = ?",
                (outcome, signed.canonical().decode(), int(outcome == "none"), due_at, key),
            )

    def unposted(self) -> list[tuple[str, SignedSheet]]:
        """Sheets, by key, that the task server has not taken yet; only final verdicts are posted."""
        rows = self._db.execute(
            "SELECT key, sheet FROM cases WHERE posted = 0 AND outcome IN ('pass', 'fail') ORDER BY commit_block, key"
        ).fetchall()
        return [(key, SignedSheet.model_validate_json(sheet)) for key, sheet in rows]

    def mark_posted(self, key: str) -> None:
        self._db.execute("UPDATE cases SET posted = 1 WHERE key = ?", (key,))

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

    def note(self, name: str, value: int) -> None:
        """Keeps a number under a name, such as the last block that was read."""
        self._db.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, value))

    def noted(self, name: str) -> int | None:
        row = self._db.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def counts(self) -> dict[Outcome | None, int]:
        """Cases by outcome; None for those that were never judged."""
        return dict(self._db.execute("SELECT outcome, count(*) FROM cases GROUP BY outcome").fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
