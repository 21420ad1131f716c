"""The table of runs, in one SQLite file: what is queued, what runs on which devices, how each ended. No torch here.

A run that was claimed is held by a lock on a file of its folder, which the kernel lets go when the last process of the
run dies, however it dies. So a dead run is told from a living one without clocks or process numbers, and none is ever
started twice, by however many schedulers. Devices are rows of their own: two runs cannot hold one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from athena.database import Database
from athena.errors import Conflict, NotFound
from athena.train.runs_record import Run, RunSpec, RunState, is_alive, lock_run

RUNS_FILE = "runs.sqlite"
"""Its name in a trainer's state folder."""
MAX_DEATHS = 5
"""A run whose process died this often in a row without getting further has failed."""
FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 600.0


_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    folder TEXT NOT NULL UNIQUE,
    spec TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    place INTEGER NOT NULL,
    due_at REAL NOT NULL,
    queued_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    deaths INTEGER NOT NULL DEFAULT 0,
    step INTEGER NOT NULL DEFAULT 0,
    cancelling INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    result TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, place);
CREATE TABLE IF NOT EXISTS devices (device TEXT PRIMARY KEY, run TEXT NOT NULL REFERENCES runs (name)) STRICT;
"""
_COLUMNS = "spec, state, queued_at, started_at, ended_at, deaths, step, cancelling, error, result, due_at"


@dataclass(frozen=True)
class Claim:
    """A run that is now the caller's to start: a process that inherits `lock` (a file descriptor) keeps it."""

    run: Run
    lock: int


