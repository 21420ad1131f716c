"""From a crawl's listing to tasks: which WARC files make a shard, and how they get into the ledger.

Whoever imports, the command or a server, may be killed at any time, and several may import at once, even the same
crawl: a batch is one transaction, the batches of all imports wait for each other, and each leaves out what is there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, zip_longest
from typing import Annotated, NamedTuple

from pydantic import Field
from sqlalchemy import bindparam, func, insert, select, update
from sqlmodel import col

from athena.crawl import Manners
from athena.errors import AthenaError, BadInput, Blocked
from athena.protocol import MAX_WARCS_PER_SHARD, CrawlId, Noun, RuleVersion, Shard, Task
from athena.wire import CrawlView
from task_server.columns import table_of
from task_server.listing import fetch_listing
from task_server.settings import LedgerSettings
from task_server.store import Store
from task_server.tables import CrawlRow, ShardRow, TaskRow, WarcRow
from task_server.transaction import SECOND, Transaction

BATCH_WARCS = 2000
"""Per transaction: what a kill in the middle of an import may cost, and how long other writes may wait for it."""
OPENING_BLOCKS = 10
"""No draw has been made yet at the block so far ahead, and a crawl is stored by then: draws stay recomputable."""
HOLD_SECONDS = 300
"""An import that has not stored a batch for so long is dead, and a server may take it over."""
MAX_PAUSE_SECONDS = 24 * 3600
MAX_FAILURE_CHARACTERS = 1000

log = logging.getLogger(__name__)

_CRAWLS = table_of(CrawlRow)
_CRAWL = select(_CRAWLS).where(_CRAWLS.c.id == bindparam("of")).with_for_update(key_share=True)
# Held until the commit by whoever gives out positions. Two imports always meet in the row of one of them.
_ALL_CRAWLS = select(_CRAWLS.c.id).order_by(_CRAWLS.c.id).with_for_update(key_share=True)
_PLAN = (
    update(_CRAWLS)
    .where(_CRAWLS.c.id == bindparam("of"))
    .values({name: bindparam(f"to_{name}") for name in ("url", "name", "plan", "due_at")})
    .values(state="importing", failures=0)
)
_DUE = (
    select(_CRAWLS.c.id, _CRAWLS.c.plan, _CRAWLS.c.name, _CRAWLS.c.failures)
    .where(_CRAWLS.c.due_at <= bindparam("now"))
    .order_by(_CRAWLS.c.due_at, _CRAWLS.c.id)
    .limit(1)
    .with_for_update(skip_locked=True, key_share=True)
)
# What is written about a plan is not written about another that has taken its place.
_OF_PLAN = update(_CRAWLS).where(_CRAWLS.c.id == bindparam("of"), _CRAWLS.c.plan == bindparam("planned"))
_HOLD = _OF_PLAN.where(_CRAWLS.c.due_at.is_not(None)).values(due_at=bindparam("until"))
_FAIL = _OF_PLAN.values(failure=bindparam("text"), failures=_CRAWLS.c.failures + 1, due_at=bindparam("until"))
_FINISH = _OF_PLAN.values(
    state="open", name=bindparam("to_name"), failure=None, failures=0, due_at=None, imported_at=bindparam("at")
)
_PATHS = select(col(WarcRow.path)).where(col(WarcRow.crawl) == bindparam("of"))
_TAKEN = _PATHS.where(col(WarcRow.path).in_(bindparam("paths", expanding=True)))
_LAST_TASK = (
    select(col(TaskRow.opened_block), col(TaskRow.position))
    .order_by(col(TaskRow.opened_block).desc(), col(TaskRow.position).desc())
    .limit(1)
)
_LAST_SHARD = select(func.coalesce(func.max(col(ShardRow.sequence)), 0))
_ADD_SHARDS, _ADD_WARCS, _ADD_TASKS = insert(ShardRow), insert(WarcRow), insert(TaskRow)


class Opening(Noun):
    """How a crawl is cut and its tasks are opened: from `opened_block` on they are drawn.

    `from_list`: its paths do not come from the crawl's own listing, so no server can fetch them.
    """

    crawl: CrawlId
    crawl_url: str
    warcs_per_shard: Annotated[int, Field(ge=1, le=MAX_WARCS_PER_SHARD)]
    rule_version: RuleVersion
    replication: Annotated[int, Field(ge=1)]
    opened_block: Annotated[int, Field(ge=0)]
    limit_warcs: Annotated[int, Field(ge=1)] | None = None
    from_list: bool = False

    @property
    def is_fetchable(self) -> bool:
        """Whether a server may go on with the import by itself: it reads no files of its own machine."""
        return not self.from_list and self.crawl_url.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Imported:
    """`tasks` opened by this import for `warcs` files, and how many files of the listing were there before."""

    tasks: int
    warcs: int
    known_warcs: int


def plan_shards(
    crawl: str, listing: Sequence[str], warcs_per_shard: int, *, limit: int | None = None, known: Collection[str] = ()
) -> Iterator[Shard]:
    """Cuts a listing into shards of `warcs_per_shard` files in the order of blake2b-256(crawl ‖ newline ‖ path).

    Neighbours in the listing share hosts and never share a shard: a shard takes either even or odd places of the
    listing only, so the last shard of each half may be smaller. `limit` takes that many files, by hash, from both
    halves alike; `known` files are left out. A plan that stopped between two shards goes on as it would have.
    """
    distinct = list(dict.fromkeys(listing))
    halves = [sorted(half, key=lambda path: _hash(crawl, path)) for half in (distinct[::2], distinct[1::2])]
    alternating = chain.from_iterable(zip_longest(*halves))
    chosen = set(islice((path for path in alternating if path is not None), limit))
    chosen.difference_update(known)
    for half in halves:
        rest = [path for path in half if path in chosen]
        for start in range(0, len(rest), warcs_per_shard):
            yield Shard(crawl=crawl, warc_paths=tuple(rest[start : start + warcs_per_shard]))


def opening_block(store: Store, head_block: int) -> int:
    """The block to open tasks at when the chain's head is `head_block`: late enough for all draws so far."""
    with store.read() as session:
        last = session.connection().execute(_LAST_TASK).first()
    return max(head_block + OPENING_BLOCKS, 0 if last is None else last.opened_block)


