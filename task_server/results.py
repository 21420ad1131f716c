"""Reads of what came of the work: submissions, score sheets, datasets, releases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlmodel import col

from athena.protocol import Submission
from athena.wire import DatasetView
from task_server.columns import moment
from task_server.paging import Listed, PageRequest, Walk, sifted
from task_server.store import Store
from task_server.tables import JournalRow, LeaseRow, ReleaseRow, SheetRow, SubmissionRow, VersionRow
from task_server.transaction import SECOND, Clock, utc_micros

FINAL_SECONDS = 60
"""A number given out earlier is stored by then, or never: transactions at the same time may commit in any order."""
_READ_AHEAD = {"yield_per": 32}
"""Rows whose bodies may be large are fetched in portions, as the page takes them."""


class Results:
    """Lists take the cursor of an earlier page of the same list; any other raises BadInput."""

    def __init__(self, store: Store, clock: Clock = utc_micros) -> None:
        self._store = store
        self._clock = clock

    def submissions(self, request: PageRequest, *, hotkey: str | None, task_id: str | None) -> Listed:
        """In the order of their arrival, each dataset hidden until every lease of its task is past its deadline.

        Until then another miner, or a validator that also mines, could copy it and still be in time.
        """
        walk = Walk("submissions", request, hotkey=hotkey, task_id=task_id)
        query = (
            select(SubmissionRow, _revealed(self._clock()))
            .where(walk.is_after(col(SubmissionRow.sequence)))
            .where(*_narrowed((col(SubmissionRow.task_id), task_id), (col(SubmissionRow.hotkey), hotkey)))
            .order_by(col(SubmissionRow.sequence))
            .limit(walk.limit + 1)
        )
        with self._store.read() as session, session.execute(query, execution_options=_READ_AHEAD) as found:
            page = walk.slice(found, lambda row: row[0].sequence or 0, lambda row: len(row[0].body))
        views = (row.view(revealed=revealed) for row, revealed in page.rows)
        return Listed([view.model_dump_json() for view in views], page.next)

    def datasets(self, request: PageRequest, *, hotkey: str | None) -> Listed:
        """Accepted ones that are no longer hidden, in the order of their arrival."""
        walk = Walk("datasets", request, hotkey=hotkey)
        query = (
            select(SubmissionRow)
            .where(walk.is_after(col(SubmissionRow.sequence)), col(SubmissionRow.accepted))
            .where(_revealed(self._clock()), *_narrowed((col(SubmissionRow.hotkey), hotkey)))
            .order_by(col(SubmissionRow.sequence))
            .limit(walk.limit + 1)
        )
        with self._store.read() as session, session.execute(query, execution_options=_READ_AHEAD) as found:
            page = walk.slice(found.scalars(), lambda row: row.sequence or 0, lambda row: len(row.body))
        return Listed([_dataset(row).model_dump_json() for row in page.rows], page.next)

    def sheets(self, request: PageRequest, *, hotkey: str | None, task_id: str | None, validator: str | None) -> Listed:
        """In the order of their arrival: the last of a validator about one dataset is its word."""
        walk = Walk("sheets", request, hotkey=hotkey, task_id=task_id, validator=validator)
        filters = _narrowed(
            (col(SheetRow.task_id), task_id), (col(SheetRow.hotkey), hotkey), (col(SheetRow.validator), validator)
        )
        return self._papers(SheetRow, walk, filters)

    def releases(self, request: PageRequest) -> Listed:
        """In the order of their arrival."""
        return self._papers(ReleaseRow, Walk("releases", request), [])

    def journal(self, request: PageRequest, *, trainer: str | None, model: str | None) -> Listed:
        """Entries in the order of their arrival, which within one journal is its own."""
        walk = Walk("journal", request, trainer=trainer, model=model)
        return self._papers(
            JournalRow, walk, _narrowed((col(JournalRow.trainer), trainer), (col(JournalRow.model), model))
        )

    def registry(self, request: PageRequest, *, trainer: str | None, model: str | None) -> Listed:
        """Where each version stands now, in the order in which they were cut."""
        walk = Walk("registry", request, trainer=trainer, model=model)
        query = (
            select(VersionRow)
            .where(walk.is_after(col(VersionRow.sequence)))
            .where(*_narrowed((col(VersionRow.trainer), trainer), (col(VersionRow.model), model)))
            .order_by(col(VersionRow.sequence))
            .limit(walk.limit + 1)
        )
        with self._store.read() as session:
            page = walk.slice(session.execute(query).scalars(), lambda row: row.sequence or 0)
        return Listed([row.view().model_dump_json() for row in page.rows], page.next)

    def _papers(
        self, kind: type[SheetRow] | type[ReleaseRow] | type[JournalRow], walk: Walk, filters: list[ColumnElement[bool]]
    ) -> Listed:
        """Signed nouns in the very bytes that are kept; a page with a next one is final once its rows are settled."""
        columns = (col(kind.sequence), col(kind.received_at), col(kind.body))
        query = (
            select(*columns)
            .where(walk.is_after(col(kind.sequence)), *filters)
            .order_by(col(kind.sequence))
            .limit(walk.limit + 1)
        )
        with self._store.read() as session, session.execute(query, execution_options=_READ_AHEAD) as found:
            page = walk.slice(found, lambda row: row.sequence or 0, lambda row: len(row.body))
        settled = self._clock() - FINAL_SECONDS * SECOND
        final = page.next is not None and all(row.received_at < settled for row in page.rows)
        return Listed([row.body for row in page.rows], page.next, final)


def _dataset(row: SubmissionRow) -> DatasetView:
    return DatasetView(
        dataset=Submission.model_validate_json(row.body).dataset,
        task_id=row.task_id,
        hotkey=row.hotkey,
        submitted_at=moment(row.submitted_at),
        verdict=row.view(revealed=False).verdict,
        rows=row.rows,
        tokens=row.tokens,
    )


def _revealed(now: int) -> ColumnElement[bool]:
    """Whether every lease of a submission's task is past its deadline.

    Looked up for each row of the page: of an EXISTS, PostgreSQL may make a hash of all leases.
    """
    of_task = select(func.max(col(LeaseRow.deadline_at))).where(col(LeaseRow.task_id) == col(SubmissionRow.task_id))
    return of_task.scalar_subquery() <= now


def _narrowed(*filters: tuple[Any, str | None]) -> list[ColumnElement[bool]]:
    """Conditions for the filters that are given, the narrowest first.

    A task narrows a list to a handful: the others only sift it.
    """
    given = [(column, value) for column, value in filters if value is not None]
    by_task = any(column.key == "task_id" for column, _ in given)
    return [(sifted(column) if by_task and column.key != "task_id" else column) == value for column, value in given]