class RunTable(Database):
    """Runs by name, in the order in which they were queued.

    An object is one thread's; several may share a file. Times are those of the caller's clock, in Unix seconds.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA)

    @classmethod
    def existing(cls, state: Path) -> Self:
        """The table in a trainer's state folder. Raises NotFound where none was made."""
        if not (state / RUNS_FILE).is_file():
            raise NotFound(f"no runs in {state}", remedy="name the trainer's state folder with --state")
        return cls(state / RUNS_FILE)

    def add(self, spec: RunSpec, *, now: float) -> bool:
        """Queues a run, once: whether it was new. Raises Conflict where the name or the folder is another run's."""
        with self.at_once():
            done = self._db.execute(
                "INSERT INTO runs (name, folder, spec, place, due_at, queued_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (spec.name, spec.folder, spec.canonical().decode(), self._next_place(), now, now),
            )
            if done.rowcount == 1:
                return True
            row = self._db.execute("SELECT spec FROM runs WHERE name = ?", (spec.name,)).fetchone()
        if row is None or RunSpec.model_validate_json(row[0]) != spec:
            taken = "folder" if row is None else "name"
            raise Conflict(f"the {taken} of {spec.name} is another run's", remedy=f"choose another {taken}")
        return False

    def extend(self, spec: RunSpec, *, now: float) -> None:
        """Gives a trunk that is done more to do: its new spec, and a place in the queue.

        Raises NotFound, and Conflict while it has not ended, or where the folder would be another.
        """
        with self.at_once():
            run = self.run(spec.name)
            if run.state != "done" or run.spec.folder != spec.folder:
                raise Conflict(f"{spec.name} is {run.state}", remedy="extend it when it is done, in its own folder")
            self._db.execute(
                "UPDATE runs SET spec = ?, result = NULL WHERE name = ?", (spec.canonical().decode(), spec.name)
            )
            self._queue(spec.name, now)

    def claim(self, devices: Sequence[str], *, now: float) -> Claim | None:
        """Takes the run that is due, of those whose time came first, and the devices that it needs out of `devices`.

        First come, first served: while the first does not fit into the devices that are free, none behind it starts.
        One that needs more devices than there are at all is passed over.
        """
        with self.at_once():
            held = {device for (device,) in self._db.execute("SELECT device FROM devices")}
            free = [device for device in devices if device not in held]
            for run in self._select("state = 'queued' AND due_at <= ? ORDER BY place", now):
                if run.spec.devices > len(devices):
                    continue
                if run.spec.devices > len(free):
                    return None
                lock = lock_run(run.folder)
                if lock is None:  # what is left of its last process is still dying
                    continue
                taken = free[: run.spec.devices]
                self._db.execute(
                    "UPDATE runs SET state = 'running', started_at = ?, ended_at = NULL, error = NULL WHERE name = ?",
                    (now, run.name),
                )
                self._db.executemany("INSERT INTO devices VALUES (?, ?)", [(device, run.name) for device in taken])
                return Claim(self.run(run.name), lock)
        return None

    def finish(self, name: str, *, now: float, step: int) -> None:
        """A running run has done all that it had to do."""
        self._end(name, "done", now=now, step=step)

    def fail(self, name: str, error: str, *, now: float, step: int) -> None:
        """A running run ended with an error that a restart does not mend."""
        self._end(name, "failed", now=now, step=step, error=error)

    def put_back(self, name: str, *, now: float, step: int, reason: str | None = None, give_up: bool = False) -> None:
        """A running run is queued again, at its old place; it goes on from its last checkpoint.

        With a `reason` it waits longer each time in a row without a further step, and one to `give_up` has failed after
        MAX_DEATHS such times. One that was told to be cancelled is cancelled.
        """
        with self.at_once():
            run = self.run(name)
            if run.state != "running":
                return
            deaths = 0 if reason is None else 1 if step > run.step else run.deaths + 1
            if run.cancelling:
                self._ended(name, "cancelled", now, step, None)
            elif give_up and deaths >= MAX_DEATHS:
                self._ended(name, "failed", now, step, f"{reason}, {deaths} times in a row")
            else:
                pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(deaths - 1, 30)) if deaths else 0.0
                self._free(name)
                self._db.execute(
                    "UPDATE runs SET state = 'queued', due_at = ?, deaths = ?, step = ?, error = ? WHERE name = ?",
                    (now + pause, deaths, step, reason, name),
                )

    def cancel(self, name: str, *, now: float) -> Run:
        """A queued run is cancelled; a running one is to be stopped by whoever runs it. Raises NotFound, Conflict."""
        with self.at_once():
            run = self.run(name)
            if run.state == "queued":
                self._ended(name, "cancelled", now, run.step, None)
            elif run.state == "running":
                self._db.execute("UPDATE runs SET cancelling = 1 WHERE name = ?", (name,))
            else:
                raise Conflict(f"{name} is {run.state} already")
            return self.run(name)

    def resume(self, name: str, *, now: float) -> Run:
        """Queues a failed or cancelled run again; it goes on from its last checkpoint. Raises NotFound, Conflict."""
        with self.at_once():
            run = self.run(name)
            if run.state not in ("failed", "cancelled"):
                raise Conflict(f"{name} is {run.state}: only failed and cancelled runs are resumed")
            self._queue(name, now)
            return self.run(name)

    def orphans(self) -> list[Run]:
        """The running runs of which no process lives any more."""
        return [run for run in self._select("state = 'running' ORDER BY place") if not is_alive(run.folder)]

    def settle(self, name: str, result: str) -> None:
        """Notes what became of a run that is done: that it was released, for example. Raises NotFound."""
        if self._db.execute("UPDATE runs SET result = ? WHERE name = ?", (result, name)).rowcount == 0:
            raise NotFound(f"no run {name}")

    def runs(self) -> list[Run]:
        """Every run, in the order in which they were first queued."""
        return list(self._select("1 ORDER BY number"))

    def run(self, name: str) -> Run:
        """Raises NotFound."""
        for run in self._select("name = ?", name):
            return run
        known = ", ".join(run.name for run in self.runs()[-5:])
        raise NotFound(f"no run {name}", remedy=f"there are: {known}" if known else None)

    def _select(self, where: str, *values: object) -> Iterator[Run]:
        held: dict[str, list[str]] = {}
        for device, run in self._db.execute("SELECT device, run FROM devices ORDER BY device"):
            held.setdefault(run, []).append(device)
        for spec, *rest in self._db.execute(f"SELECT {_COLUMNS} FROM runs WHERE {where}", values).fetchall():
            described = RunSpec.model_validate_json(spec)
            state, queued, started, ended, deaths, step, cancelling, error, result, due = rest
            yield Run(
                described, state, queued, started, ended, deaths, step, bool(cancelling), error, result, due,
                tuple(held.get(described.name, ())),
            )  # fmt: skip

    def _end(self, name: str, state: RunState, *, now: float, step: int, error: str | None = None) -> None:
        with self.at_once():
            if self.run(name).state == "running":
                self._ended(name, state, now, step, error)

    def _ended(self, name: str, state: RunState, now: float, step: int, error: str | None) -> None:
        self._free(name)
        self._db.execute(
            "UPDATE runs SET state = ?, ended_at = ?, step = ?, error = ?, cancelling = 0 WHERE name = ?",
            (state, now, step, error, name),
        )

    def _queue(self, name: str, now: float) -> None:
        self._db.execute(
            "UPDATE runs SET state = 'queued', place = ?, due_at = ?, queued_at = ?, deaths = 0, error = NULL"
            " WHERE name = ?",
            (self._next_place(), now, now, name),
        )

    def _free(self, name: str) -> None:
        self._db.execute("DELETE FROM devices WHERE run = ?", (name,))

    def _next_place(self) -> int:
        (last,) = self._db.execute("SELECT coalesce(max(place), 0) FROM runs").fetchone()
        return int(last) + 1