def import_crawl(
    store: Store,
    listing: Sequence[str],
    opening: Opening,
    *,
    name: str | None = None,
    on_progress: Callable[[int, int], None] = lambda _stored, _total: None,
) -> Imported:
    """Opens a task for every WARC file that no shard of this crawl holds yet; `on_progress` gets (stored, total).

    Committed batch by batch: after a kill, the same import goes on. Raises BadInput when `opened_block` lies before
    that of tasks already there, because draws at earlier blocks would change, or when a list would move the files of
    a crawl; Unavailable when the database is.
    """
    job = _Job(opening, opening.canonical().decode(), name or opening.crawl)
    store.submit(lambda tx: _announce(tx, opening, job.name, tx.now + HOLD_SECONDS * SECOND)).result()
    try:
        return _import(store, listing, job, on_progress)
    except BadInput as error:  # no server shall open at another block what was refused here
        store.submit(partial(_fail, job=job, error=error, is_retried=False)).result()
        raise


def request_crawl(tx: Transaction, opening: Opening) -> CrawlView:
    """Asks the servers to import a crawl soon (`continue_imports`); one that is there grows, or is tried again.

    Raises BadInput for an address that is not http(s), or a crawl whose files came from a list and lie elsewhere.
    """
    if not opening.is_fetchable:
        raise BadInput(f"{opening.crawl_url} is no http(s) address", remedy="import local files by the command")
    _announce(tx, opening, None, tx.now)
    return CrawlRow(**tx.connection.execute(_CRAWL, {"of": opening.crawl}).one()._mapping).view()


