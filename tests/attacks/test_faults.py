"""Faults of services and of this machine end in outcome none: they never fail a miner."""

import dataclasses
from types import SimpleNamespace

import pytest

from athena.crawl import CrawlBlocked
from athena.durable import write_file
from athena.errors import NotFound, RateLimited, Unavailable
from athena.judge import work
from athena.judge.assess import dataset_folder
from athena.judge.evidence import Found
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.queue import CaseQueue
from athena.judge.rules import rules_of
from athena.judge.weights import judged, pay
from athena.refine.manifest import Limits, load_dataset

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


@pytest.mark.parametrize("error", [Unavailable("500"), RateLimited("429", retry_after_seconds=1.0), OSError("disk")])
@pytest.mark.parametrize("verb", ["sizes", "fetch"])
def test_hub_out_of_reach(world, case, verb, error, tmp_path):
    sheet = world.judge(case, hub=Broken(world.bench.hub, error, verb), workdir=tmp_path)
    assert sheet.outcome == "none" and sheet.gates[-1].gate == "form"


@pytest.fixture
def truncated(world, case):
    """The case's data on the hub, cut in half for the time of a test."""
    [entry] = load_dataset(dataset_folder(world.bench.workdir, case.commitment), limits=Limits()).manifest.files
    [stored] = (world.root / "hub" / "objects").rglob(entry.sha256)
    whole = stored.read_bytes()
    write_file(stored, whole[: len(whole) // 2])
    yield stored
    write_file(stored, whole)


def test_truncated_download(world, case, tmp_path, request):
    assert world.judge(case, workers=None).outcome == "pass"
    request.getfixturevalue("truncated")
    sheet = world.judge(case, workdir=tmp_path, workers=None)
    assert sheet.outcome == "none" and sheet.gates[-1].gate == "form"


class Held(SimpleNamespace):
    """Time that stands still until the test moves it."""

    def time(self):
        return self.now

    def monotonic(self):
        return self.now


def test_every_fault_ends_in_a_verdict(world, case, tmp_path, monkeypatch):
    """One fault after the other, hours apart: each is tried again, and the sheet in the end is the undisturbed one."""
    undisturbed = world.judge(case, workers=None, workdir=tmp_path / "undisturbed", rules=rules_of("demo-1"))
    faults = [
        {"hub": Broken(world.bench.hub, Unavailable("500"), "sizes")},
        {"hub": Broken(world.bench.hub, RateLimited("429", retry_after_seconds=1.0), "fetch")},
        {"crawl": Broken(world.bench.crawl, Unavailable("503"), "read_range")},
        {"crawl": Broken(world.bench.crawl, CrawlBlocked("403"), "open")},
        {},
    ]
    clock = Held(now=1000.0)
    monkeypatch.setattr(work, "time", clock)
    found = Found(**{name: getattr(case, name) for name in Found.model_fields})
    outcomes = []
    with CaseQueue(tmp_path / "queue.sqlite") as queue:
        payload = found.canonical().decode()
        queue.enqueue(
            found.key, hotkey=found.hotkey, task_id=found.task.id, commit_block=found.commit_block, payload=payload,
            due_at=clock.now,
        )  # fmt: skip
        for fault in faults:
            bench = dataclasses.replace(world.bench, workers=None, workdir=tmp_path / "work", **fault)
            judge = work.Judge(tmp_path / "queue.sqlite", bench, None, lambda message: "0" * 128)
            clock.now = queue.next_due_at()
            assert judge.judge_next(queue)
            [signed] = queue.sheets()
            outcomes.append(signed.sheet.outcome)
        assert queue.next_due_at() is None
    assert outcomes == ["none"] * 4 + ["pass"]
    assert signed.sheet == undisturbed.model_copy(update={"basis": signed.sheet.basis})


def test_reader_out_of_memory(world, case, tmp_path):
    gates = dataclasses.replace(world.bench.rules.gates, reader_memory_bytes=300 << 20)
    sheet = world.judge(case, rules=dataclasses.replace(world.bench.rules, gates=gates), workdir=tmp_path)
    assert sheet.outcome == "none" and sheet.gates[-1].gate == "form"


def test_proxy_worker_killed(world, case, tmp_path):
    class Doomed(ProxyWorkers):
        """Every process dies once the first arm is done."""

        def run(self, jobs, finished):
            def kill(arm):
                finished(arm)
                for worker in self._workers:
                    worker._process.kill()

            return super().run(jobs, kill)

    with Doomed() as workers:
        sheet = world.judge(case, workers=workers, workdir=tmp_path)
    assert sheet.outcome == "none" and sheet.gates[-1].gate == "proxy"


def test_a_verdict_still_owed_costs_no_pay(world, case):
    rules = world.bench.rules
    good = judged(world.judge(case), rules)
    owed = dataclasses.replace(good, task_id="ff" * 16, outcome="none", units=0.0, effect=None)
    one, two = (pay({"a": entries, "b": [good]}, rules, now_block=500).weights for entries in ([good], [good, owed]))
    assert two["a"] >= one["a"]
