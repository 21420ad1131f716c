"""Every read of the ledger. Lists are paged by key, never by offset: a page costs the same wherever it lies."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar, get_args

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from athena.errors import BadInput, NotFound
from athena.protocol import Lease, LeaseState, Outcome, SignedRelease, SignedSheet
from athena.wire import MinerStats, Page, Stats, SubmissionView, TaskView
from task_server.database import Database
from task_server.tables import CrawlRow, LeaseRow, ReleaseRow, ShardRow, SheetRow, SubmissionRow, TaskRow, micros
from task_server.transaction import Clock, utc_now

Item = TypeVar("Item")
Row = TypeVar("Row")


class Records:
    """The reads. Lists take the cursor of an earlier page of the same list; any other raises BadInput."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    def latest_crawl(self) -> CrawlRow | None:
        """The crawl imported last."""
        with self._database.read() as session:
            return session.exec(select(CrawlRow).order_by(col(CrawlRow.imported_at).desc()).limit(1)).first()

    def task(self, task_id: str) -> TaskView:
        with self._database.read() as session:
            task = session.get(TaskRow, task_id)
            if task is None:
                raise NotFound(f"no task {task_id}")
            return task.view(session.get_one(ShardRow, task.shard_id))

    def tasks(self, *, cursor: str | None, limit: int) -> Page[TaskView]:
        """By place in the draw."""
        query = (
            select(TaskRow, ShardRow)
            .join(ShardRow, col(ShardRow.id) == col(TaskRow.shard_id))
            .where(TaskRow.position > _after(cursor, "tasks"))
            .order_by(col(TaskRow.position))
            .limit(limit + 1)
        )
        with self._database.read() as session:
            rows = session.exec(query).all()
            return _page(rows, limit, "tasks", lambda row: row[0].position, lambda row: row[0].view(row[1]))

    def leases(
        self, *, hotkey: str | None, task_id: str | None, state: LeaseState | None, cursor: str | None, limit: int
    ) -> Page[Lease]:
        """By fencing token: in the order in which they were issued."""
        now = micros(self._clock())
        filters = _filters(LeaseRow.hotkey, hotkey, LeaseRow.task_id, task_id)
        if state is not None:
            filters.append(_state(now) == state)
        query = (
            select(LeaseRow, TaskRow, ShardRow)
            .join(TaskRow, col(TaskRow.id) == col(LeaseRow.task_id))
            .join(ShardRow, col(ShardRow.id) == col(TaskRow.shard_id))
            .where(col(LeaseRow.fencing) > _after(cursor, "leases"), *filters)
            .order_by(col(LeaseRow.fencing))
            .limit(limit + 1)
        )
        with self._database.read() as session:
            rows = session.exec(query).all()
            return _page(
                rows, limit, "leases", lambda row: row[0].fencing, lambda row: row[0].noun(row[1].noun(row[2]), now)
            )

    def submissions(
        self, *, hotkey: str | None, task_id: str | None, cursor: str | None, limit: int
    ) -> Page[SubmissionView]:
        """In the order of their arrival, each dataset hidden until every lease of its task is past its deadline.

        Until then another miner, or a validator that also mines, could copy it and still be in time.
        """
        now = micros(self._clock())
        last_deadline = (
            select(sa.func.max(LeaseRow.deadline_at))
            .where(col(LeaseRow.task_id) == col(SubmissionRow.task_id))
            .scalar_subquery()
        )
        query = (
            select(SubmissionRow, last_deadline)
            .where(
                col(SubmissionRow.sequence) > _after(cursor, "submissions"),
                *_filters(SubmissionRow.hotkey, hotkey, SubmissionRow.task_id, task_id),
            )
            .order_by(col(SubmissionRow.sequence))
            .limit(limit + 1)
        )
        with self._database.read() as session:
            rows = session.exec(query).all()
            return _page(
                rows, limit, "submissions", lambda row: row[0].sequence, lambda row: row[0].view(revealed=row[1] <= now)
            )

    def sheets(self, *, hotkey: str | None, task_id: str | None, cursor: str | None, limit: int) -> Page[SignedSheet]:
        """In the order of their arrival: the last of a validator about one dataset is its word."""
        query = (
            select(SheetRow)
            .where(
                col(SheetRow.sequence) > _after(cursor, "sheets"),
                *_filters(SheetRow.hotkey, hotkey, SheetRow.task_id, task_id),
            )
            .order_by(col(SheetRow.sequence))
            .limit(limit + 1)
        )
        with self._database.read() as session:
            rows = session.exec(query).all()
            return _page(
                rows, limit, "sheets", lambda row: row.sequence, lambda row: SignedSheet.model_validate_json(row.body)
            )

    def releases(self, *, cursor: str | None, limit: int) -> Page[SignedRelease]:
        """In the order of their arrival."""
        query = (
            select(ReleaseRow)
            .where(col(ReleaseRow.sequence) > _after(cursor, "releases"))
            .order_by(col(ReleaseRow.sequence))
            .limit(limit + 1)
        )
        with self._database.read() as session:
            rows = session.exec(query).all()
            return _page(
                rows,
                limit,
                "releases",
                lambda row: row.sequence,
                lambda row: SignedRelease.model_validate_json(row.body),
            )

    def stats(self) -> Stats:
        now = micros(self._clock())
        with self._database.read() as session:
            tasks, open_tasks = session.exec(
                select(sa.func.count(), sa.func.count(sa.case((col(TaskRow.slots) > 0, 1)))).select_from(TaskRow)
            ).one()
            miners = _miners(session, now)
            outcomes = dict(session.exec(select(SheetRow.outcome, sa.func.count()).group_by(SheetRow.outcome)).all())
            releases = session.exec(select(sa.func.count()).select_from(ReleaseRow)).one()
        return Stats(
            tasks=tasks,
            open_tasks=open_tasks,
            leases={state: sum(miner.leases[state] for miner in miners) for state in get_args(LeaseState)},
            submissions=sum(miner.submissions for miner in miners),
            records=sum(miner.records for miner in miners),
            rows=sum(miner.rows for miner in miners),
            tokens=sum(miner.tokens for miner in miners),
            sheets={outcome: outcomes.get(outcome, 0) for outcome in get_args(Outcome)},
            releases=releases,
            miners=miners,
        )


