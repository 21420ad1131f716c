"""The whole ledger in one file and back: a backup, and the way from one kind of database to the other.

The file is gzip over JSON lines: a Header, {"table": …, "row": {…}} for every row, a Trailer.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, ValidationError
from sqlalchemy import Column, Connection, Engine, Table, TypeDecorator, func, insert, or_, select, text
from sqlmodel import SQLModel

from athena.audit import START, verify_chain
from athena.durable import finish
from athena.errors import BadInput, Misconfigured, TooLarge, Unavailable
from athena.protocol import Noun
from athena.wire import EventHead, LedgerEvent
from task_server import books, schema, tables  # noqa: F401  (books and tables declare the tables)
from task_server.engines import BUSY_SECONDS, STATEMENT_ERRORS, database_faults, reading, writing

MAX_LINE_BYTES = 2**25
"""Thirty times what a request body may hold by default."""
BATCH_ROWS = 1000

Row = dict[str, Any]
Progress = Callable[[int, int], None]
"""Gets the rows done and the rows in all."""
_Noun = TypeVar("_Noun", bound=Noun)


class Header(Noun):
    """The first line: what the file is, of which version of the tables, and how many rows of each follow."""

    format: Literal["athena-ledger/1"] = "athena-ledger/1"
    revision: str
    created_at: int  # UTC microseconds
    rows: dict[str, Annotated[int, Field(ge=0)]]


class Trailer(Noun):
    """The last line, whose existence is the proof: the sha256 of all lines before it."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def write_backup(engine: Engine, path: Path, created_at: int, on_progress: Progress = lambda _done, _all: None) -> int:
    """Writes one snapshot of the ledger; returns how many rows it has. Servers read and write meanwhile.

    Raises Misconfigured for a database that is not at HEAD, Unavailable when it or the disk fails; then an earlier file
    of that name stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(mode=0o600)  # it holds what miners have not revealed yet
        try:
            with temporary.open("wb") as file, database_faults(), reading(engine).begin() as connection:
                schema.check(connection)
                rows = _dump(connection, file, created_at, on_progress)
            finish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}") from error
    return rows


def restore_backup(engine: Engine, path: Path, on_progress: Progress = lambda _done, _all: None) -> int:
    """Fills an empty database from a backup, in one transaction; returns how many rows it has.

    Raises BadInput for a file that is damaged, not whole, of another version, or holds a broken event chain;
    Misconfigured for a database that is not empty; Unavailable when it fails. No row is in it then.
    """
    with _opened(path) as lines:
        header = lines.noun(Header)
        if header.revision != schema.HEAD:
            raise BadInput(
                f"{path} is of version {header.revision} of the tables, not {schema.HEAD}",
                remedy="restore it with the release of Athena that wrote it, then run `athena server migrate`",
            )
        if set(header.rows) != set(SQLModel.metadata.tables):
            raise _damaged("the header does not name the tables of its version")
        schema.prepare(engine)
        with database_faults(), writing(engine) as connection:
            _require_empty(connection)
            _fill(connection, lines, header, on_progress)
            lines.end()
            _continue_sequences(connection)
    return sum(header.rows.values())


def _dump(connection: Connection, file: IO[bytes], created_at: int, on_progress: Progress) -> int:
    metadata = SQLModel.metadata
    counts = {
        table.name: connection.scalars(select(func.count()).select_from(table)).one()
        for table in metadata.sorted_tables
    }
    done, total = 0, sum(counts.values())
    digest = hashlib.sha256()
    with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0, compresslevel=6) as out:

        def write(line: bytes) -> None:
            if len(line) > MAX_LINE_BYTES:
                raise TooLarge(f"a row of {len(line):,} bytes could not be restored")
            digest.update(line)
            out.write(line)

        write(Header(revision=schema.HEAD, created_at=created_at, rows=counts).canonical() + b"\n")
        for table in metadata.sorted_tables:
            statement = select(table).order_by(*table.primary_key).execution_options(yield_per=BATCH_ROWS)
            names = table.columns.keys()
            for batch in connection.execute(statement).partitions():
                for values in batch:
                    write(_encoded({"table": table.name, "row": dict(zip(names, values, strict=True))}))
                done += len(batch)
                on_progress(done, total)
        write(Trailer(sha256=digest.hexdigest()).canonical() + b"\n")
    return total


def _encoded(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class _Lines:
    """The lines of a backup in order. Every method raises BadInput where the file does not hold what is asked for."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def noun(self, kind: type[_Noun]) -> _Noun:
        try:
            return kind.model_validate_json(self._next(), strict=True)
        except ValidationError as error:
            raise _damaged(f"no {kind.__name__.lower()}") from error

    def rows(self, table: Table, count: int) -> Iterator[Row]:
        kinds = {column.name: (_python_type(column), bool(column.nullable)) for column in table.columns}
        for _ in range(count):
            try:
                record = json.loads(self._next().decode(), parse_constant=_refuse)
            except (ValueError, RecursionError) as error:
                raise _damaged("a line is not JSON") from error
            match record:
                case {"table": table.name, "row": dict(row), **rest} if not rest and _fits(row, kinds):
                    yield row
                case _:
                    raise _damaged(f"a line is not a row of {table.name}")

    def end(self) -> None:
        """Checks that what was read is what was written, all of it."""
        digest = self._digest.hexdigest()
        if self.noun(Trailer).sha256 != digest:
            raise _damaged("its sha256 is not the one it ends with")
        if self._read(1):
            raise _damaged("it goes on after its end")

    def _next(self) -> bytes:
        line = self._read(MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise _damaged("it is not whole")
        self._digest.update(line)
        return line

    def _read(self, limit: int) -> bytes:
        try:
            return self._file.readline(limit)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _damaged("it is not whole") from error
        except OSError as error:
            raise _unreadable(error) from error


def _fits(row: Row, kinds: Mapping[str, tuple[type, bool]]) -> bool:
    if row.keys() != kinds.keys():
        return False
    for name, (kind, nullable) in kinds.items():
        value = row[name]
        if type(value) is not kind and not (value is None and nullable):
            return False
        if type(value) is int and not -(2**63) <= value < 2**63:
            return False
    return True


def _python_type(column: Column[Any]) -> type:
    kind = column.type
    return kind.impl_instance.python_type if isinstance(kind, TypeDecorator) else kind.python_type


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@contextmanager
def _opened(path: Path) -> Iterator[_Lines]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise _unreadable(error) from error
        yield _Lines(stack.enter_context(gzip.GzipFile(fileobj=file)))


def _require_empty(connection: Connection) -> None:
    everything = SQLModel.metadata.sorted_tables
    if connection.dialect.name == "postgresql":
        names = ", ".join(f'"{table.name}"' for table in everything)
        connection.execute(text(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'"))
        connection.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))  # others may still read
    if connection.scalar(select(or_(*(select(table).exists() for table in everything)))):
        raise Misconfigured("the database holds a ledger already", remedy="give an empty one with --database")


def _fill(connection: Connection, lines: _Lines, header: Header, on_progress: Progress) -> None:
    done, total = 0, sum(header.rows.values())
    head, kept_heads = START, list[Row]()
    for table in SQLModel.metadata.sorted_tables:
        rows = lines.rows(table, header.rows[table.name])
        for first in rows:
            batch = [first, *islice(rows, BATCH_ROWS - 1)]
            try:
                connection.execute(insert(table), batch)
            except (*STATEMENT_ERRORS, ValueError, OverflowError) as error:
                raise _damaged(f"a row of {table.name} contradicts another, or cannot be stored") from error
            if table.name == "event":
                head = _continued(head, batch)
            elif table.name == "event_head":
                kept_heads += batch
            done += len(batch)
            on_progress(done, total)
    if kept_heads != ([{"id": 1} | head.model_dump()] if head != START else []):
        raise _damaged("its event chain does not end where the ledger says")


def _continued(head: EventHead, rows: Sequence[Row]) -> EventHead:
    """The end of the event chain after these rows of it."""
    try:
        return verify_chain((LedgerEvent(**row | {"body": json.loads(row["body"])}) for row in rows), head)
    except (BadInput, ValueError, RecursionError) as error:
        raise _damaged(f"its event chain is broken: {error}") from error


def _continue_sequences(connection: Connection) -> None:
    """The next number of each table is above all restored ones; SQLite sees to it by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in SQLModel.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            sequence = func.pg_get_serial_sequence(f'"{table.name}"', column.name)
            connection.execute(select(func.setval(sequence, func.max(column))))  # nothing, where there is no row


def _damaged(what: str) -> BadInput:
    return BadInput(f"the backup is damaged: {what}", remedy="restore another one")


def _unreadable(error: OSError) -> BadInput:
    return BadInput(f"cannot read the backup: {error.strerror}", remedy="give a file of `athena server backup`")
