"""From a listing to tasks: what may share a shard, and imports that are repeated, killed, or done twice at once."""

from __future__ import annotations

import gzip
import hashlib
import threading
from concurrent.futures import Future
from itertools import islice, pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given
from sqlmodel import select

from athena.audit import GENESIS, link_hash
from athena.errors import AthenaError, BadInput
from athena.protocol import Shard, Task
from task_server import crawl as crawl_module
from task_server.books import EventRow
from task_server.crawl import (
    HOLD_SECONDS,
    MAX_PAUSE_SECONDS,
    OPENING_BLOCKS,
    Opening,
    continue_imports,
    import_crawl,
    opening_block,
    plan_shards,
    request_crawl,
)
from task_server.settings import LedgerSettings
from task_server.store import open_store
from task_server.tables import CrawlRow, ShardRow, TaskRow, WarcRow

CRAWL = "CC-MAIN-2026-43"
OTHER = "CC-MAIN-2026-39"
HOLD = HOLD_SECONDS * 10**6


def listing_of(num_warcs: int, crawl: str = CRAWL) -> list[str]:
    return [f"crawl-data/{crawl}/segments/{i % 7}/warc/{i:05d}.warc.gz" for i in range(num_warcs)]


def opening(**fields) -> Opening:
    terms = {"crawl": CRAWL, "crawl_url": "file:///crawl", "warcs_per_shard": 3, "rule_version": "1"}
    return Opening(**terms | {"replication": 1, "opened_block": 10} | fields)


def stored(store) -> list[tuple[int, str, tuple[str, ...]]]:
    """Position, task id and paths of every task; ids are what they must be, and every path stands in one shard only."""
    with store.read() as session:
        tasks = session.exec(
            select(TaskRow, ShardRow).join(ShardRow, ShardRow.sequence == TaskRow.shard).order_by(TaskRow.position)
        ).all()
        warcs = session.exec(select(WarcRow).order_by(WarcRow.shard, WarcRow.place)).all()
    found = []
    for task, shard in tasks:
        paths = tuple(warc.path for warc in warcs if warc.shard == shard.sequence)
        noun = Task(
            shard=Shard(crawl=shard.crawl, warc_paths=paths),
            rule_version=task.rule_version,
            opened_block=task.opened_block,
        )
        assert (task.id, shard.id) == (noun.id, noun.shard.id)
        found.append((task.position, task.id, paths))
    assert [position for position, _, _ in found] == list(range(len(found)))
    assert len({(warc.crawl, warc.path) for warc in warcs}) == len(warcs)
    return found


def planned(num_warcs: int, crawl: str = CRAWL) -> list[tuple[str, ...]]:
    return [shard.warc_paths for shard in plan_shards(crawl, listing_of(num_warcs, crawl), 3)]


def crawl_row(store, crawl: str = CRAWL) -> CrawlRow:
    with store.read() as session:
        return session.get_one(CrawlRow, crawl)


class Clock:
    """Microseconds, moved by the test."""

    now = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url, clock):
    store = open_store(database_url, clock)
    yield store
    store.close()


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(crawl_module, "BATCH_WARCS", 6)


@given(num_warcs=st.integers(0, 200), per_shard=st.integers(1, 32), limit=st.none() | st.integers(1, 220))
def test_every_file_lands_in_one_shard_and_never_beside_its_neighbour(num_warcs, per_shard, limit):
    listing = listing_of(num_warcs)
    place = {path: i for i, path in enumerate(listing)}
    shards = list(plan_shards(CRAWL, listing + listing[:3], per_shard, limit=limit))
    assert all(1 <= len(shard.warc_paths) <= per_shard for shard in shards)
    assert len({path for shard in shards for path in shard.warc_paths}) == min(num_warcs, limit or num_warcs)
    assert sum(len(shard.warc_paths) for shard in shards) == min(num_warcs, limit or num_warcs)
    assert sum(len(shard.warc_paths) < per_shard for shard in shards) <= 2
    for shard in shards:
        places = sorted(place[path] for path in shard.warc_paths)
        assert all(later - earlier > 1 for earlier, later in pairwise(places))


@given(
    num_warcs=st.integers(1, 100),
    per_shard=st.integers(1, 8),
    limit=st.none() | st.integers(1, 100),
    done=st.integers(0, 100),
)
def test_a_plan_goes_on_where_it_stopped(num_warcs, per_shard, limit, done):
    listing = listing_of(num_warcs)
    whole = list(plan_shards(CRAWL, listing, per_shard, limit=limit))
    known = {path for shard in islice(whole, done) for path in shard.warc_paths}
    assert list(plan_shards(CRAWL, listing, per_shard, limit=limit, known=known)) == whole[done:]


