"""From a crawl's listing to tasks: which WARC files make a shard, and how they get into the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice, zip_longest

from sqlalchemy import func, insert
from sqlmodel import Session, select

from athena.errors import BadInput
from athena.protocol import Shard, Task
from task_server.database import Database
from task_server.tables import CrawlRow, ShardRow, TaskRow, micros

BATCH_SHARDS = 500  # shards per transaction: what a kill in the middle of an import may cost


@dataclass(frozen=True)
class Opening:
    """How a crawl is cut and its tasks are opened."""

    crawl: str
    crawl_url: str
    warcs_per_shard: int
    rule_version: str
    replication: int
    opened_block: int
    limit_warcs: int | None = None


@dataclass(frozen=True)
class Imported:
    """`tasks` opened by this import, and how many WARC files were in the ledger before."""

    tasks: int
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


def import_crawl(
    database: Database,
    listing: Sequence[str],
    opening: Opening,
    now: datetime,
    on_progress: Callable[[int, int], None] = lambda _stored, _total: None,
) -> Imported:
    """Opens a task for every WARC file that no shard of this crawl holds yet; `on_progress` gets (stored, total).

    Committed batch by batch: after a kill, the same import goes on. Raises BadInput when `opened_block` lies before
    that of tasks already there, because draws at earlier blocks would change.
    """
    with database.write() as session:
        session.merge(CrawlRow(id=opening.crawl, url=opening.crawl_url, imported_at=micros(now)))
    with database.read() as session:
        stored = session.exec(select(ShardRow.warc_paths).where(ShardRow.crawl == opening.crawl))
        known = {path for paths in stored for path in paths.split("\n")}
    shards = list(plan_shards(opening.crawl, listing, opening.warcs_per_shard, limit=opening.limit_warcs, known=known))
    for start in range(0, len(shards), BATCH_SHARDS):
        batch = shards[start : start + BATCH_SHARDS]
        with database.write() as session:
            _store(session, batch, opening)
        on_progress(start + len(batch), len(shards))
    return Imported(tasks=len(shards), known_warcs=len(known))


def _store(session: Session, shards: Sequence[Shard], opening: Opening) -> None:
    last = session.exec(select(func.max(TaskRow.opened_block), func.max(TaskRow.position))).one()
    last_block, last_position = last if last[0] is not None else (0, -1)
    if opening.opened_block < last_block:
        raise BadInput(
            f"block {opening.opened_block} lies before {last_block}, at which tasks are open already",
            remedy="open the tasks at the chain's head",
        )
    tasks = [
        Task(shard=shard, rule_version=opening.rule_version, opened_block=opening.opened_block) for shard in shards
    ]
    session.execute(
        insert(ShardRow),
        [{"id": s.id, "crawl": s.crawl, "warc_paths": "\n".join(s.warc_paths)} for s in shards],
    )
    session.execute(
        insert(TaskRow),
        [
            {
                "id": task.id,
                "position": last_position + 1 + i,
                "shard_id": task.shard.id,
                "rule_version": task.rule_version,
                "opened_block": task.opened_block,
                "replication": opening.replication,
                "slots": opening.replication,
            }
            for i, task in enumerate(tasks)
        ],
    )


def _hash(crawl: str, path: str) -> bytes:
    return hashlib.blake2b(f"{crawl}\n{path}".encode(), digest_size=32).digest()
