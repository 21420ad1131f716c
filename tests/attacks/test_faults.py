"""Faults of services and of this machine end in outcome none: they never fail a miner."""

import dataclasses
import os
import signal

import pytest

from athena.crawl import CrawlBlocked
from athena.errors import NotFound, Unavailable
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.weights import judged, pay

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")


class Broken:
    """A service that raises `error` in the named verbs, and works in the others."""

    def __init__(self, inner, error, *verbs):
        self._inner, self._error, self._verbs = inner, error, verbs

    def __getattr__(self, name):
        def fail(*args, **kwargs):
            raise self._error

        return fail if name in self._verbs else getattr(self._inner, name)


@pytest.fixture(scope="module")
def case(world):
    return world.publish([{**row, "language_score": 0.9} for row in world.rows], hotkey="bob")


@pytest.mark.parametrize("error", [Unavailable("503 Slow Down"), CrawlBlocked("403"), NotFound("404"), OSError("disk")])
def test_crawl_out_of_reach(world, case, error):
    sheet = world.judge(case, crawl=Broken(world.bench.crawl, error, "read_range", "open"))
    assert sheet.outcome == "none" and sheet.gates[-1].gate == "provenance"


def test_crawl_breaks_off_at_refinement(world, case, tmp_path):
    crawl = Broken(world.bench.crawl, Unavailable("reset"), "open")
    sheet = world.judge(case, crawl=crawl, workdir=tmp_path)
    assert sheet.outcome == "none" and sheet.units == 0.0


@pytest.mark.parametrize("verb", ["sizes", "fetch"])
def test_hub_out_of_reach(world, case, verb, tmp_path):
    sheet = world.judge(case, hub=Broken(world.bench.hub, Unavailable("500"), verb), workdir=tmp_path)
    assert sheet.outcome == "none" and sheet.gates[-1].gate == "form"


def test_reader_out_of_memory(world, case, tmp_path):
    gates = dataclasses.replace(world.bench.rules.gates, reader_memory_bytes=300 << 20)
    sheet = world.judge(case, rules=dataclasses.replace(world.bench.rules, gates=gates), workdir=tmp_path)
    assert sheet.outcome == "none" and sheet.gates[-1].gate == "form"


def test_proxy_worker_killed(world, case, tmp_path):
    class Doomed(ProxyWorkers):
        def _worker(self):
            process = super()._worker()
            os.kill(process.pid, signal.SIGKILL)
            return process

    with Doomed() as workers:
        sheet = world.judge(case, workers=workers, workdir=tmp_path)
    assert sheet.outcome == "none" and sheet.gates[-1].gate == "proxy"


def test_a_verdict_still_owed_costs_no_pay(world, case):
    rules = world.bench.rules
    good = judged(world.judge(case), rules)
    owed = dataclasses.replace(good, task_id="ff" * 16, outcome="none", units=0.0, effect=None)
    one, two = (pay({"a": entries, "b": [good]}, rules, now_block=500).weights for entries in ([good], [good, owed]))
    assert two["a"] >= one["a"]