def test_an_import_is_idempotent_and_grows(store):
    first = import_crawl(store, listing_of(20), opening(limit_warcs=6))
    before = stored(store)
    assert (first.tasks, first.warcs, first.known_warcs) == (2, 6, 0)
    assert import_crawl(store, listing_of(20), opening(limit_warcs=6)).tasks == 0
    grown = import_crawl(store, listing_of(20), opening(opened_block=12, warcs_per_shard=4))
    assert (grown.warcs, grown.known_warcs) == (14, 6)
    after = stored(store)
    assert after[: len(before)] == before
    assert sorted(path for _, _, paths in after for path in paths) == sorted(listing_of(20))


def test_a_crawl_is_named_and_open_once_it_is_whole(store, small_batches):
    states = []
    import_crawl(
        store,
        listing_of(20),
        opening(),
        name="October 2026 Index",
        on_progress=lambda done, total: states.append((done, total, crawl_row(store).state)),
    )
    assert states == [(2, 8, "importing"), (4, 8, "importing"), (6, 8, "importing"), (8, 8, "importing")]
    row = crawl_row(store)
    assert (row.state, row.name, row.failure, row.due_at) == ("open", "October 2026 Index", None, None)
    assert Opening.model_validate_json(row.plan) == opening()


def test_each_batch_is_a_link_of_the_event_chain(store, small_batches):
    import_crawl(store, listing_of(20), opening(replication=2))
    tasks = stored(store)
    with store.read() as session:
        events = [event.view() for event in session.exec(select(EventRow).order_by(EventRow.sequence))]
    previous = GENESIS
    for event in events:
        previous = link_hash(previous, event.sequence, event.at, event.kind, event.body)
        assert (event.kind, event.hash) == ("imported", previous)
        first, num_tasks = event.body["first_position"], event.body["tasks"]
        ids = "\n".join(task_id for _, task_id, _ in tasks[first : first + num_tasks])
        assert event.body == {
            "crawl": CRAWL,
            "block": 10,
            "first_position": first,
            "tasks": num_tasks,
            "copies": 2,
            "rule_version": "1",
            "sha256": hashlib.sha256(ids.encode()).hexdigest(),
        }
    assert sum(event.body["tasks"] for event in events) == len(tasks)


class DyingStore:
    """A store whose process is killed at the n-th write, before or after it is durable."""

    def __init__(self, store, num_writes: int, *, durable: bool) -> None:
        self._store = store
        self._num_writes = num_writes
        self._durable = durable

    def read(self):
        return self._store.read()

    def close(self) -> None: ...

    def submit(self, act, *, first=None) -> Future:
        self._num_writes -= 1
        if self._num_writes > 0 or self._durable:
            done = self._store.submit(act, first=first)
        if self._num_writes > 0:
            return done
        if self._durable:
            done.result()
        raise KeyboardInterrupt


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("num_writes", range(1, 8))
def test_an_import_that_was_killed_goes_on(store, small_batches, num_writes, durable):
    dying = DyingStore(store, num_writes, durable=durable)
    with pytest.raises(KeyboardInterrupt):
        import_crawl(dying, listing_of(30), opening(), name="first")
    batches = num_writes - 2 + durable
    before = stored(store)
    assert len(before) == min(10, max(0, 2 * batches))
    if num_writes > 1 and not (num_writes == 7 and durable):
        assert crawl_row(store).state == "importing"
    resumed = import_crawl(store, listing_of(30), opening(opened_block=11))
    assert resumed.tasks == 10 - len(before)
    after = stored(store)
    assert after[: len(before)] == before
    assert [paths for _, _, paths in after] == planned(30)
    assert crawl_row(store).state == "open"


def test_tasks_never_open_before_those_that_are_open(store):
    import_crawl(store, listing_of(6), opening(limit_warcs=3, opened_block=10))
    with pytest.raises(BadInput, match="lies before 10"):
        import_crawl(store, listing_of(6), opening(opened_block=9))
    assert import_crawl(store, listing_of(6), opening(opened_block=10)).warcs == 3


def test_no_server_opens_at_another_block_what_the_command_refused(store, remote, settings, clock):
    import_crawl(store, listing_of(6, OTHER), opening(crawl=OTHER))
    with pytest.raises(BadInput):
        import_crawl(store, listing_of(20), opening(crawl_url=remote.url, opened_block=9))
    clock.now += 2 * HOLD
    continue_imports(store, settings, 100)
    row = crawl_row(store)
    assert remote.requests == [] and row.state == "importing" and "lies before 10" in row.failure


