"""Statements of the writes: compiled once for each kind of database, then sent straight to its driver.

A claim is ten statements, and SQLAlchemy takes 50 µs to execute what SQLite does in five.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, methodcaller
from typing import Any

from sqlalchemy import Boolean, Connection, Select, UpdateBase
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError

Statement = Select[*tuple[Any, ...]] | UpdateBase
Line = Any
"""A row of a result: a named tuple of the statement's columns."""


class Prepared:
    """A SELECT, INSERT, UPDATE or DELETE; its parameters are bound by name, none of them expanding.

    Takes integers, floats, strings, booleans and null, and gives them back. Raises DBAPIError as SQLAlchemy does.
    """

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._compiled: dict[tuple[str, ...], _Compiled] = {}

    def rows(self, connection: Connection, /, **values: Any) -> list[Line]:
        compiled = self._for(connection.dialect, values)
        return compiled.lines(_send(connection, compiled, values, _FETCH_ALL))

    def first(self, connection: Connection, /, **values: Any) -> Line | None:
        """The first row, or null."""
        rows = self.rows(connection, **values)
        return rows[0] if rows else None

    def one(self, connection: Connection, /, **values: Any) -> Line:
        """The row of a statement that always gives exactly one."""
        (row,) = self.rows(connection, **values)
        return row

    def run(self, connection: Connection, /, **values: Any) -> int:
        """How many rows were written."""
        return int(_send(connection, self._for(connection.dialect, values), values, _ROW_COUNT))

    def _for(self, dialect: Dialect, values: Mapping[str, Any]) -> _Compiled:
        key = (dialect.name, *values)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _compile(self._statement, dialect, list(values))
        return compiled


@dataclass(frozen=True)
class _Compiled:
    """`order`: of the parameters, where the driver takes them by place. `flags`: places of columns with booleans."""

    sql: str
    constants: Mapping[str, Any]
    order: Sequence[str] | None
    line: Any
    flags: Sequence[int]

    def bound(self, values: Mapping[str, Any]) -> Any:
        """Parameters as the driver takes them."""
        known = {**self.constants, **values} if self.constants else values
        return known if self.order is None else [known[name] for name in self.order]

    def lines(self, rows: list[Any]) -> list[Line]:
        if self.flags:
            rows = [list(row) for row in rows]
            for row in rows:
                for place in self.flags:
                    row[place] = None if row[place] is None else bool(row[place])
        return [self.line._make(row) for row in rows]


def _compile(statement: Statement, dialect: Dialect, names: list[str]) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect, column_keys=names)
    columns = statement.exported_columns
    return _Compiled(
        sql=str(compiled),
        constants={name: value for name, value in compiled.params.items() if name not in names},
        order=compiled.positiontup,
        line=namedtuple("Line", [str(key) for key in columns.keys()]),  # noqa: SIM118  not a dict
        # SQLite has no booleans: it keeps them as 0 and 1.
        flags=[i for i, column in enumerate(columns) if dialect.name == "sqlite" and isinstance(column.type, Boolean)],
    )


_FETCH_ALL, _ROW_COUNT = methodcaller("fetchall"), attrgetter("rowcount")


def _send(connection: Connection, compiled: _Compiled, values: Mapping[str, Any], outcome: Callable[[Any], Any]) -> Any:
    """Executes a statement, and takes its outcome from the driver's cursor."""
    driver: Any = connection.connection.driver_connection
    driver_error = connection.dialect.loaded_dbapi.Error
    try:
        return outcome(driver.execute(compiled.sql, compiled.bound(values)))
    except driver_error as error:
        raise DBAPIError.instance(compiled.sql, None, error, driver_error) from error
