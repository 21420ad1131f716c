"""Workers that crash, hang, eat memory or are killed cost the record that is at fault, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from athena.errors import Conflict, Misconfigured
from athena.optout import LeftOut
from athena.refine.fork_server import SERVER
from athena.refine.pool import Pool
from athena.refine.recipe import Document, Rejected, load_recipe
from athena.refine.records import Record
from athena.refine.worker import PLAIN_PAGE, FailSafe

RECIPE = """
import ctypes, os, signal, time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from athena.refine.recipe import Page, Recipe, Rejected

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Trouble:
    name: ClassVar[str] = "trouble"

    def apply(self, page):
        kind = page.record.url.rpartition("/")[2]
        with (FOLDER / "workers").open("a") as log:
            print(os.getpid(), file=log)
        if kind == "crash":
            ctypes.string_at(0)
        if kind == "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            time.sleep(60)
        if kind == "memory":
            bytearray(700 << 20)
        if kind == "error":
            raise KeyError("a step with a fault")
        if kind == "once" and not (FOLDER / "killed").exists():
            (FOLDER / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "slow":
            time.sleep(0.3)
        if kind == "drop":
            return Rejected(self.name)
        return replace(page, text=page.html)


RECIPE = Recipe("trouble", "1", (Trouble(),))
"""
LIMITS = FailSafe(seconds=2.0, memory_bytes=512 << 20)


def record_of(kind, index=0):
    return Record("w", index, 1, "id", f"http://a.example/{index}/{kind}", "", "", "utf-8", b"text %d" % index)


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "trouble.py").write_text(RECIPE)
    return load_recipe(str(tmp_path / "trouble.py"))


def run(recipe, kinds, workers=2, **options):
    options.setdefault("fail_safe", LIMITS)
    with Pool(recipe, workers=workers, **options) as pool:
        outcomes = list(pool.outcomes((record_of(kind, i) for i, kind in enumerate(kinds)), lambda: None))
    assert [outcome.offset for outcome in outcomes] == list(range(len(kinds)))
    return [o.result.reason if isinstance(o.result, Rejected) else o.result.row["text"] for o in outcomes]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_records(recipe, workers):
    kinds = ["slow", "fine", "drop", "fine"] + ["fine"] * 60
    expected = ["trouble" if kind == "drop" else f"text {i}" for i, kind in enumerate(kinds)]
    assert run(recipe, kinds, workers) == expected


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("crash", "none.crashed"), ("error", "none.crashed"), ("memory", "none.memory"), ("hang", "none.timeout"),
        ("once", "text 20"),
    ],
)  # fmt: skip
def test_a_record_at_fault_is_marked_and_all_others_are_kept(recipe, kind, reason):
    """One that only died with its worker, killed from outside, is tried again and kept."""
    limits = FailSafe(seconds=0.3 if kind == "hang" else 20.0, memory_bytes=LIMITS.memory_bytes)
    expected = [f"text {i}" for i in range(40)]
    expected[20] = reason
    assert run(recipe, ["fine"] * 20 + [kind] + ["fine"] * 19, fail_safe=limits) == expected


def test_the_report_shows_what_a_step_raised(recipe):
    with Pool(recipe) as pool:
        [outcome] = pool.outcomes([record_of("error")], lambda: None)
    assert outcome.result == Rejected("none.crashed", excerpt="KeyError: 'a step with a fault'")


def test_workers_killed_anywhere_change_nothing(recipe, tmp_path):
    kinds = ["fine", "slow", "fine", "drop"] * 6
    undisturbed = run(recipe, kinds)
    killed = set()
    with Pool(recipe, workers=2) as pool:
        stream = pool.outcomes((record_of(kind, i) for i, kind in enumerate(kinds)), lambda: None)
        results = []
        for outcome in stream:
            results.append(outcome.result)
            if outcome.offset in (3, 11, 19):
                pid = int((tmp_path / "workers").read_text().split()[-1])
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        assert len(killed) == 3 and pool.replaced >= 2  # the last one may have been done already
    assert [r.reason if isinstance(r, Rejected) else r.row["text"] for r in results] == undisturbed


def test_the_server_of_workers_may_be_killed_too(recipe):
    with Pool(recipe, workers=1) as pool:
        stream = pool.outcomes((record_of("once" if i == 20 else "fine", i) for i in range(40)), lambda: None)
        next(stream)
        server = SERVER._process
        os.kill(server.pid, signal.SIGKILL)
        assert [outcome.result.row["text"] for outcome in stream] == [f"text {i}" for i in range(1, 40)]
        assert SERVER._process is not server


def test_two_pools_of_two_threads_share_the_server(recipe, tmp_path):
    (tmp_path / "other.py").write_text(RECIPE.replace("text=page.html", "text=page.html.upper()"))
    other = load_recipe(str(tmp_path / "other.py"))
    with ThreadPoolExecutor(2) as threads:
        lower = threads.submit(run, recipe, ["fine", "slow", "crash"] * 5)
        upper = threads.submit(run, other, ["fine", "slow", "crash"] * 5)
    expected = ["none.crashed" if i % 3 == 2 else f"text {i}" for i in range(15)]
    assert lower.result() == expected
    assert upper.result() == ["none.crashed" if i % 3 == 2 else f"TEXT {i}" for i in range(15)]


def test_one_worker_after_another_is_forked_within_a_moment_and_has_one_thread(recipe):
    with Pool(recipe, workers=3) as pool:
        stream = pool.outcomes((record_of("slow", i) for i in range(6)), lambda: None)
        next(stream)
        pids = [worker.pid for worker in pool._workers]
        assert len(pids) == 3
        if Path("/proc").is_dir():
            assert [len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids] == [1, 1, 1]
    assert not any(_alive(pid) for pid in pids)


def test_domains_that_are_left_out_are_not_looked_at(recipe):
    assert run(recipe, ["crash"], left_out=LeftOut(frozenset({"a.example"}))) == ["opted-out"]


def test_a_beat_that_raises_ends_the_work_while_all_workers_are_busy(recipe):
    beats = []

    def beat():
        beats.append(None)
        if len(beats) > 2:
            raise Conflict("the lease is gone")

    with Pool(recipe) as pool, pytest.raises(Conflict):
        list(pool.outcomes([record_of("hang")], beat))


def test_a_recipe_that_no_page_can_pass_is_its_authors_fault(tmp_path):
    text = RECIPE.replace('if kind == "error"', "if True")
    (tmp_path / "broken.py").write_text(text)
    recipe = load_recipe(str(tmp_path / "broken.py"))
    with Pool(recipe) as pool, pytest.raises(Misconfigured, match="a step with a fault"):
        list(pool.outcomes([record_of("fine")], lambda: None))


def test_a_recipe_file_that_changes_is_not_mixed_with_what_it_was(recipe, tmp_path):
    (tmp_path / "trouble.py").write_text(RECIPE + "\n# changed\n")
    with Pool(recipe) as pool, pytest.raises(Conflict, match="changed"):
        list(pool.outcomes([record_of("fine")], lambda: None))


def test_the_page_that_loads_the_models_goes_through_all_steps():
    assert isinstance(load_recipe("fineweb-1").process(PLAIN_PAGE), Document)


def test_the_canonical_recipe_gives_the_same_rows_in_a_worker(html_page, prose):
    recipe = load_recipe("fineweb-1")
    page = Record("w", 0, 1, "id", "http://a.example/", "", "", "utf-8", html_page(prose(3)))
    with Pool(recipe) as pool:
        [outcome] = pool.outcomes([page], lambda: None)
    expected = recipe.process(page)
    assert isinstance(expected, Document) and outcome.result.row == expected.row
    assert (outcome.result.minhash == expected.minhash).all()


_PARENT = """
import sys
from athena.refine.pool import Pool
from athena.refine.recipe import load_recipe
from athena.refine.records import Record

with Pool(load_recipe(sys.argv[1]), workers=2) as pool:
    records = (Record("w", i, 1, "id", f"http://a.example/{i}/hang", "", "", "utf-8", b"x") for i in range(2))
    for _ in pool.outcomes(records, lambda: print(*(w.pid for w in pool._workers), flush=True)):
        pass
"""


def test_when_the_parent_is_killed_nobody_is_left(recipe, tmp_path):
    """Workers that hang as well: their limit is the kernel's alarm, which needs no parent."""
    script = _PARENT.replace("workers=2", "workers=2, fail_safe=FailSafe(1.0)").replace(
        "import Pool", "import Pool, FailSafe"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "trouble.py")], stdout=subprocess.PIPE)
    pids = []
    while len(pids) < 2:
        line = parent.stdout.readline()
        assert line, "the parent ended"
        pids = [int(word) for word in line.split()]
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # one that nobody has waited for yet is dead all the same
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