def test_tasks_open_at_a_block_that_no_draw_has_seen(store):
    assert opening_block(store, 100) == 100 + OPENING_BLOCKS
    import_crawl(store, listing_of(3), opening(opened_block=500))
    assert opening_block(store, 100) == 500
    assert opening_block(store, 600) == 600 + OPENING_BLOCKS


def test_a_list_of_files_never_moves_a_crawl(store):
    import_crawl(store, ["1.warc.gz"], opening(crawl="LOCAL-a", crawl_url="file:///srv/a", from_list=True))
    with pytest.raises(BadInput, match="lie at file:///srv/a, not file:///srv"):
        import_crawl(store, ["a/1.warc.gz"], opening(crawl="LOCAL-a", crawl_url="file:///srv", from_list=True))
    with pytest.raises(BadInput, match="another crawl id"):
        import_crawl(store, ["a/1.warc.gz"], opening(crawl="LOCAL-a", crawl_url="https://mirror.example"))
    assert crawl_row(store, "LOCAL-a").url == "file:///srv/a"


def test_a_crawl_may_move_to_a_mirror(store):
    import_crawl(store, listing_of(6), opening())
    assert import_crawl(store, listing_of(6), opening(crawl_url="https://mirror.example")).tasks == 0
    assert crawl_row(store).url == "https://mirror.example"


