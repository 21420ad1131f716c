"""Where the ledger lies: SQLite in a file by default, PostgreSQL by URL.

Both stores promise the same. A write is an act on one transaction: durable when its future resolves, undone whole if
it raises. Reads see one snapshot, and end before a reply is rendered.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from athena.errors import Unavailable
from athena.events import EventLog
from task_server import schema
from task_server.engines import (
    STATEMENT_ERRORS,
    WRITERS,
    database_faults,
    driver_errors,
    open_engine,
    reading,
    writing,
)
from task_server.history import append
from task_server.transaction import Clock, Transaction, utc_micros

MAX_GROUP = 128  # acts per SQLite commit
MAX_ATTEMPTS = 8  # of a PostgreSQL transaction that met another
_RETRIED_SQLSTATES = frozenset({"40001", "40P01", "23505"})  # serialization failure, deadlock, unique violation

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Act = Callable[[Transaction], Result]


class Store(Protocol):
    """What both databases promise."""

    def submit(self, act: Act[Result], *, first: Act[None] | None = None) -> Future[Result]:
        """Runs `act` in a transaction, some time soon, in another thread; it may run more than once.

        `first` runs before it, writes nothing if it raises, and stays even if `act` raises an error of its own. The
        future holds what `act` returned, once it is durable, or what it raised; Unavailable if the database could not
        be written. Raises Unavailable once the store is closed.
        """
        ...

    def read(self) -> AbstractContextManager[Session]:
        """One snapshot. Raises Unavailable when the database is busy for too long or out of reach."""
        ...

    def close(self) -> None:
        """Returns once every write that was submitted has come to its end."""
        ...


def open_store(url: str, clock: Clock = utc_micros, events: EventLog | None = None) -> Store:
    """The store at an SQLAlchemy URL; an empty database gets its tables.

    Raises Misconfigured for another kind of database, or a schema of another version; Unavailable if out of reach.
    """
    engine = open_engine(url)
    schema.prepare(engine)
    kind = PostgresStore if engine.dialect.name == "postgresql" else SqliteStore
    return kind(engine, clock, events or EventLog(None))


class SqliteStore:
    """One writer thread that commits whatever waits in one go: an fsync is shared by all who wait for it."""

    def __init__(self, engine: Engine, clock: Clock, events: EventLog) -> None:
        self._clock = clock
        self._events = events
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._writer = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._writer.start()

    def submit(self, act: Act[Result], *, first: Act[None] | None = None) -> Future[Result]:
        future: Future[Result] = Future()
        with self._closing:
            if self._closed:
                raise Unavailable("the ledger is closed")
            self._jobs.put(_Job(act, first, future))
        return future

    def read(self) -> AbstractContextManager[Session]:
        return _snapshot(self._engine)

    def close(self) -> None:
        with self._closing:
            self._closed = True
            self._jobs.put(None)
        self._writer.join()
        self._engine.dispose()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            group = [job]
            closing = False
            while len(group) < MAX_GROUP and not closing:
                try:
                    another = self._jobs.get_nowait()
                except queue.Empty:
                    break
                closing = another is None
                if another is not None:
                    group.append(another)
            self._commit(group)
            if closing:
                return

    def _commit(self, group: list[_Job]) -> None:
        group = [job for job in group if job.future.set_running_or_notify_cancel()]
        try:
            with database_faults(), writing(self._engine) as connection:
                outcomes = [self._perform(job, connection) for job in group]
                append(connection, [outcome for outcome in outcomes if isinstance(outcome, Transaction)])
        except Exception as error:  # noqa: BLE001  whatever went wrong, the next group waits for this thread
            log.warning("a commit of %d writes failed: %r", len(group), error)
            outcomes = [Unavailable("the database could not be written") for _ in group]
        for job, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Transaction):
                outcome.announce(self._events)
                job.future.set_result(job.result)
            else:
                job.future.set_exception(outcome)

    def _perform(self, job: _Job, connection: Connection) -> Transaction | Exception:
        """The transaction of an act that succeeded, or why it did not.

        Raises DBAPIError for a fault of the database itself: the whole group then fails.
        """
        tx = Transaction(connection, self._clock())
        try:
            if job.first is not None:
                with _savepoint(connection):
                    job.first(tx)
            with _savepoint(connection):
                job.result = job.act(tx)
        except Exception as error:
            if _is_fault(error):
                raise
            return error
        return tx


class PostgresStore:
    """Several transactions at a time, from any number of server processes.

    They cannot deadlock: each first locks its caller's account, takes other rows only where nobody holds them (SKIP
    LOCKED) or one task at a time, and the end of the event chain last.
    """

    def __init__(self, engine: Engine, clock: Clock, events: EventLog) -> None:
        self._clock = clock
        self._events = events
        self._engine = engine
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="ledger-writer")

    def submit(self, act: Act[Result], *, first: Act[None] | None = None) -> Future[Result]:
        try:
            return self._writers.submit(self._run, act, first)
        except RuntimeError as error:  # of an executor that was shut down
            raise Unavailable("the ledger is closed") from error

    def read(self) -> AbstractContextManager[Session]:
        return _snapshot(self._engine)

    def close(self) -> None:
        self._writers.shutdown()
        self._engine.dispose()

    def _run(self, act: Act[Result], first: Act[None] | None) -> Result:
        with database_faults():
            for attempt in range(MAX_ATTEMPTS - 1):
                try:
                    return self._attempt(act, first)
                except DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) not in _RETRIED_SQLSTATES:
                        raise
                time.sleep(random.uniform(0, 0.01) * 2**attempt)
            return self._attempt(act, first)

    def _attempt(self, act: Act[Result], first: Act[None] | None) -> Result:
        refusal: Exception | None = None
        with writing(self._engine) as connection:
            tx = Transaction(connection, self._clock())
            if first is not None:
                first(tx)
            try:
                with _savepoint(connection):
                    result = act(tx)
            except DBAPIError:
                raise  # undoes all: it may be tried again
            except Exception as error:  # noqa: BLE001  raised only below, so that `first` is committed
                refusal = error
            else:
                append(connection, [tx])
        if refusal is not None:
            raise refusal
        tx.announce(self._events)
        return result


@dataclass
class _Job:
    act: Act[Any]
    first: Act[None] | None
    future: Future[Any]
    result: Any = None


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Undoes the block alone if it raises. Straight to the driver: two statements around every write."""
    driver: Any = connection.connection.driver_connection
    with driver_errors(connection.dialect.loaded_dbapi.Error, "SAVEPOINT act"):
        driver.execute("SAVEPOINT act")
        try:
            yield
        except BaseException as error:
            if not _is_fault(error):  # after which the whole transaction is lost
                driver.execute("ROLLBACK TO SAVEPOINT act")
            raise
        driver.execute("RELEASE SAVEPOINT act")


def _is_fault(error: BaseException) -> bool:
    """Of the database itself, not of what an act asked of it."""
    return isinstance(error, DBAPIError) and not isinstance(error, STATEMENT_ERRORS)


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Session]:
    with database_faults(), Session(reading(engine), expire_on_commit=False) as session, session.begin():
        yield session
