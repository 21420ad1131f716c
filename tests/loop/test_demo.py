"""The real demo on a small crawl that it reads over HTTP, as it would read Common Crawl."""

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from athena.crawl import open_crawl
from athena.localnet.ground import build_crawl
from athena.protocol import SignedRelease
from athena.refine.records import parse_record

pytestmark = pytest.mark.timeout(900)
CRAWL = "CC-MAIN-2026-43"


@pytest.fixture
def served_crawl(tmp_path, common_crawl):
    """A made-up crawl under a real crawl's name, behind a server that now and then says Slow Down."""
    root = tmp_path / "served"
    crawl = build_crawl(root, seed=5, pages=160, warcs=2)
    (root / "crawl-data" / CRAWL).mkdir()
    listing = "warc.paths.gz"
    (root / "crawl-data" / crawl.crawl_id / listing).rename(root / "crawl-data" / CRAWL / listing)
    return common_crawl(root, faults=["", "slow-down", "", "drop", "", "slow-down"])


def test_demo_reads_a_crawl_over_http_and_ends_with_a_release(demo, served_crawl):
    run = demo("--crawl", CRAWL, "--crawl-url", served_crawl.url, "--limit-warcs", "1")
    assert run.finish() == 0, run.output()
    summary = run.summary()

    weights = summary["mean_weights"]
    assert weights["miner-lazy"] == min(weights.values()) < min(weights["miner-canon"], weights["miner-strict"])
    assert "miner-lazy" in summary["order"][-1] and "miner-canon" not in summary["order"][-1]
    assert sum(summary["miners"]["miner-strict"]["dropped"].values()) > 0

    folder = run.out / "release"
    release = SignedRelease.model_validate_json((folder / "release.json").read_bytes()).release
    assert sum(release.bits_per_byte_after.values()) < sum(release.bits_per_byte_before.values())
    text = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=True).stdout
    assert json.loads(text)["new_tokens"] == 12

    lineage = pq.read_table(folder / "lineage.parquet").to_pylist()
    assert len(lineage) == sum(entry.documents for entry in release.lineage) > 0
    assert served_crawl.ranges > 0
    with closing(open_crawl(served_crawl.url)) as crawl:
        for entry in random.Random(1).sample(lineage, 5):
            raw = crawl.read_range(entry["warc_path"], entry["warc_offset"], entry["warc_length"])
            record = parse_record(raw, entry["warc_path"], entry["warc_offset"])
            assert record.record_id == entry["record_id"] and record.url == entry["url"]


LOAD = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer("The library", return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=12, min_new_tokens=12)
print(json.dumps({"new_tokens": out.shape[1] - inputs["input_ids"].shape[1]}))
"""


@pytest.mark.parametrize("event", ["devchain.ready", "miner.refining"])
def test_ctrl_c_leaves_no_process_behind(demo, processes_below, event):
    run = demo("--pages", "60")
    room = "chain" if event.startswith("devchain") else "miner-canon"
    run.wait_until(lambda: run.events(room, event), event)
    time.sleep(random.Random(event).uniform(0, 0.5))
    run.process.send_signal(signal.SIGINT)
    assert run.finish(40) == 130
    assert processes_below(run.out) == []


def test_running_again_works_and_foreign_folders_are_left_alone(demo, tmp_path):
    foreign = tmp_path / "demo-0"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    run = demo("--pages", "60")
    assert run.finish(30) == 2
    assert (foreign / "thesis.txt").read_text() == "precious"
    assert "--out" in run.output()


def test_files_without_html_end_with_a_clear_message(demo, tmp_path):
    nothing = tmp_path / "not-a.warc.gz"
    nothing.write_bytes(b"\x1f\x8bnonsense")
    run = demo("--warc", str(nothing))
    assert run.finish(60) == 2
    assert "WARC" in run.output()