@pytest.mark.parametrize("second", [{}, {"warcs_per_shard": 2}, {"crawl": OTHER}])
def test_two_imports_at_once_share_out_the_positions(database_url, small_batches, second):
    openings = [opening(), opening(**second)]
    stores = [open_store(database_url) for _ in openings]
    start = threading.Barrier(len(openings))
    errors: list[BaseException] = []

    def run(store, terms: Opening) -> None:
        try:
            start.wait()
            import_crawl(store, listing_of(60, terms.crawl), terms)
        except AthenaError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(stores, openings, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    crawls = {terms.crawl for terms in openings}
    paths = [path for _, _, paths in stored(stores[0]) for path in paths]
    assert sorted(paths) == sorted(path for crawl in crawls for path in listing_of(60, crawl))
    assert {crawl_row(stores[0], crawl).state for crawl in crawls} == {"open"}
    for store in stores:
        store.close()


@pytest.fixture
def remote(crawl_server):
    """Common Crawl in small, and how it is asked for."""
    for crawl in (CRAWL, OTHER):
        content = gzip.compress("\n".join(listing_of(20, crawl)).encode())
        crawl_server.files[f"/crawl-data/{crawl}/warc.paths.gz"] = content
    crawl_server.files["/collinfo.json"] = b'[{"id": "CC-MAIN-2026-43", "name": "October 2026 Index"}]'
    return crawl_server


@pytest.fixture
def settings(remote) -> LedgerSettings:
    return LedgerSettings(collinfo_url=f"{remote.url}/collinfo.json", contact="ops@node.example")


def ask(store, remote, **fields) -> None:
    terms = opening(crawl_url=remote.url, **fields)
    view = store.submit(lambda tx: request_crawl(tx, terms)).result()
    assert (view.id, view.url, view.state) == (terms.crawl, remote.url, "importing")


def test_a_crawl_that_was_asked_for_is_imported(store, remote, settings):
    ask(store, remote)
    continue_imports(store, settings, head_block=100)
    row = crawl_row(store)
    assert (row.state, row.name, row.failure) == ("open", "October 2026 Index", None)
    assert [paths for _, _, paths in stored(store)] == planned(20)
    with store.read() as session:
        assert {task.opened_block for task in session.exec(select(TaskRow))} == {100 + OPENING_BLOCKS}
    assert all("ops@node.example" in agent for agent in remote.agents)
    num_requests = len(remote.requests)
    continue_imports(store, settings, head_block=101)
    assert len(remote.requests) == num_requests


def test_a_crawl_that_is_there_grows_when_it_is_asked_for_again(store, remote, settings):
    ask(store, remote, limit_warcs=6)
    continue_imports(store, settings, 100)
    before = stored(store)
    ask(store, remote, opened_block=400)
    assert crawl_row(store).name == "October 2026 Index"
    continue_imports(store, settings, 200)
    assert stored(store)[: len(before)] == before
    with store.read() as session:
        assert sorted({task.opened_block for task in session.exec(select(TaskRow))}) == [110, 400]
    assert len({path for _, _, paths in stored(store) for path in paths}) == 20


def test_only_addresses_of_the_web_may_be_asked_for(store):
    for terms in (opening(crawl_url="file:///etc"), opening(crawl_url="https://a.example", from_list=True)):
        with pytest.raises(BadInput, match="import local files by the command"):
            store.submit(lambda tx, terms=terms: request_crawl(tx, terms)).result()


def test_a_failure_is_kept_and_tried_again_after_ever_longer_pauses(store, remote, settings, clock):
    ask(store, remote)
    for pause_seconds in (300, 600, 1200):
        remote.statuses = [503]
        continue_imports(store, settings, 100)
        row = crawl_row(store)
        assert row.state == "importing" and "HTTP 503" in row.failure
        assert row.due_at == clock.now + pause_seconds * 10**6
        remote.requests.clear()
        clock.now = row.due_at - 1
        continue_imports(store, settings, 100)
        assert remote.requests == []
        clock.now = row.due_at
    continue_imports(store, settings, 100)
    row = crawl_row(store)
    assert (row.state, row.failure, row.failures, row.due_at) == ("open", None, 0, None)


def test_a_server_that_blocks_is_left_alone_for_a_day(store, remote, settings, clock):
    ask(store, remote)
    remote.statuses = [403]
    continue_imports(store, settings, 100)
    row = crawl_row(store)
    assert "403" in row.failure and row.due_at == clock.now + MAX_PAUSE_SECONDS * 10**6
    assert len(remote.requests) == 1


def test_a_crawl_that_is_not_listed_is_a_failure_and_the_next_one_is_imported(store, remote, settings):
    ask(store, remote, crawl=OTHER)
    ask(store, remote)
    continue_imports(store, settings, 100)
    assert "does not list CC-MAIN-2026-39" in crawl_row(store, OTHER).failure
    assert crawl_row(store).state == "open"


def test_asking_again_does_not_wait_for_the_pause(store, remote, settings):
    ask(store, remote)
    remote.statuses = [503]
    continue_imports(store, settings, 100)
    ask(store, remote)
    continue_imports(store, settings, 100)
    assert crawl_row(store).state == "open"


def test_a_wish_that_comes_during_an_import_is_not_lost(store, remote, settings):
    def ask_for_more() -> None:
        remote.meanwhile = lambda: None
        ask(store, remote)

    ask(store, remote, limit_warcs=6)
    remote.meanwhile = ask_for_more
    continue_imports(store, settings, 100)
    assert len({path for _, _, paths in stored(store) for path in paths}) == 20
    assert crawl_row(store).state == "open"


def test_a_server_takes_over_from_a_command_that_died(store, remote, settings, small_batches, clock):
    with pytest.raises(KeyboardInterrupt):
        import_crawl(DyingStore(store, 3, durable=True), listing_of(20), opening(crawl_url=remote.url))
    clock.now += HOLD - 1
    continue_imports(store, settings, 100)
    assert remote.requests == [] and crawl_row(store).state == "importing"
    clock.now += 1
    continue_imports(store, settings, 100)
    assert [paths for _, _, paths in stored(store)] == planned(20)
    assert crawl_row(store).state == "open"


def test_a_command_that_is_alive_is_left_alone(store, remote, settings, small_batches, clock):
    def move_on(_done: int, _total: int) -> None:
        clock.now += HOLD * 2 // 3
        continue_imports(store, settings, 100)

    import_crawl(store, listing_of(20), opening(crawl_url=remote.url), on_progress=move_on)
    assert remote.requests == []


@pytest.mark.parametrize(
    "terms", [{"crawl_url": "file:///crawl"}, {"crawl_url": "https://a.example", "from_list": True}]
)
def test_a_server_never_takes_over_what_it_cannot_fetch(store, settings, remote, small_batches, clock, terms):
    with pytest.raises(KeyboardInterrupt):
        import_crawl(DyingStore(store, 3, durable=True), listing_of(20), opening(**terms))
    clock.now += 10 * HOLD
    continue_imports(store, settings, 100)
    row = crawl_row(store)
    assert (row.state, row.failure) == ("importing", None)


def test_a_server_that_was_killed_is_followed_by_another(store, remote, settings, clock):
    ask(store, remote)
    for num_writes in (1, 2, 3):  # to take it up, to store a batch, to finish
        with pytest.raises(KeyboardInterrupt):
            continue_imports(DyingStore(store, num_writes, durable=False), settings, 100)
        clock.now += HOLD
    assert crawl_row(store).state == "importing"
    continue_imports(store, settings, 100)
    assert [paths for _, _, paths in stored(store)] == planned(20)
    assert crawl_row(store).state == "open"