def _miners(session: Session, now: int) -> tuple[MinerStats, ...]:
    state = _state(now)
    leases: dict[str, dict[LeaseState, int]] = defaultdict(lambda: dict.fromkeys(get_args(LeaseState), 0))
    by_state = sa.select(col(LeaseRow.hotkey), state, sa.func.count()).group_by(col(LeaseRow.hotkey), state)
    for hotkey, name, count in session.execute(by_state):
        leases[hotkey][name] = count
    totals = [sa.func.sum(col(total)) for total in (SubmissionRow.records, SubmissionRow.rows, SubmissionRow.tokens)]
    by_hotkey = sa.select(col(SubmissionRow.hotkey), sa.func.count(), *totals).group_by(col(SubmissionRow.hotkey))
    done = {row[0]: row[1:] for row in session.execute(by_hotkey)}
    return tuple(
        MinerStats(hotkey=hotkey, leases=counts, submissions=n, records=records, rows=rows, tokens=tokens)
        for hotkey, counts in sorted(leases.items())
        for n, records, rows, tokens in [done.get(hotkey, (0, 0, 0, 0))]
    )


def _state(now: int) -> ColumnElement[LeaseState]:
    """LeaseRow.state_at in SQL."""
    overdue = sa.and_(col(LeaseRow.state) == "active", col(LeaseRow.expires_at) <= now)
    return sa.case((overdue, "expired"), else_=col(LeaseRow.state))


def _filters(
    hotkey_column: str, hotkey: str | None, task_column: str, task_id: str | None
) -> list[ColumnElement[bool]]:
    given = ((hotkey_column, hotkey), (task_column, task_id))
    return [col(column) == value for column, value in given if value is not None]


def _page(
    rows: Sequence[Row], limit: int, kind: str, key: Callable[[Row], int | None], view: Callable[[Row], Item]
) -> Page[Item]:
    """A page of at most `limit` of the rows, of which one more was asked for to know whether it is the last."""
    shown = rows[:limit]
    more = f"{kind}:{key(shown[-1])}" if len(rows) > limit else None
    cursor = base64.urlsafe_b64encode(more.encode()).decode() if more else None
    return Page(items=tuple(view(row) for row in shown), next=cursor)


def _after(cursor: str | None, kind: str) -> int:
    if cursor is None:
        return -1
    try:
        name, _, key = base64.b64decode(cursor, altchars=b"-_", validate=True).decode("ascii").partition(":")
    except ValueError as error:
        raise BadInput("not a cursor of this server") from error
    if name != kind or not key.isdecimal() or len(key) > 18:
        raise BadInput(f"not a cursor of the list of {kind}")
    return int(key)
