"""How tables are declared: times are UTC microseconds since 1970, and indexes may cover only the rows that matter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Index, Table, text
from sqlmodel import Field, SQLModel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def table_of(row: type[SQLModel]) -> Table:
    """The table behind a row's class, for statements that do without the unit of work."""
    return row.__table__  # type: ignore[attr-defined,no-any-return]


def time_column(**options: Any) -> Any:
    return Field(sa_type=BigInteger, **options)


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index over the rows that matter, small however long the history grows."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))
