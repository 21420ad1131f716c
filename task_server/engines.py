"""Connections to the database of the ledger: SQLite in a file by default, PostgreSQL by URL."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from athena.errors import Misconfigured, Unavailable

READERS = 48
"""More connections than the 40 threads that reads run on: a thread never waits for a connection that another thread
holds while waiting for a thread."""
WRITERS = 8
"""Transactions at a time on PostgreSQL."""
BUSY_SECONDS = 10
STATEMENT_ERRORS = (IntegrityError, DataError, ProgrammingError)
"""What a statement did wrong. Any other error of the driver is a fault of the database or the way to it."""

log = logging.getLogger(__name__)


def open_engine(url: str, *, existing: bool = False) -> Engine:
    """An engine that is not connected yet. Makes the folder of a SQLite file, unless the file is to be `existing`.

    Raises Misconfigured for what is not the URL of a database that can hold the ledger.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise Misconfigured("not a database URL", remedy="give sqlite:///FILE or postgresql://HOST/NAME") from error
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite_engine(parsed, existing=existing)
        case "postgresql":
            return _postgres_engine(parsed)
    raise Misconfigured(f"no {parsed.get_backend_name()} support", remedy="use SQLite or PostgreSQL")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction, committed at the end of the block; on SQLite no other process writes while it lasts."""
    with engine.connect() as connection, connection.execution_options(athena_writes=True).begin():
        yield connection


def reading(engine: Engine) -> Engine:
    """Its transactions are snapshots: all their reads see the database as it was at the first of them."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ")
    return engine


@contextmanager
def database_faults() -> Iterator[None]:
    """Turns a fault of the database into Unavailable; the error of a statement (STATEMENT_ERRORS) stays as it is."""
    try:
        yield
    except STATEMENT_ERRORS:
        raise
    except (DBAPIError, PoolTimeout) as error:
        log.warning("a fault of the database: %s", error.args[0])
        raise Unavailable("the database is busy or out of reach") from error


@contextmanager
def driver_errors(driver_error: type[Exception], statement: str) -> Iterator[None]:
    """Gives an error of the driver, from a statement that was sent past SQLAlchemy, the type that SQLAlchemy gives."""
    try:
        yield
    except driver_error as error:
        raise DBAPIError.instance(statement, None, error, driver_error) from error


def _sqlite_engine(url: URL, *, existing: bool) -> Engine:
    """WAL, durable commits, one writer at a time."""
    if url.database in (None, "", ":memory:"):
        raise Misconfigured("the ledger needs a file", remedy="give sqlite:///FILE")
    path = Path(str(url.database))
    if existing and not path.is_file():
        raise Misconfigured(f"there is no ledger at {path}", remedy="give its address with --database")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"cannot make {path.parent}: {error.strerror}", remedy="give another --database") from error
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"), pool_size=READERS + 1, max_overflow=0, pool_timeout=BUSY_SECONDS
    )
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _postgres_engine(url: URL) -> Engine:
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=READERS + WRITERS,
            max_overflow=0,
            pool_timeout=BUSY_SECONDS,
            pool_pre_ping=True,
            connect_args={"connect_timeout": BUSY_SECONDS},
        )
    except ModuleNotFoundError as error:
        raise Misconfigured(
            "PostgreSQL needs a driver", remedy="install athena-network with the extra `postgres`"
        ) from error


def _on_sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; _on_sqlite_begin sends it
    with driver_errors(sqlite3.Error, "PRAGMA"):
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")  # an acknowledged write survives a power cut
        connection.execute("PRAGMA foreign_keys = ON")


def _use_wal(connection: sqlite3.Connection) -> None:
    # Whoever opens a new file first changes its mode; the others are turned away at once, whatever busy_timeout says.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _on_sqlite_begin(connection: Connection) -> None:
    # A transaction that reads first and then writes fails at once if another wrote in between, whatever
    # busy_timeout says; so the writer takes the lock when it begins.
    writes = connection.get_execution_options().get("athena_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