def continue_imports(store: Store, settings: LedgerSettings, head_block: int) -> None:
    """Imports every crawl that was asked for, and those whose import died: one attempt each, in this thread.

    What fails is kept as the crawl's `failure` and tried again after a pause that doubles from HOLD_SECONDS to a day;
    a server that answered 403 is left alone for that day. Raises Unavailable when the database is.
    """
    manners = Manners(contact=settings.contact, max_attempts=1)
    while (job := store.submit(_take_due).result()) is not None:
        opening = job.opening
        try:
            listing = fetch_listing(opening.crawl, opening.crawl_url, settings.collinfo_url, manners)
            block = max(opening.opened_block, opening_block(store, head_block))
            ready = job._replace(opening=opening.model_copy(update={"opened_block": block}), name=listing.name)
            _import(store, listing.paths, ready, lambda _stored, _total: None)
        except AthenaError as error:
            log.warning("%s could not be imported: %s", opening.crawl, error)
            store.submit(partial(_fail, job=job, error=error, is_retried=True)).result()


class _Job(NamedTuple):
    """One run of an import, after so many failures in a row.

    `plan` is as the crawl's row has it; `opening` may open the tasks at a later block.
    """

    opening: Opening
    plan: str
    name: str
    failures: int = 0


class _Cut(NamedTuple):
    """A shard to be stored, and its task."""

    shard_id: str
    task_id: str
    paths: tuple[str, ...]


def _announce(tx: Transaction, opening: Opening, name: str | None, due_at: int) -> None:
    """Puts a crawl into the state importing under this plan. A name of None leaves the one it has."""
    plan, due = opening.canonical().decode(), due_at if opening.is_fetchable else None
    row = tx.connection.execute(_CRAWL, {"of": opening.crawl}).first()
    if row is None:
        fresh = CrawlRow(
            id=opening.crawl, url=opening.crawl_url, name=name or opening.crawl, state="importing", plan=plan,
            due_at=due, imported_at=tx.now,
        )  # fmt: skip
        if tx.insert_new(CrawlRow, **fresh.model_dump()):
            return
        row = tx.connection.execute(_CRAWL, {"of": opening.crawl}).one()
    listed = opening.from_list or Opening.model_validate_json(row.plan).from_list
    if listed and row.url != opening.crawl_url:
        raise BadInput(
            f"the files of {opening.crawl} lie at {row.url}, not {opening.crawl_url}", remedy="give another crawl id"
        )
    moved = {"to_url": opening.crawl_url, "to_name": name or row.name, "to_plan": plan, "to_due_at": due}
    tx.connection.execute(_PLAN, {"of": opening.crawl, **moved})


