"""What the whole ledger adds up to: totals, miners' records, the leaderboard. Counted now and then, not per request."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, get_args

from sqlalchemy import bindparam, case, func, select
from sqlmodel import Session, col

from athena.errors import BadInput, NotFound
from athena.protocol import LeaseState, Outcome
from athena.wire import MinerView, Standing, Stats
from task_server.books import AccountRow, EventHeadRow
from task_server.paging import Listed, PageRequest, Walk
from task_server.store import Store
from task_server.tables import IS_ACTIVE, IS_ENDED, IS_OPEN, LeaseRow, ReleaseRow, SheetRow, SubmissionRow, TaskRow
from task_server.transaction import SECOND, Clock, utc_micros

FRESH_SECONDS = 3.0
MAX_SHARE = 0.05
"""Of all time that counting may take up: what took long is kept for longer."""
_HALF = 2**26
_DIGITS = 9  # beyond them a sum of the same floats depends on their order

_TASKS = select(func.coalesce(func.max(col(TaskRow.position)) + 1, 0))  # positions have no gaps
_OPEN_TASKS = select(func.count()).select_from(TaskRow).where(IS_OPEN)
_RELEASES = select(func.count()).select_from(ReleaseRow)
_EVENTS = select(func.coalesce(func.max(col(EventHeadRow.sequence)), 0))
_SHEETS = select(col(SheetRow.outcome), func.count()).group_by(col(SheetRow.outcome))
_ENDED = (
    select(col(LeaseRow.hotkey), col(LeaseRow.state), func.count())
    .where(IS_ENDED)
    .group_by(col(LeaseRow.hotkey), col(LeaseRow.state))
)
_IS_OVERDUE = case((col(LeaseRow.expires_at) <= bindparam("now"), "expired"), else_="active")
_ACTIVE = select(col(LeaseRow.hotkey), _IS_OVERDUE.label("at_now"), func.count()).where(IS_ACTIVE).group_by(
    col(LeaseRow.hotkey), "at_now"
)  # fmt: skip
_LAST = select(func.max(col(LeaseRow.fencing)).label("fencing")).group_by(col(LeaseRow.hotkey)).subquery()
_HOLDERS = (
    select(col(LeaseRow.hotkey), AccountRow)
    .join(_LAST, _LAST.c.fencing == col(LeaseRow.fencing))
    .join(AccountRow, col(AccountRow.coldkey) == col(LeaseRow.coldkey))
)
_AMOUNTS = [col(amount) for amount in (SubmissionRow.records, SubmissionRow.rows, SubmissionRow.tokens)]
# In two halves: whoever submits 2^53 tokens a thousand times would make a 64-bit sum overflow.
_DONE = select(
    col(SubmissionRow.hotkey),
    func.count(),
    *(func.count(case((col(SubmissionRow.verdict) == verdict, 1))) for verdict in ("pass", "fail")),
    *(func.sum(half) for amount in _AMOUNTS for half in (amount // _HALF, amount % _HALF)),
).group_by(col(SubmissionRow.hotkey))

# A validator's last sheet about a submission is its word; `none` says nothing, so an earlier word stands.
_SAID = (
    select(
        col(SheetRow.task_id),
        col(SheetRow.hotkey),
        col(SheetRow.units),
        col(SheetRow.effect),
        func.lead(col(SheetRow.sequence))
        .over(
            partition_by=(col(SheetRow.task_id), col(SheetRow.hotkey), col(SheetRow.validator)),
            order_by=col(SheetRow.sequence),
        )
        .label("later"),
    )
    .where(col(SheetRow.outcome) != "none")
    .subquery()
)
_OF_SUBMISSION = (_SAID.c.task_id, _SAID.c.hotkey)
_WORDS = (
    select(
        _SAID,
        func.row_number().over(partition_by=_OF_SUBMISSION, order_by=_SAID.c.units).label("place"),
        func.count().over(partition_by=_OF_SUBMISSION).label("num_words"),
    )
    .where(_SAID.c.later.is_(None))
    .subquery()
)
# The word in the middle, or the mean of the two there: the median.
_JUDGED = (
    select(_WORDS.c.hotkey, func.avg(_WORDS.c.units).label("units"), func.avg(_WORDS.c.effect).label("effect"))
    .where((2 * _WORDS.c.place).between(_WORDS.c.num_words, _WORDS.c.num_words + 2))
    .group_by(_WORDS.c.task_id, _WORDS.c.hotkey)
    .subquery()
)
_PAID = select(_JUDGED.c.hotkey, func.sum(_JUDGED.c.units), func.avg(_JUDGED.c.effect)).group_by(_JUDGED.c.hotkey)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Count(Generic[Value]):
    """What was counted at a time (UTC microseconds), and for how many seconds that is good enough."""

    value: Value
    at: int
    good_seconds: float

    def age_seconds(self, now: int) -> float:
        return max(0.0, (now - self.at) / SECOND)


class Counted(Generic[Value]):
    """The result of `count`, at most FRESH_SECONDS old, or a few times as long as counting takes.

    One thread at a time counts anew; meanwhile the others are given the old count, or wait for the first.
    """

    def __init__(self, count: Callable[[], Value], clock: Clock) -> None:
        self._count = count
        self._clock = clock
        self._counting = threading.Lock()
        self._last: Count[Value] | None = None

    def get(self) -> Count[Value]:
        """Raises what counting raises."""
        last = self._last
        if last is not None and (self._is_good(last) or not self._counting.acquire(blocking=False)):
            return last
        if last is None:
            self._counting.acquire()
        try:
            if self._last is None or not self._is_good(self._last):
                self._last = self._counted()
            return self._last
        finally:
            self._counting.release()

    def _is_good(self, count: Count[Value]) -> bool:
        return 0 <= self._clock() - count.at < count.good_seconds * SECOND

    def _counted(self) -> Count[Value]:
        at, started = self._clock(), time.monotonic()
        value = self._count()
        return Count(value, at, max(FRESH_SECONDS, (time.monotonic() - started) / MAX_SHARE))


@dataclass(frozen=True)
class Tally:
    """Totals, and each miner's record, by hotkey."""

    stats: Stats
    miners: tuple[MinerView, ...]


