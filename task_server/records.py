"""Reads of what the ledger hands out: crawls, shards, tasks, leases, opt-outs, and the event chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, case, func, select
from sqlmodel import Session, col

from athena.audit import START
from athena.errors import NotFound
from athena.protocol import Lease, LeaseState, Shard, Task
from athena.wire import CrawlView, EventHead, OptOuts, ShardView, TaskView
from task_server.books import EventHeadRow, EventRow, OptOutRow
from task_server.columns import table_of
from task_server.paging import Listed, PageRequest, Walk
from task_server.store import Store
from task_server.tables import (
    IS_ACTIVE,
    IS_ENDED,
    IS_FILLED,
    IS_OPEN,
    CrawlRow,
    LeaseRow,
    ShardRow,
    TaskRow,
    WarcRow,
    lease_noun,
)
from task_server.transaction import Clock, utc_micros

_LEASES = table_of(LeaseRow)
_OF_SHARD = col(ShardRow.sequence) == col(TaskRow.shard)
_TASKS = select(TaskRow, col(ShardRow.crawl)).join(ShardRow, _OF_SHARD)
_LEASED = (
    select(_LEASES, col(TaskRow.rule_version), col(TaskRow.opened_block), col(TaskRow.shard), col(ShardRow.crawl))
    .join(TaskRow, col(TaskRow.id) == _LEASES.c.task_id)
    .join(ShardRow, _OF_SHARD)
)
_SHARDS = table_of(ShardRow).alias()
# Looked up for each task of the page: by a join, PostgreSQL would rather begin with all shards of the crawl.
_IS_OF_CRAWL = select(_SHARDS.c.crawl).where(_SHARDS.c.sequence == col(TaskRow.shard)).scalar_subquery() == bindparam(
    "of_crawl"
)
_PATHS = (
    select(col(WarcRow.shard), col(WarcRow.path))
    .where(col(WarcRow.shard).in_(bindparam("shards", expanding=True)))
    .order_by(col(WarcRow.shard), col(WarcRow.place))
)
_HAS_SHARDS = select(ShardRow).where(col(ShardRow.crawl) == col(CrawlRow.id)).exists()
_SHARDS_OF = {
    end: select(end(col(ShardRow.sequence))).where(col(ShardRow.crawl) == bindparam("of_crawl")).scalar_subquery()
    for end in (func.min, func.max)
}
_HEAD = select(col(EventHeadRow.sequence), col(EventHeadRow.hash))


class Records:
    """Lists take the cursor of an earlier page of the same list; any other raises BadInput."""

    def __init__(self, store: Store, clock: Clock = utc_micros) -> None:
        self._store = store
        self._clock = clock

    def latest_crawl(self) -> CrawlView | None:
        """The crawl imported last, of those that have shards."""
        query = select(CrawlRow).where(_HAS_SHARDS).order_by(col(CrawlRow.imported_at).desc()).limit(1)
        with self._store.read() as session:
            row = session.execute(query).scalar()
            return row.view() if row is not None else None

    def crawls(self, request: PageRequest) -> Listed:
        """By id."""
        walk = Walk("crawls", request)
        query = select(CrawlRow).where(col(CrawlRow.id) > (walk.after or "")).order_by(col(CrawlRow.id))
        with self._store.read() as session:
            page = walk.slice(session.execute(query.limit(walk.limit + 1)).scalars(), lambda row: row.id)
            return Listed([row.view().model_dump_json() for row in page.rows], page.next)

    def crawl(self, crawl_id: str) -> CrawlView:
        with self._store.read() as session:
            row = session.get(CrawlRow, crawl_id)
            if row is None:
                raise NotFound(f"no crawl {crawl_id}")
            return row.view()

    def shards(self, request: PageRequest, *, crawl: str | None) -> Listed:
        """By sequence; a page with a next one is final."""
        walk = Walk("shards", request, crawl=crawl)
        query = select(ShardRow).where(walk.is_after(col(ShardRow.sequence))).order_by(col(ShardRow.sequence))
        if crawl is not None:
            query = query.where(col(ShardRow.crawl) == crawl)
        with self._store.read() as session:
            page = walk.slice(session.execute(query.limit(walk.limit + 1)).scalars(), lambda row: row.sequence)
            views = _shard_views(session, page.rows)
        return Listed([view.model_dump_json() for view in views], page.next, final=page.next is not None)

    def shard(self, shard_id: str) -> ShardView:
        with self._store.read() as session:
            row = session.execute(select(ShardRow).where(col(ShardRow.id) == shard_id)).scalar()
            if row is None:
                raise NotFound(f"no shard {shard_id}")
            return _shard_views(session, [row])[0]

    def tasks(self, request: PageRequest, *, crawl: str | None, is_open: bool | None) -> Listed:
        """By place in the draw."""
        walk = Walk("tasks", request, crawl=crawl, open=is_open)
        query = _TASKS.where(walk.is_after(col(TaskRow.position))).order_by(col(TaskRow.position))
        if is_open is not None:
            query = query.where(IS_OPEN if is_open else IS_FILLED)
        with self._store.read() as session:
            if crawl is not None:
                first, last = _positions_of(session, crawl)
                query = query.where(col(TaskRow.position).between(first, last), _IS_OF_CRAWL).params(of_crawl=crawl)
            page = walk.slice(session.execute(query.limit(walk.limit + 1)), lambda row: row[0].position)
            views = _task_views(session, page.rows)
        return Listed([view.model_dump_json() for view in views], page.next)

    def task(self, task_id: str) -> TaskView:
        with self._store.read() as session:
            row = session.execute(_TASKS.where(col(TaskRow.id) == task_id)).first()
            if row is None:
                raise NotFound(f"no task {task_id}")
            return _task_views(session, [row])[0]

    def leases(
        self, request: PageRequest, *, hotkey: str | None, task_id: str | None, state: LeaseState | None
    ) -> Listed:
        """By fencing token: in the order in which they were issued."""
        walk = Walk("leases", request, hotkey=hotkey, task_id=task_id, state=state)
        now = self._clock()
        query = _LEASED.where(walk.is_after(_LEASES.c.fencing)).order_by(_LEASES.c.fencing)
        if task_id is not None:
            query = query.where(_LEASES.c.task_id == task_id)
        if hotkey is not None:
            query = query.where(_LEASES.c.hotkey == hotkey)
        with self._store.read() as session:
            # Each part comes in order, from an index of its own; at most two of them.
            parts = (query.where(*part).limit(walk.limit + 1) for part in _in_state(state, now, bool(task_id)))
            found = chain.from_iterable(session.execute(part) for part in parts)
            page = walk.slice(sorted(found, key=lambda row: row.fencing)[: walk.limit + 1], lambda row: row.fencing)
            nouns = _lease_nouns(session, page.rows, now)
        return Listed([noun.model_dump_json() for noun in nouns], page.next)

    def lease(self, lease_id: str) -> Lease:
        with self._store.read() as session:
            row = session.execute(_LEASED.where(_LEASES.c.id == lease_id)).first()
            if row is None:
                raise NotFound(f"no lease {lease_id}")
            return _lease_nouns(session, [row], self._clock())[0]

    def opt_outs(self) -> OptOuts:
        """In the order in which they came in, withdrawn ones included."""
        with self._store.read() as session:
            rows = session.execute(select(OptOutRow).order_by(col(OptOutRow.sequence))).scalars()
            return OptOuts(domains=tuple(row.view() for row in rows))

    def events(self, request: PageRequest, *, after: int) -> Listed:
        """The chain after a sequence; a page with a next one is final: links commit in their order."""
        walk = Walk("events", request)
        start = max(after, walk.after_number)
        query = select(EventRow).where(col(EventRow.sequence) > start).order_by(col(EventRow.sequence))
        with self._store.read() as session:
            page = walk.slice(session.execute(query.limit(walk.limit + 1)).scalars(), lambda row: row.sequence)
        views = (row.view() for row in page.rows)
        return Listed([view.model_dump_json() for view in views], page.next, final=page.next is not None)

    def event_head(self) -> EventHead:
        """The end of the chain; athena.audit.START before the first event."""
        with self._store.read() as session:
            head = session.execute(_HEAD).first()
        return START if head is None else EventHead(sequence=head.sequence, hash=head.hash)


def _shard_views(session: Session, rows: Sequence[ShardRow]) -> list[ShardView]:
    paths = _paths(session, (row.sequence for row in rows))
    return [
        ShardView(id=row.id, sequence=row.sequence, shard=Shard(crawl=row.crawl, warc_paths=paths[row.sequence]))
        for row in rows
    ]


def _task_views(session: Session, rows: Sequence[Any]) -> list[TaskView]:
    paths = _paths(session, (task.shard for task, _ in rows))
    return [task.view(_task(task, crawl, paths)) for task, crawl in rows]


def _lease_nouns(session: Session, rows: Sequence[Row[Any]], now: int) -> list[Lease]:
    paths = _paths(session, (row.shard for row in rows))
    return [lease_noun(row, _task(row, row.crawl, paths), now) for row in rows]


def _task(row: TaskRow | Row[Any], crawl: str, paths: Mapping[int, tuple[str, ...]]) -> Task:
    shard = Shard(crawl=crawl, warc_paths=paths[row.shard])
    return Task(shard=shard, rule_version=row.rule_version, opened_block=row.opened_block)


def _paths(session: Session, shards: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """The WARC files of shards, in order; one query for the whole page."""
    found = session.execute(_PATHS, {"shards": sorted(set(shards))})
    return {shard: tuple(path for _, path in group) for shard, group in groupby(found, key=lambda row: row[0])}


def _positions_of(session: Session, crawl: str) -> tuple[int, int]:
    """Where in the draw a crawl's tasks begin and end; those of another that was imported meanwhile lie between.

    Positions grow with the shards' sequence: an import gives out both together. Nowhere, if the crawl has no tasks.
    """
    query = select(
        *(
            select(end(col(TaskRow.position))).where(col(TaskRow.shard) == shard).scalar_subquery()
            for end, shard in _SHARDS_OF.items()
        )
    )
    first, last = session.execute(query, {"of_crawl": crawl}).one()
    return (0, -1) if first is None else (first, last)


def _in_state(state: LeaseState | None, now: int, is_narrow: bool) -> list[list[ColumnElement[bool] | Any]]:
    """Conditions that together hold for the leases in a state as time makes it (tables.state_at), in disjoint parts.

    `is_narrow`: another condition leaves few leases, and these only sift them.
    """
    overdue = _LEASES.c.expires_at <= now
    if state is None:
        return [[]]
    if is_narrow:
        return [[case(((_LEASES.c.state == "active") & overdue, "expired"), else_=_LEASES.c.state) == state]]
    if state == "active":
        return [[IS_ACTIVE, ~overdue]]
    ended: list[Any] = [IS_ENDED, _LEASES.c.state == state]
    return [ended, [IS_ACTIVE, overdue]] if state == "expired" else [ended]
