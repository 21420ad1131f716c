import itertools
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from athena.crawl import open_crawl
from athena.errors import Conflict
from athena.events import EventLog, read_events
from athena.protocol import Shard, Task
from athena.refine import parts
from athena.refine.assembly import Label
from athena.refine.flow import Example, Flow
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, Limits, load_dataset
from athena.refine.parts import SourceParts
from athena.refine.recipe import load_recipe
from athena.refine.run import CrawlFile, Work, refine_sources, refine_task, refine_warc
from athena.refine.sources.warc import WarcSource

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


def test_more_workers_and_other_chunks_change_no_byte(site_crawl, tmp_path, monkeypatch):
    refine(site_crawl, tmp_path / "one")
    monkeypatch.setattr(parts, "CHUNK_RECORDS", 2)
    refine(site_crawl, tmp_path / "four", workers=4)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "four")


def test_interrupted_at_any_rename_it_goes_on_and_ends_with_the_same_bytes(site_crawl, tmp_path, monkeypatch):
    """A file counts once it has its name, so these are all the states that a kill can leave behind."""
    monkeypatch.setattr(parts, "CHUNK_RECORDS", 4)
    task, recipe, out = task_of("a.warc.gz", "c.warc.gz"), "unfiltered-1", tmp_path / "out"
    refine(site_crawl, tmp_path / "clean", task, recipe)
    rename = Path.replace

    def interrupted_at(moment):
        renames = itertools.count()

        def replace(self, target):
            if next(renames) == moment:
                raise KeyboardInterrupt
            return rename(self, target)

        return replace

    for moment in itertools.count():
        monkeypatch.setattr(Path, "replace", interrupted_at(moment))
        try:
            refine(site_crawl, out, task, recipe)
            break
        except KeyboardInterrupt:
            monkeypatch.setattr(Path, "replace", rename)
            refine(site_crawl, out, task, recipe)
        assert bytes_of(out) == bytes_of(tmp_path / "clean")
        assert not out.with_name("out.parts").exists()
        shutil.rmtree(out)
    assert moment == 1 + (2 + 2 + 1) + (2 + 1) + 2  # job; chunks of a and its end; of c; data and manifest


_KILLER = """
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from athena.refine.steps.extraction import VisibleText
from athena.refine.recipe import Recipe

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Kill:
    name: ClassVar[str] = "kill"

    def apply(self, page):
        kill = FOLDER / f"kill-{page.record.url.replace('/', '-')}"
        if kill.exists():
            pid, part = kill.read_text().split()
            while not Path(part).exists():
                time.sleep(0.01)
            os.kill(int(pid), signal.SIGKILL)
        return page


RECIPE = Recipe("killer", "1", (VisibleText(), Kill()))
"""
_REFINE = """
import os
import sys
from pathlib import Path
from athena.crawl import open_crawl
from athena.events import EventLog
from athena.protocol import Task
from athena.refine import parts
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task

crawl, out, log, task, hotkey, recipe, kill, part = sys.argv[1:]
Path(kill).write_text(f"{os.getpid()} {part}")
parts.CHUNK_RECORDS = 2
refine_task(Task.model_validate_json(task), hotkey, load_recipe(recipe), open_crawl(crawl), Path(out),
            events=EventLog(Path(log)), workers=2)
"""


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(site_crawl, tmp_path, monkeypatch):
    """The pages that kill do so from a worker, each once a certain chunk is finished."""
    (tmp_path / "killer.py").write_text(_KILLER)
    out, log, recipe = tmp_path / "out", tmp_path / "events.jsonl", str(tmp_path / "killer.py")
    for url, chunk in (
        ("http://site1.example/page/4", "00000/000000"),
        ("http://site2.example/page/2", "00001/000001"),
    ):
        kill, part = tmp_path / f"kill-{url.replace('/', '-')}", tmp_path / "out.parts" / f"{chunk}.json"
        arguments = [site_crawl.as_uri(), out, log, task_of().canonical().decode(), HOTKEY, recipe, kill, part]
        killed = subprocess.run([sys.executable, "-c", _REFINE, *map(str, arguments)])
        assert killed.returncode == -signal.SIGKILL
        assert not (out / MANIFEST_FILE).exists()
        kill.unlink()
    monkeypatch.setattr(parts, "CHUNK_RECORDS", 2)
    refine(site_crawl, out, recipe=recipe, events=EventLog(log))
    assert [e["warcs"] for e in read_events(log) if e["event"] == "refine.resumed"] == [0, 1]
    assert sum(e["event"] == "refine.warc.done" for e in read_events(log)) == 3
    refine(site_crawl, tmp_path / "clean", recipe=recipe)
    assert bytes_of(out) == bytes_of(tmp_path / "clean")


def test_finished_chunks_are_not_made_again(site_crawl, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "CHUNK_RECORDS", 2)
    store = SourceParts.store
    stored = []

    def failing(self, index, chunk):
        if len(stored) == 3:
            raise Conflict("enough")
        stored.append((self.folder.name, index))
        store(self, index, chunk)

    monkeypatch.setattr(SourceParts, "store", failing)
    with pytest.raises(Conflict):
        refine(site_crawl, tmp_path / "out", recipe="unfiltered-1")
    monkeypatch.setattr(SourceParts, "store", lambda *a: (stored.append((a[0].folder.name, a[1])), store(*a)))
    refine(site_crawl, tmp_path / "out", recipe="unfiltered-1")
    assert stored == sorted(set(stored)) == [(f"{s:05}", c) for s, n in enumerate((3, 3, 2)) for c in range(n)]


def test_pages_that_crash_are_counted_shown_and_tell_the_validator_where_they_are(site_crawl, tmp_path):
    (tmp_path / "crash.py").write_text(_KILLER.replace("int(pid)", "os.getpid()"))
    (tmp_path / "kill-http:--site1.example-page-2").write_text(f"0 {tmp_path}")
    recipe, crawl = load_recipe(str(tmp_path / "crash.py")), open_crawl(site_crawl.as_uri())
    flows = []
    manifest = refine_sources(
        Work(recipe, [WarcSource(CrawlFile(crawl, name)) for name in NAMES]), Label(task_of().id, HOTKEY, "1"),
        tmp_path / "out", events=EventLog(None), finished=lambda manifest, flow: flows.append(flow),
    )  # fmt: skip
    assert manifest.rejected == {"none.crashed": 1} and manifest.rows == 12
    assert flows == [Flow({"none.crashed": 1}, {"none.crashed": (Example("http://site1.example/page/2", ""),)})]
    load_dataset(tmp_path / "out", limits=Limits())
    one = refine_warc("a.warc.gz", recipe, crawl)
    assert one.table.num_rows == 4 and one.rejected == {"none.crashed": 1}
    assert len(one.undecided) == 1 and one.undecided[0] not in one.table["warc_offset"].to_pylist()