def _import(store: Store, listing: Sequence[str], job: _Job, on_progress: Callable[[int, int], None]) -> Imported:
    """Stores batches until a plan finds nothing left: another import may have stored some of a batch first."""
    opening = job.opening
    shards_per_batch = max(1, BATCH_WARCS // opening.warcs_per_shard)
    before = known = _known(store, opening.crawl, listing)
    num_tasks = num_warcs = 0
    while shards := list(
        plan_shards(opening.crawl, listing, opening.warcs_per_shard, limit=opening.limit_warcs, known=known)
    ):
        for start in range(0, len(shards), shards_per_batch):
            cuts = [_cut(shard, opening) for shard in shards[start : start + shards_per_batch]]
            stored = store.submit(partial(_store, cuts=cuts, job=job)).result()
            num_tasks += len(stored)
            num_warcs += sum(len(cut.paths) for cut in stored)
            on_progress(start + len(cuts), len(shards))
        known = _known(store, opening.crawl, listing)
    store.submit(partial(_finish, job=job)).result()
    return Imported(tasks=num_tasks, warcs=num_warcs, known_warcs=len(before))


def _known(store: Store, crawl: str, listing: Collection[str]) -> set[str]:
    """The files of a listing that some shard of the crawl holds."""
    with store.read() as session:
        return set(listing).intersection(session.connection().execute(_PATHS, {"of": crawl}).scalars())


def _cut(shard: Shard, opening: Opening) -> _Cut:
    task = Task(shard=shard, rule_version=opening.rule_version, opened_block=opening.opened_block)
    return _Cut(shard.id, task.id, shard.warc_paths)


def _store(tx: Transaction, cuts: Sequence[_Cut], job: _Job) -> list[_Cut]:
    """Stores one batch; the cuts of it that are new."""
    opening = job.opening
    tx.connection.execute(_ALL_CRAWLS).all()
    paths = [path for cut in cuts for path in cut.paths]
    taken = set(tx.connection.execute(_TAKEN, {"of": opening.crawl, "paths": paths}).scalars())
    cuts = [cut for cut in cuts if taken.isdisjoint(cut.paths)]
    if not cuts:
        return []
    last_block, last_position = tx.connection.execute(_LAST_TASK).first() or (0, -1)
    if opening.opened_block < last_block:
        raise BadInput(
            f"block {opening.opened_block} lies before {last_block}, at which tasks are open already",
            remedy=f"open the tasks at block {last_block} or later",
        )
    first_shard = tx.connection.execute(_LAST_SHARD).scalar_one() + 1
    tx.connection.execute(
        _ADD_SHARDS,
        [{"sequence": i, "id": cut.shard_id, "crawl": opening.crawl} for i, cut in enumerate(cuts, first_shard)],
    )
    tx.connection.execute(
        _ADD_WARCS,
        [
            {"shard": i, "place": place, "crawl": opening.crawl, "path": path}
            for i, cut in enumerate(cuts, first_shard)
            for place, path in enumerate(cut.paths)
        ],
    )
    tx.connection.execute(
        _ADD_TASKS,
        [
            {
                "id": cut.task_id,
                "position": last_position + 1 + i,
                "shard": first_shard + i,
                "rule_version": opening.rule_version,
                "opened_block": opening.opened_block,
                "copies": opening.replication,
                "slots": opening.replication,
                "closed": False,
            }
            for i, cut in enumerate(cuts)
        ],
    )
    tx.connection.execute(_HOLD, {"of": opening.crawl, "planned": job.plan, "until": tx.now + HOLD_SECONDS * SECOND})
    tx.record(
        "imported",
        crawl=opening.crawl,
        block=opening.opened_block,
        first_position=last_position + 1,
        tasks=len(cuts),
        copies=opening.replication,
        rule_version=opening.rule_version,
        sha256=hashlib.sha256("\n".join(cut.task_id for cut in cuts).encode()).hexdigest(),
    )
    return cuts


def _finish(tx: Transaction, job: _Job) -> None:
    about = {"of": job.opening.crawl, "planned": job.plan}
    tx.connection.execute(_FINISH, {**about, "to_name": job.name, "at": tx.now})


def _take_due(tx: Transaction) -> _Job | None:
    """A crawl that is due, and that no other server takes for HOLD_SECONDS."""
    row = tx.connection.execute(_DUE, {"now": tx.now}).first()
    if row is None:
        return None
    until = tx.now + HOLD_SECONDS * SECOND
    tx.connection.execute(_HOLD, {"of": row.id, "planned": row.plan, "until": until})
    return _Job(Opening.model_validate_json(row.plan), row.plan, row.name, row.failures)


def _fail(tx: Transaction, job: _Job, error: AthenaError, is_retried: bool) -> None:
    """Keeps why an import stopped. Servers try again after a pause, or never."""
    pause_seconds = min(HOLD_SECONDS * 2**job.failures, MAX_PAUSE_SECONDS)
    if isinstance(error, Blocked):
        pause_seconds = MAX_PAUSE_SECONDS
    until = tx.now + pause_seconds * SECOND if is_retried else None
    text = str(error)[:MAX_FAILURE_CHARACTERS]
    about = {"of": job.opening.crawl, "planned": job.plan}
    tx.connection.execute(_FAIL, {**about, "text": text, "until": until})
    tx.note("import-failed", crawl=job.opening.crawl, failure=text)


def _hash(crawl: str, path: str) -> bytes:
    return hashlib.blake2b(f"{crawl}\n{path}".encode(), digest_size=32).digest()
