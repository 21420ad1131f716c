"""What the whole ledger adds up to: totals, miners' records, the leaderboard. Counted now and then, not per request."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, cast, get_args

from sqlalchemy import bindparam, case, func, select
from sqlmodel import Session, col

from athena.errors import BadInput, NotFound
from athena.protocol import LeaseState, Outcome
from athena.wire import MinerView, Standing, Stats
from task_server.books import AccountRow, EventHeadRow
from task_server.counting import Counted
from task_server.paging import Listed, PageRequest, Walk, sifted
from task_server.store import Store
from task_server.tables import IS_ACTIVE, IS_OPEN, LeaseRow, ReleaseRow, SheetRow, SubmissionRow, TaskRow
from task_server.transaction import Clock, utc_micros

_HALF = 2**26
_DIGITS = 9  # of what is summed up: beyond them a sum of the same floats depends on their order

_TASKS = select(func.coalesce(func.max(col(TaskRow.position)) + 1, 0))  # positions have no gaps
_OPEN_TASKS = select(func.count()).select_from(TaskRow).where(IS_OPEN)
_RELEASES = select(func.count()).select_from(ReleaseRow)
_EVENTS = select(func.coalesce(func.max(col(EventHeadRow.sequence)), 0))
_SHEETS = select(col(SheetRow.outcome), func.count()).group_by(col(SheetRow.outcome))
_LEASES = select(col(LeaseRow.hotkey), col(LeaseRow.state), func.count()).group_by(
    col(LeaseRow.hotkey), col(LeaseRow.state)
)
_OVERDUE = (
    select(sifted(LeaseRow.hotkey), func.count())
    .where(IS_ACTIVE, col(LeaseRow.expires_at) <= bindparam("now"))
    .group_by(sifted(LeaseRow.hotkey))
)
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

_SAID = (
    select(
        *(col(said) for said in (SheetRow.task_id, SheetRow.hotkey, SheetRow.validator, SheetRow.units)),
        col(SheetRow.effect),
    )
    .where(col(SheetRow.outcome) != "none")
    .order_by(col(SheetRow.task_id), col(SheetRow.sequence))
    .execution_options(yield_per=1000)
)


Word = tuple[float, float | None]
"""Units and effect, as one validator has them."""


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
        with self._store.read() as session, session.connection().execute(_SAID) as sheets:
            earned = _earnings(sheets)
        standings = []
        for hotkey in done.keys() | earned.keys():
            earning, miner = earned.get(hotkey, Earning()), done.get(hotkey)
            standings.append(
                Standing(
                    rank=0,
                    hotkey=hotkey,
                    units=round(earning.units, _DIGITS),
                    effect=round(earning.effect / earning.num_effects, _DIGITS) if earning.num_effects else None,
                    submissions=miner.submissions if miner else 0,
                    tokens=miner.tokens if miner else 0,
                )
            )
        standings.sort(key=_order)
        return tuple(standing.model_copy(update={"rank": rank}) for rank, standing in enumerate(standings, 1))


@dataclass
class Earning:
    """Pay units of all that a miner submitted, and the sum of the effects of those submissions that have one."""

    units: float = 0.0
    effect: float = 0.0
    num_effects: int = 0

    def add(self, words: Iterable[Word]) -> None:
        """One submission, by the median of what each validator says: the word in the middle, or the two there."""
        ranked = sorted(words, key=itemgetter(0))
        one, other = ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]
        self.units += (one[0] + other[0]) / 2
        effects = [effect for _, effect in (one, other) if effect is not None]
        if effects:
            self.effect += sum(effects) / len(effects)
            self.num_effects += 1


def _earnings(sheets: Iterable[Any]) -> dict[str, Earning]:
    """By hotkey. `sheets` by task, and in the order of their arrival: a validator's last one is its word."""
    earned: defaultdict[str, Earning] = defaultdict(Earning)
    for _, of_task in groupby(sheets, key=itemgetter(0)):
        words: defaultdict[str, dict[str, Word]] = defaultdict(dict)
        for _, hotkey, validator, units, effect in of_task:
            words[hotkey][validator] = units, effect
        for hotkey, said in words.items():
            earned[hotkey].add(said.values())
    return earned


def _miners(session: Session, now: int) -> tuple[MinerView, ...]:
    leases: dict[str, dict[LeaseState, int]] = defaultdict(lambda: dict.fromkeys(get_args(LeaseState), 0))
    for hotkey, state, count in session.execute(_LEASES):
        leases[hotkey][cast(LeaseState, state)] = count
    for hotkey, count in session.execute(_OVERDUE, {"now": now}):
        leases[hotkey]["active"] -= count
        leases[hotkey]["expired"] += count
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
