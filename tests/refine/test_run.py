import os
import signal
import subprocess
import sys
import time

import pytest

from athena.crawl import open_crawl
from athena.errors import Conflict
from athena.events import EventLog, read_events
from athena.protocol import Shard, Task
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, Limits, load_dataset
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task, refine_warc

HOTKEY = "5" + "G" * 47
NAMES = ("a.warc.gz", "b.warc.gz", "c.warc.gz")


def task_of(*paths):
    return Task(shard=Shard(crawl="LOCAL-test", warc_paths=paths or NAMES), rule_version="1", opened_block=7)


def refine(crawl, out, task=None, recipe="fineweb-1", **options):
    options.setdefault("events", EventLog(None))
    return refine_task(
        task or task_of(), HOTKEY, load_recipe(recipe), open_crawl(crawl.as_uri()), out, **options
    )  # fmt: skip


def bytes_of(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_same_shard_gives_the_same_bytes_and_another_recipe_others(site_crawl, tmp_path):
    manifest = refine(site_crawl, tmp_path / "one")
    refine(site_crawl, tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert set(bytes_of(tmp_path / "one")) == {DATA_FILE, MANIFEST_FILE}
    assert load_dataset(tmp_path / "one", limits=Limits()).manifest == manifest
    others = [refine(site_crawl, tmp_path / name, recipe=name) for name in ("strict-1", "unfiltered-1")]
    assert len({m.root for m in [manifest, *others]}) == 3
    assert others[1].rows == others[1].records


def test_of_near_duplicates_the_first_by_path_and_offset_stays(site_crawl, tmp_path):
    manifest = refine(site_crawl, tmp_path / "one")
    urls = load_dataset(tmp_path / "one", limits=Limits()).table["url"].to_pylist()
    assert manifest.rejected["duplicate"] == 1
    assert "http://site1.example/page/0" in urls
    assert "http://site2.example/twin" not in urls
    refine(site_crawl, tmp_path / "turned", task_of(*reversed(NAMES)))
    urls = load_dataset(tmp_path / "turned", limits=Limits()).table["url"].to_pylist()
    assert "http://site1.example/page/0" not in urls
    assert "http://site2.example/twin" in urls


def test_apart_from_duplicates_files_do_not_see_each_other(site_crawl, tmp_path):
    refine(site_crawl, tmp_path / "all")
    table = load_dataset(tmp_path / "all", limits=Limits()).table
    for name in NAMES:
        alone = refine_warc(name, load_recipe("fineweb-1"), open_crawl(site_crawl.as_uri()))
        expected = [r for r in alone.table.to_pylist() if r["url"] != "http://site2.example/twin"]
        assert [r for r in table.to_pylist() if r["warc_path"] == name] == expected
        assert alone.records == alone.table.num_rows + sum(alone.rejected.values())


def test_bad_files_cost_nothing_but_themselves(site_crawl, tmp_path, warc):
    (site_crawl / "bad.warc.gz").write_bytes(b"filedesc://old.arc 0.0.0.0 20080430 text/plain 77\n")
    (site_crawl / "empty.warc.gz").write_bytes(b"")
    (site_crawl / "pdf.warc.gz").write_bytes(warc([("http://a.example/", b"%PDF")], content_type="application/pdf"))
    (site_crawl / "torn.warc.gz").write_bytes((site_crawl / "a.warc.gz").read_bytes()[:-100])
    log = tmp_path / "events.jsonl"
    task = task_of("bad.warc.gz", "empty.warc.gz", "torn.warc.gz", "pdf.warc.gz")
    manifest = refine(site_crawl, tmp_path / "out", task, events=EventLog(log))
    assert (manifest.records, manifest.rows) == (7, 4)
    assert manifest.rejected == {"not-a-warc": 1, "not-html": 1, "truncated": 1}
    load_dataset(tmp_path / "out", limits=Limits())
    done = [e for e in read_events(log) if e["event"] == "refine.warc.done"]
    assert [(e["warc"], e["kept"]) for e in done] == [
        ("bad.warc.gz", 0), ("empty.warc.gz", 0), ("torn.warc.gz", 4), ("pdf.warc.gz", 0),
    ]  # fmt: skip


def test_a_shard_without_a_page_is_an_empty_dataset(site_crawl, tmp_path):
    (site_crawl / "empty.warc.gz").write_bytes(b"")
    assert refine(site_crawl, tmp_path / "out", task_of("empty.warc.gz")).rows == 0
    assert load_dataset(tmp_path / "out", limits=Limits()).table.num_rows == 0


def test_a_heartbeat_that_raises_ends_the_work_and_a_second_call_finishes_it(site_crawl, tmp_path):
    calls = []

    def lost(progress):
        calls.append(progress)
        if progress.get("warcs") == 2:
            raise Conflict("the lease is gone")

    with pytest.raises(Conflict):
        refine(site_crawl, tmp_path / "out", heartbeat=lost)
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()
    log = tmp_path / "events.jsonl"
    refine(site_crawl, tmp_path / "out", events=EventLog(log))
    assert next(iter(read_events(log))) | {"warcs": 2, "of": 3} == next(iter(read_events(log)))
    refine(site_crawl, tmp_path / "clean")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "clean")
    assert not (tmp_path / "out.parts").exists()


def test_parts_of_another_recipe_are_not_used(site_crawl, tmp_path):
    def lost(progress):
        if progress.get("warcs") == 1:
            raise Conflict("the lease is gone")

    with pytest.raises(Conflict):
        refine(site_crawl, tmp_path / "out", recipe="unfiltered-1", heartbeat=lost)
    refine(site_crawl, tmp_path / "out")
    refine(site_crawl, tmp_path / "clean")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "clean")


_WORKER = """
import sys
from pathlib import Path
from athena.crawl import open_crawl
from athena.events import EventLog
from athena.protocol import Task
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task

crawl, out, log, task, hotkey = sys.argv[1:]
refine_task(Task.model_validate_json(task), hotkey, load_recipe("fineweb-1"), open_crawl(crawl), Path(out),
            events=EventLog(Path(log)))
"""


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(site_crawl, tmp_path, warc, english_site):
    for index in range(6):
        (site_crawl / f"more{index}.warc.gz").write_bytes(warc(english_site(10 + index, 12)))
    task = task_of(*NAMES, *(f"more{i}.warc.gz" for i in range(6)))
    out, log = tmp_path / "out", tmp_path / "events.jsonl"
    arguments = [site_crawl.as_uri(), str(out), str(log), task.canonical().decode(), HOTKEY]
    for done_before_the_kill in (2, 4):
        worker = subprocess.Popen([sys.executable, "-c", _WORKER, *arguments])
        _wait(lambda n=done_before_the_kill: _finished(log) >= n, worker)
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
        assert not (out / MANIFEST_FILE).exists()
    before = _finished(log)
    refine(site_crawl, out, task, events=EventLog(log))
    assert sum(e["event"] == "refine.resumed" for e in read_events(log)) == 2
    assert _finished(log) - before <= 9 - before + 2  # a WARC is done again only if the kill met its event
    refine(site_crawl, tmp_path / "clean", task)
    assert bytes_of(out) == bytes_of(tmp_path / "clean")


def _finished(log):
    return sum(e["event"] == "refine.warc.done" for e in read_events(log))


def _wait(ready, worker):
    deadline = time.monotonic() + 90
    while not ready():
        assert worker.poll() is None, "the worker ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