class Standings:
    """Lists take the cursor of an earlier page of the same list; any other raises BadInput. All raise Unavailable."""

    def __init__(self, store: Store, clock: Clock = utc_micros) -> None:
        self._store = store
        self._clock = clock
        self._tally = Counted(self._count_tally, clock)
        self._board = Counted(self._count_board, clock)

    def stats(self) -> tuple[Stats, float]:
        """The totals, and their age in seconds."""
        tally = self._tally.get()
        return tally.value.stats, tally.age_seconds(self._clock())

    def miner(self, hotkey: str) -> tuple[MinerView, float]:
        """One miner's record, and its age in seconds. NotFound for a hotkey that never held a lease."""
        tally = self._tally.get()
        place = bisect_right(tally.value.miners, hotkey, key=_hotkey)
        if place == 0 or tally.value.miners[place - 1].hotkey != hotkey:
            raise NotFound(f"{hotkey} has held no lease")
        return tally.value.miners[place - 1], tally.age_seconds(self._clock())

    def miners(self, request: PageRequest) -> tuple[Listed, float]:
        """All who ever held a lease, by hotkey, and how many seconds ago that was counted."""
        walk = Walk("miners", request)
        tally = self._tally.get()
        start = bisect_right(tally.value.miners, walk.after or "", key=_hotkey)
        page = walk.slice(tally.value.miners[start : start + walk.limit + 1], _hotkey)
        return Listed([miner.model_dump_json() for miner in page.rows], page.next), tally.age_seconds(self._clock())

    def leaderboard(self, request: PageRequest) -> tuple[Listed, float]:
        """All who ever submitted or were scored, the best first, and how many seconds ago that was counted."""
        walk = Walk("leaderboard", request)
        board = self._board.get()
        start = 0 if walk.after is None else bisect_right(board.value, _parsed(walk.after), key=_order)
        page = walk.slice(
            board.value[start : start + walk.limit + 1], lambda standing: f"{standing.units!r} {standing.hotkey}"
        )
        listed = Listed([standing.model_dump_json() for standing in page.rows], page.next)
        return listed, board.age_seconds(self._clock())

    def _count_tally(self) -> Tally:
        now = self._clock()
        with self._store.read() as session:
            miners = _miners(session, now)
            tasks, open_tasks, releases, events = (
                session.execute(query).scalar_one() for query in (_TASKS, _OPEN_TASKS, _RELEASES, _EVENTS)
            )
            outcomes = dict(session.execute(_SHEETS).all())
        stats = Stats(
            tasks=tasks,
            open_tasks=open_tasks,
            leases={state: sum(miner.leases[state] for miner in miners) for state in get_args(LeaseState)},
            submissions=sum(miner.submissions for miner in miners),
            records=sum(miner.records for miner in miners),
            rows=sum(miner.rows for miner in miners),
            tokens=sum(miner.tokens for miner in miners),
            sheets={outcome: outcomes.get(outcome, 0) for outcome in get_args(Outcome)},
            releases=releases,
            events=events,
        )
        return Tally(stats, miners)

    def _count_board(self) -> tuple[Standing, ...]:
        done = {miner.hotkey: miner for miner in self._tally.get().value.miners if miner.submissions}
        with self._store.read() as session:
            paid = {hotkey: (units, effect) for hotkey, units, effect in session.execute(_PAID)}
        sums = []
        for hotkey in done.keys() | paid.keys():
            units, effect = paid.get(hotkey, (0.0, None))
            sums.append((-round(units, _DIGITS), hotkey, None if effect is None else round(effect, _DIGITS)))
        return tuple(
            Standing(
                rank=rank,
                hotkey=hotkey,
                units=abs(units),
                effect=effect,
                submissions=done[hotkey].submissions if hotkey in done else 0,
                tokens=done[hotkey].tokens if hotkey in done else 0,
            )
            for rank, (units, hotkey, effect) in enumerate(sorted(sums), 1)
        )


