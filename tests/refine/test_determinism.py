"""The same pages give the same bytes: again, in another order of files, under load, and from their byte ranges."""

import random
import subprocess
import sys

import pytest

from athena.crawl import open_crawl
from athena.events import EventLog
from athena.protocol import Shard, Task
from athena.refine.manifest import DATA_FILE, Limits, load_dataset
from athena.refine.recipe import Document, load_recipe
from athena.refine.records import parse_record
from athena.refine.run import refine_task

HOTKEY = "5" + "G" * 47
RECIPES = ("fineweb-1", "resiliparse-1", "union-1")
_BUSY = "while True: sum(range(10_000))"


def refine(root, out, names, recipe="fineweb-1"):
    task = Task(shard=Shard(crawl="LOCAL-test", warc_paths=tuple(names)), rule_version="1", opened_block=7)
    refine_task(task, HOTKEY, load_recipe(recipe), open_crawl(root.as_uri()), out, events=EventLog(None))
    return (out / DATA_FILE).read_bytes()


def rows_of(out):
    return load_dataset(out, limits=Limits()).table.to_pylist()


@pytest.fixture
def crawl(tmp_path, warc, english_site):
    """Three files that share no page."""
    root = tmp_path / "crawl"
    root.mkdir()
    names = [f"{letter}.warc.gz" for letter in "abc"]
    for site, name in enumerate(names):
        (root / name).write_bytes(warc(english_site(50 + site, 3)))
    return root, names


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_shard_gives_the_same_bytes_twice(crawl, tmp_path, recipe):
    root, names = crawl
    once = refine(root, tmp_path / "once", names, recipe)
    assert len(rows_of(tmp_path / "once")) == 9
    assert refine(root, tmp_path / "again", names, recipe) == once


def test_a_busy_machine_gives_the_same_bytes(crawl, tmp_path):
    root, names = crawl
    once = refine(root, tmp_path / "once", names, "union-1")
    load = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(3)]
    try:
        assert refine(root, tmp_path / "loaded", names, "union-1") == once
    finally:
        for process in load:
            process.kill()
            process.wait()


def test_the_order_of_files_decides_the_order_of_rows_and_nothing_else(crawl, tmp_path):
    root, names = crawl
    turned = [names[1], names[2], names[0]]
    refine(root, tmp_path / "forward", names)
    refine(root, tmp_path / "turned", turned)
    forward, other = rows_of(tmp_path / "forward"), rows_of(tmp_path / "turned")
    assert [row["warc_path"] for row in other] == [name for name in turned for _ in range(3)]
    assert sorted(other, key=lambda row: (row["warc_path"], row["warc_offset"])) == forward
    for name in names:
        refine(root, tmp_path / name, [name])
        assert rows_of(tmp_path / name) == [row for row in forward if row["warc_path"] == name]


def _rederived(folder, root, recipe, count):
    """How many of `count` random rows come out equal from their byte ranges, in a random order."""
    rows = load_dataset(folder, limits=Limits()).table.to_pylist()
    assert len(rows) >= count
    equal = 0
    crawl = open_crawl(root.as_uri())
    for row in random.Random(4).sample(rows, count):
        raw = crawl.read_range(row["warc_path"], row["warc_offset"], row["warc_length"])
        again = recipe.process(parse_record(raw, row["warc_path"], row["warc_offset"]))
        assert isinstance(again, Document)
        equal += {**again.row, "minhash": again.minhash.tolist()} == row
    return equal


def test_forty_real_rows_come_out_equal_from_their_byte_ranges(test_data, tmp_path):
    names = [
        "resiliparse-warcfile.warc.gz",
        "dolma-sample-0000.warc.gz",
        "dolma-sample-0001.warc.gz",
        "ukwa-govuk1.warc.gz",
    ]
    refine(test_data / "warc", tmp_path / "out", names)
    assert _rederived(tmp_path / "out", test_data / "warc", load_recipe("fineweb-1"), 40) == 40


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("recipe", RECIPES)
def test_two_hundred_real_rows_come_out_equal_from_their_byte_ranges(test_data, tmp_path, recipe):
    root = test_data / "extraction"
    names = [f"{name}/pages.warc.gz" for name in ("scrapinghub", "readability", "trafilatura")]
    once = refine(root, tmp_path / "out", names, recipe)
    assert _rederived(tmp_path / "out", root, load_recipe(recipe), 200) == 200
    assert refine(root, tmp_path / "again", names, recipe) == once
