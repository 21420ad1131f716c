"""Full-size runs of the demo: the default crawl, and real WARC files, unusable ones among them."""

from pathlib import Path

import pytest

pytestmark = [pytest.mark.full, pytest.mark.timeout(1500)]
REAL_WARCS = Path(__file__).parents[3] / "shared" / "data" / "warc"


def test_the_demo_as_people_run_it(demo):
    run = demo()
    assert run.finish(900) == 0, run.output()
    summary = run.summary()
    assert summary["miners"]["miner-lazy"]["records"] >= 500
    assert summary["order"][-1] == ["miner-lazy"]
    weights = summary["mean_weights"]
    assert weights["miner-lazy"] < min(weights["miner-canon"], weights["miner-strict"])
    assert len(summary["leases"]) == 6 and {lease["state"] for lease in summary["leases"]} == {"submitted"}


def test_the_demo_reads_a_crawl_over_http_and_ends_with_a_release(demo, over_http, check_release):
    run = demo(*over_http)
    assert run.finish() == 0, run.output()
    summary = run.summary()
    weights = summary["mean_weights"]
    assert weights["miner-lazy"] == min(weights.values()) < min(weights["miner-canon"], weights["miner-strict"])
    assert "miner-lazy" in summary["order"][-1] and "miner-canon" not in summary["order"][-1]
    assert sum(summary["miners"]["miner-strict"]["dropped"].values()) > 0
    check_release(run.out / "release")


@pytest.mark.skipif(not REAL_WARCS.exists(), reason="real web pages are not on this machine")
def test_real_warc_files(demo):
    """Pages of Common Crawl, a file without HTML, one that is a bomb, and an ARC file, which is none."""
    names = ("resiliparse-warcfile.warc", "aut-docs.warc", "cdxwriter-giant_html.warc", "aut-example.arc")
    files = [REAL_WARCS / f"{name}.gz" for name in names]
    run = demo(*(argument for path in files for argument in ("--warc", str(path))))
    assert run.finish(1400) == 0, run.output()
    summary = run.summary()
    usable = [path for path in files if ".arc" not in path.name]
    assert len(summary["leases"]) == 3 * len(usable)
    assert {lease["state"] for lease in summary["leases"]} == {"submitted"}
    assert set(summary["scores"]["miner-canon"]["outcomes"]) == {"pass"}
    assert summary["mean_weights"]["miner-lazy"] == min(summary["mean_weights"].values())
    assert summary["release"]["training_tokens"] > 0
