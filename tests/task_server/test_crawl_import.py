"""From a listing to tasks: what may share a shard, and an import that can be repeated and resumed."""

from __future__ import annotations

import gzip
import sys
from datetime import UTC, datetime
from itertools import islice, pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given
from sqlmodel import select

from athena.errors import BadInput
from athena.protocol import Task
from task_server import crawl as crawl_module
from task_server.__main__ import main
from task_server.crawl import Opening, import_crawl, plan_shards
from task_server.database import Database
from task_server.tables import ShardRow, TaskRow

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def listing_of(num_warcs: int) -> list[str]:
    return [f"crawl-data/CC-MAIN-2026-43/segments/{i % 7}/warc/{i:05d}.warc.gz" for i in range(num_warcs)]


def opening(**fields) -> Opening:
    terms = {"crawl": "CC-MAIN-2026-43", "crawl_url": "file:///crawl", "warcs_per_shard": 3, "rule_version": "1"}
    return Opening(**terms | {"replication": 1, "opened_block": 10} | fields)


def stored(database: Database) -> list[tuple[int, str, list[str]]]:
    with database.read() as session:
        rows = session.exec(
            select(TaskRow, ShardRow).join(ShardRow, ShardRow.id == TaskRow.shard_id).order_by(TaskRow.position)
        ).all()
    return [(task.position, task.id, shard.warc_paths.split("\n")) for task, shard in rows]


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield database
    database.close()


@given(num_warcs=st.integers(0, 200), per_shard=st.integers(1, 32), limit=st.none() | st.integers(1, 220))
def test_every_file_lands_in_one_shard_and_never_beside_its_neighbour(num_warcs, per_shard, limit):
    listing = listing_of(num_warcs)
    place = {path: i for i, path in enumerate(listing)}
    shards = list(plan_shards("CC-MAIN-2026-43", listing, per_shard, limit=limit))
    assert all(1 <= len(shard.warc_paths) <= per_shard for shard in shards)
    assert len({path for shard in shards for path in shard.warc_paths}) == min(num_warcs, limit or num_warcs)
    assert sum(len(shard.warc_paths) for shard in shards) == min(num_warcs, limit or num_warcs)
    assert sum(len(shard.warc_paths) < per_shard for shard in shards) <= 2
    for shard in shards:
        places = sorted(place[path] for path in shard.warc_paths)
        assert all(later - earlier > 1 for earlier, later in pairwise(places))


@given(num_warcs=st.integers(1, 100), per_shard=st.integers(1, 8), done=st.integers(0, 100))
def test_a_plan_goes_on_where_it_stopped(num_warcs, per_shard, done):
    listing = listing_of(num_warcs)
    whole = list(plan_shards("CC-MAIN-2026-43", listing, per_shard))
    known = {path for shard in islice(whole, done) for path in shard.warc_paths}
    assert list(plan_shards("CC-MAIN-2026-43", listing, per_shard, known=known)) == whole[done:]


def test_an_import_is_idempotent_and_grows(database):
    first = import_crawl(database, listing_of(20), opening(limit_warcs=6), NOW)
    before = stored(database)
    assert (first.tasks, first.known_warcs) == (2, 0)
    assert import_crawl(database, listing_of(20), opening(limit_warcs=6), NOW).tasks == 0
    grown = import_crawl(database, listing_of(20), opening(opened_block=12), NOW)
    assert grown.known_warcs == 6
    after = stored(database)
    assert after[: len(before)] == before
    assert [position for position, _, _ in after] == list(range(len(after)))
    assert sorted(path for _, _, paths in after for path in paths) == sorted(listing_of(20))


def test_ids_derive_from_content(database):
    import_crawl(database, listing_of(9), opening(), NOW)
    with database.read() as session:
        for task, shard in session.exec(select(TaskRow, ShardRow).join(ShardRow, ShardRow.id == TaskRow.shard_id)):
            noun = Task(shard=shard.noun(), rule_version="1", opened_block=10)
            assert (task.id, shard.id) == (noun.id, noun.shard.id)


def test_a_killed_import_goes_on(database, monkeypatch):
    monkeypatch.setattr(crawl_module, "BATCH_SHARDS", 2)

    class Killed(BaseException):
        pass

    def die(stored: int, total: int) -> None:
        assert total == 10
        if stored == 4:
            raise Killed

    with pytest.raises(Killed):
        import_crawl(database, listing_of(30), opening(), NOW, die)
    assert len(stored(database)) == 4
    assert import_crawl(database, listing_of(30), opening(), NOW).tasks == 6
    whole = [list(shard.warc_paths) for shard in plan_shards("CC-MAIN-2026-43", listing_of(30), 3)]
    assert [paths for _, _, paths in stored(database)] == whole


def test_tasks_never_open_before_those_that_are_open(database):
    import_crawl(database, listing_of(6), opening(limit_warcs=3, opened_block=10), NOW)
    with pytest.raises(BadInput, match="lies before 10"):
        import_crawl(database, listing_of(6), opening(opened_block=9), NOW)


def test_a_large_crawl_imports_in_seconds(database):
    done = import_crawl(database, listing_of(20_000), opening(warcs_per_shard=4), NOW)
    assert done.tasks == 5000


def test_the_command_imports_a_folder_and_repeats_itself(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "crawl" / "crawl-data" / "CC-MAIN-2026-43"
    folder.mkdir(parents=True)
    (folder / "warc.paths.gz").write_bytes(gzip.compress("\n".join(listing_of(12)).encode()))
    command = ["import", "--crawl", "CC-MAIN-2026-43", "--warcs-per-shard", "3", "--opened-block", "7"]
    monkeypatch.setattr(sys, "argv", ["task_server", *command, "--crawl-url", (tmp_path / "crawl").as_uri()])
    monkeypatch.setenv("ATHENA_SERVER_STATE", str(tmp_path))
    for expected in ("4 tasks opened, 0 WARC files", "0 tasks opened, 12 WARC files"):
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0
        assert expected in capsys.readouterr().out