def _miners(session: Session, now: int) -> tuple[MinerView, ...]:
    leases: dict[str, dict[LeaseState, int]] = defaultdict(lambda: dict.fromkeys(get_args(LeaseState), 0))
    for query in (_ENDED, _ACTIVE):
        for hotkey, state, count in session.execute(query, {"now": now}):
            leases[hotkey][cast(LeaseState, state)] += count
    done = {hotkey: sums for hotkey, *sums in session.execute(_DONE)}
    holders = dict(session.execute(_HOLDERS).all())
    return tuple(
        _miner(hotkey, leases[hotkey], done.get(hotkey, [0] * 9), holders[hotkey]) for hotkey in sorted(leases)
    )


def _miner(hotkey: str, leases: dict[LeaseState, int], done: list[Any], account: AccountRow) -> MinerView:
    submissions, passed, failed, *halves = (int(total) for total in done)
    records, rows, tokens = (high * _HALF + low for high, low in zip(halves[::2], halves[1::2], strict=True))
    return MinerView(
        hotkey=hotkey,
        coldkey=account.coldkey,
        leases=leases,
        submissions=submissions,
        passed=passed,
        failed=failed,
        records=records,
        rows=rows,
        tokens=tokens,
        quota=account.quota,
        streak=account.streak,
        ban=account.ban,
    )


def _hotkey(miner: MinerView) -> str:
    return miner.hotkey


def _order(standing: Standing) -> tuple[float, str]:
    return -standing.units, standing.hotkey


def _parsed(key: str) -> tuple[float, str]:
    """The reverse of the cursor's `units hotkey`. Raises BadInput."""
    units, _, hotkey = key.partition(" ")
    try:
        return -float(units), hotkey
    except ValueError as error:
        raise BadInput("the cursor is none of this list") from error
