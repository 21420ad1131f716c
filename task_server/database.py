"""The database: SQLite in a file by default, anything that SQLAlchemy speaks by URL.

`write` transactions are serialisable and hold the write lock from their first statement; `read` transactions see one
snapshot. Both end before a reply is rendered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session, SQLModel

from athena.errors import Unavailable
from task_server import tables  # noqa: F401  (declares the tables)

# More connections than the 40 threads that requests run on: a thread never waits for a connection that another
# thread holds while waiting for a thread.
POOL_SIZE = 48
BUSY_SECONDS = 10


class Database:
    """Tables are created when missing. Raises Unavailable when the database is busy for too long or unreachable."""

    def __init__(self, url: str) -> None:
        self._engine, is_sqlite = _open(url)
        self._writes = self._engine.execution_options(athena_writes=True)
        # SQLite has one writer. Waiting here is fair and free; SQLite itself polls, and starves the unlucky.
        self._writer: threading.Lock | None = threading.Lock() if is_sqlite else None
        with self._translated(), self._writes.begin() as connection:
            SQLModel.metadata.create_all(connection)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed if the block ends, undone if it raises."""
        with (
            self._turn(),
            self._translated(),
            Session(self._writes, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._translated(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _acquired(self, lock: threading.Lock) -> Iterator[None]:
        if not lock.acquire(timeout=BUSY_SECONDS):
            raise Unavailable(f"no turn to write within {BUSY_SECONDS} s")
        try:
            yield
        finally:
            lock.release()

    def _turn(self) -> AbstractContextManager[None]:
        return nullcontext() if self._writer is None else self._acquired(self._writer)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, PoolTimeout) as error:
            raise Unavailable("the database is busy or out of reach") from error


def _open(url: str) -> tuple[Engine, bool]:
    parsed = make_url(url)
    options: dict[str, Any] = {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": BUSY_SECONDS}
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, isolation_level="SERIALIZABLE", pool_pre_ping=True, **options), False
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, **options)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine, True


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; _on_begin sends it
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged write survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # A transaction that reads first and then writes fails at once if another wrote in between, whatever
    # busy_timeout says; so writers take the lock when they begin.
    writes = connection.get_execution_options().get("athena_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
