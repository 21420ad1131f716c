"""Lists by key: a page starts after the key that its cursor names, so it costs the same wherever it lies."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import BigInteger, ColumnElement, func, literal, literal_column
from sqlmodel import col

from athena.errors import BadInput

MAX_PAGE = 500
MAX_PAGE_BYTES = 4 * 2**20
"""What other parties wrote may be a mebibyte an item: a page that has come to this size ends early."""
_SEAL_BYTES = 6

Row = TypeVar("Row")


def sifted(column: str) -> ColumnElement[str]:
    """A text column of a table in a form that no index has, for a condition beside a narrower one.

    Without statistics SQLite may prefer the index of the wide condition, and walk through most of a table.
    """
    return func.coalesce(col(column), literal_column("''"))


@dataclass(frozen=True)
class PageRequest:
    """At most `limit` items after `cursor`, which an earlier page of the same list gave."""

    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True)
class Listed:
    """A page as it goes out: its items as JSON. What is `final` stays as it is for ever."""

    items: Sequence[str]
    next: str | None
    final: bool = False

    @property
    def json(self) -> str:
        return f'{{"items":[{",".join(self.items)}],"next":{json.dumps(self.next)}}}'


@dataclass(frozen=True)
class Slice(Generic[Row]):
    """The rows of one page, and the cursor of the page after it."""

    rows: list[Row]
    next: str | None


class Walk:
    """The place of one page: in which list, under which filters, after which key.

    Raises BadInput for a cursor of another list, or of the same one under other filters.
    """

    def __init__(self, name: str, request: PageRequest, **filters: str | bool | None) -> None:
        self.limit = request.limit
        self._list = json.dumps([name, filters], sort_keys=True)
        self.after = None if request.cursor is None else self._opened(request.cursor)
        """The key that the page starts after; null on the first."""

    @property
    def after_number(self) -> int:
        """The key of a list in the order of a number that is never below zero; -1 on the first page."""
        if self.after is None:
            return -1
        if not self.after.isdecimal() or len(self.after) > 18:
            raise BadInput("the cursor is none of this list")
        return int(self.after)

    def is_after(self, column: Any) -> ColumnElement[bool]:
        """Whether a row comes after the place. In 64 bits: PostgreSQL would refuse a key beyond a column's 32."""
        return cast("ColumnElement[bool]", column > literal(self.after_number, BigInteger))

    def slice(
        self, rows: Iterable[Row], key: Callable[[Row], int | str], size: Callable[[Row], int] = lambda _row: 0
    ) -> Slice[Row]:
        """A page of rows, of which the query asked for one more than the limit; reads no further than it needs.

        `size` in bytes: a page ends at MAX_PAGE_BYTES, though never without an item.
        """
        shown: list[Row] = []
        num_bytes = 0
        for row in rows:
            if len(shown) == self.limit or (shown and num_bytes + size(row) > MAX_PAGE_BYTES):
                return Slice(shown, self._sealed(str(key(shown[-1]))))
            shown.append(row)
            num_bytes += size(row)
        return Slice(shown, None)

    def _sealed(self, key: str) -> str:
        return urlsafe_b64encode(self._seal(key) + key.encode()).decode().rstrip("=")

    def _opened(self, cursor: str) -> str:
        try:
            raw = b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            key = raw[_SEAL_BYTES:].decode("ascii")
        except ValueError as error:
            raise BadInput("not a cursor of this server") from error
        if not key.isprintable():  # PostgreSQL takes no NUL
            raise BadInput("not a cursor of this server")
        if raw[:_SEAL_BYTES] != self._seal(key):
            raise BadInput(
                "the cursor is of another list, or of other filters", remedy="keep the filters of the first page"
            )
        return key

    def _seal(self, key: str) -> bytes:
        """Ties a cursor to its list. It keeps no secret: who computes one just starts elsewhere in the list."""
        return blake2b(f"{self._list}\n{key}".encode(), digest_size=_SEAL_BYTES).digest()
