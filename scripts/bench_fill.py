"""Ledgers of any size for `bench_server.py`: filled in bulk, put back between rounds, counted at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Engine, text

from athena.protocol import Shard, Task
from task_server import schema
from task_server.engines import open_engine, writing

CRAWL = "CC-MAIN-2026-43"
RULE_VERSION, OPENED_BLOCK = "1", 90
# More slots than a round takes from all but a few tasks, so that the smallest ledger stays open while one lasts.
COPIES = 4
TRUSTED_STREAK, UNLIMITED_QUOTA = 100, 10**6
BATCH = 100_000

COLUMNS = {
    "crawl": ("id", "url", "name", "state", "plan", "failures", "imported_at"),
    "shard": ("sequence", "id", "crawl"),
    "warc": ("shard", "place", "crawl", "path"),
    "task": ("id", "position", "shard", "rule_version", "opened_block", "copies", "slots", "closed"),
    "account": ("coldkey", "quota", "allowance", "refilled_at", "streak"),
}

_TAKEN = "SELECT task_id, count(*) AS num FROM lease WHERE state = 'active' GROUP BY task_id"
_WRONG_SLOTS = f"""
SELECT count(*) FROM task JOIN ({_TAKEN}) AS taken ON taken.task_id = task.id
WHERE task.slots <> task.copies - taken.num
"""
_RETURN_SLOTS = "UPDATE task SET slots = copies WHERE id IN (SELECT task_id FROM lease WHERE state = 'active')"
_RELEASE = "UPDATE lease SET state = 'released' WHERE state = 'active'"


def fill(url: str, num_tasks: int, coldkeys: Sequence[str]) -> Engine:
    """A ledger with `num_tasks` open tasks, and accounts with a good record; it must be empty before."""
    engine = open_engine(url)
    schema.prepare(engine)
    tables = {
        "crawl": [(CRAWL, "https://data.commoncrawl.org", CRAWL, "open", "{}", 0, 0)],
        "account": [(coldkey, UNLIMITED_QUOTA, UNLIMITED_QUOTA, 0, TRUSTED_STREAK) for coldkey in coldkeys],
    }
    _insert(engine, tables)
    for start in range(0, num_tasks, BATCH):
        _insert(engine, _shards(range(start, min(start + BATCH, num_tasks))))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # As either database does by itself, some time after an import.
        checkpoint = engine.dialect.name == "sqlite"
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)" if checkpoint else "VACUUM ANALYZE")
    return engine


def put_back(engine: Engine) -> None:
    """Ends all leases as if they had been released. Raises if a task's slots are not what its leases leave of them."""
    with writing(engine) as connection:
        num_wrong = connection.execute(text(_WRONG_SLOTS)).scalar_one()
        if num_wrong:
            raise RuntimeError(f"{num_wrong} tasks are leased twice, or have a slot that nobody can take")
        connection.execute(text(_RETURN_SLOTS))
        connection.execute(text(_RELEASE))


def check(engine: Engine, leased: Sequence[str]) -> None:
    """Raises unless the leases in the ledger, and the links of its event chain, are the `leased` ones."""
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT id FROM lease")).scalars().all()
        links = connection.execute(text("SELECT sequence FROM event_head")).scalar_one()
    if sorted(kept) != sorted(leased) or links != len(leased):
        raise RuntimeError(f"{len(leased)} claims were answered, {len(kept)} leases are kept, {links} events")


def _shards(places: Iterable[int]) -> dict[str, list[tuple[Any, ...]]]:
    shards, warcs, tasks = [], [], []
    for i in places:
        path = f"crawl-data/{CRAWL}/segments/1760000000000.{i % 100}/warc/CC-MAIN-20261017000000-{i:07d}.warc.gz"
        # The canonical JSON of the nouns, written out: a million of them would take minutes.
        shard = f'{{"crawl":"{CRAWL}","warc_paths":["{path}"]}}'
        task = f'{{"opened_block":{OPENED_BLOCK},"rule_version":"{RULE_VERSION}","shard":{shard}}}'
        shards.append((i, _id(shard), CRAWL))
        warcs.append((i, 0, CRAWL, path))
        tasks.append((_id(task), i, i, RULE_VERSION, OPENED_BLOCK, COPIES, COPIES, False))
    noun = Task(shard=Shard(crawl=CRAWL, warc_paths=(path,)), rule_version=RULE_VERSION, opened_block=OPENED_BLOCK)
    assert (noun.shard.id, noun.id) == (shards[-1][1], tasks[-1][0])
    return {"shard": shards, "warc": warcs, "task": tasks}


def _id(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _insert(engine: Engine, tables: dict[str, list[tuple[Any, ...]]]) -> None:
    driver: Any
    with writing(engine) as connection:
        driver = connection.connection.driver_connection
        for table, rows in tables.items():
            names = ", ".join(COLUMNS[table])
            if engine.dialect.name == "sqlite":
                marks = ", ".join("?" * len(COLUMNS[table]))
                driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
            else:
                with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
