"""The table of runs: who may start what, on which devices, and what a kill leaves behind."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from athena.errors import Conflict, NotFound
from athena.train.runs_record import RunSpec, is_alive
from athena.train.runs_table import MAX_DEATHS, RUNS_FILE, RunTable

NOW = 1_000_000.0


@pytest.fixture
def table(tmp_path):
    with RunTable(tmp_path / RUNS_FILE) as table:
        yield table


@pytest.fixture
def add(table, tmp_path):
    def make(name, **fields):
        spec = RunSpec(name=name, folder=str(tmp_path / name), **fields)
        table.add(spec, now=NOW)
        return spec

    return make


def states(table):
    return {run.name: run.state for run in table.runs()}


def test_a_run_is_queued_once_and_its_name_and_folder_are_its_own(table, add, tmp_path):
    spec = add("a", config={"preset": "tiny"})
    assert not table.add(spec, now=NOW)
    with pytest.raises(Conflict, match="name"):
        table.add(spec.model_copy(update={"folder": str(tmp_path / "b")}), now=NOW)
    with pytest.raises(Conflict, match="folder"):
        table.add(spec.model_copy(update={"name": "b"}), now=NOW)
    assert states(table) == {"a": "queued"}
    with pytest.raises(NotFound, match="there are: a"):
        table.run("c")


def test_first_come_first_served_as_devices_are_free(table, add):
    add("small")
    add("large", devices=2)
    add("last")
    first = table.claim(("cuda:0", "cuda:1"), now=NOW)
    assert first.run.name == "small" and first.run.held == ("cuda:0",)
    assert table.claim(("cuda:0", "cuda:1"), now=NOW) is None, "the large one is not passed by the last"
    table.finish("small", now=NOW + 1, step=7)
    os.close(first.lock)
    second = table.claim(("cuda:0", "cuda:1"), now=NOW + 1)
    assert second.run.name == "large" and second.run.held == ("cuda:0", "cuda:1")
    assert table.claim(("cuda:0", "cuda:1"), now=NOW + 1) is None
    os.close(second.lock)


def test_one_that_no_machine_of_this_size_can_run_keeps_nobody_waiting(table, add):
    add("huge", devices=8)
    add("small")
    claim = table.claim(("cpu:0",), now=NOW)
    assert claim.run.name == "small"
    os.close(claim.lock)


def test_many_schedulers_at_once_start_each_run_once(add, tmp_path):
    for i in range(12):
        add(f"run-{i}")
    devices = tuple(f"cpu:{i}" for i in range(9))

    def schedule(_):
        with RunTable(tmp_path / RUNS_FILE) as own:
            claims = []
            while (claim := own.claim(devices, now=NOW)) is not None:
                claims.append(claim)
            return claims

    with ThreadPoolExecutor(4) as pool:
        claims = [claim for found in pool.map(schedule, range(4)) for claim in found]
    assert len({claim.run.name for claim in claims}) == len(claims) == 9
    assert {device for claim in claims for device in claim.run.held} == set(devices)
    for claim in claims:
        os.close(claim.lock)


def test_a_dead_process_is_told_from_a_living_one_by_its_lock(table, add, tmp_path):
    add("a")
    claim = table.claim(("cpu:0",), now=NOW)
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = subprocess.Popen(sleeper, pass_fds=(claim.lock,))
    os.close(claim.lock)
    assert is_alive(tmp_path / "a") and table.orphans() == []
    process.kill()
    process.wait()
    assert [run.name for run in table.orphans()] == ["a"]
    table.put_back("a", now=NOW, step=3, reason="killed")
    assert states(table) == {"a": "queued"} and table.run("a").held == ()


def test_a_run_that_is_queued_but_still_dying_is_not_started(table, add):
    add("a")
    claim = table.claim(("cpu:0",), now=NOW)
    table.put_back("a", now=NOW, step=0)
    assert table.claim(("cpu:0",), now=NOW + 1) is None
    os.close(claim.lock)
    again = table.claim(("cpu:0",), now=NOW + 1)
    assert again.run.name == "a"
    os.close(again.lock)


def test_deaths_without_progress_wait_longer_and_then_fail(table, add):
    add("a")
    now, step = NOW, 0
    pauses = []
    for death in range(1, MAX_DEATHS + 3):
        claim = table.claim(("cpu:0",), now=now)
        os.close(claim.lock)
        step += 10 if death == 3 else 0
        table.put_back("a", now=now, step=step, reason="killed by signal 9", give_up=True)
        run = table.run("a")
        if run.state == "failed":
            break
        pauses.append(run.due_at - now)
        assert table.claim(("cpu:0",), now=now) is None
        now = run.due_at
    assert pauses == [1, 2, 1, 2, 4, 8]  # the third got further
    assert run.error == "killed by signal 9, 5 times in a row"
    assert table.resume("a", now=now).state == "queued"
    assert table.run("a").deaths == 0


def test_a_service_that_is_away_is_waited_for_without_end(table, add):
    add("a")
    now = NOW
    for _ in range(3 * MAX_DEATHS):
        os.close(table.claim(("cpu:0",), now=now).lock)
        table.put_back("a", now=now, step=0, reason="the hub does not answer")
        now = table.run("a").due_at
    assert table.run("a").state == "queued" and table.run("a").error == "the hub does not answer"
    assert table.claim(("cpu:0",), now=now - 1) is None, "the pauses have grown to minutes"


def test_cancel_and_resume(table, add):
    add("a")
    add("b")
    assert table.cancel("b", now=NOW).state == "cancelled"
    claim = table.claim(("cpu:0",), now=NOW)
    assert table.cancel("a", now=NOW).cancelling
    table.put_back("a", now=NOW, step=5, reason="killed by signal 15")
    os.close(claim.lock)
    assert states(table) == {"a": "cancelled", "b": "cancelled"}
    with pytest.raises(Conflict, match="cancelled already"):
        table.cancel("a", now=NOW)
    assert table.resume("a", now=NOW).state == "queued"
    with pytest.raises(Conflict, match="only failed"):
        table.resume("a", now=NOW)
    assert table.run("a").step == 5 and not table.run("a").cancelling


def test_a_trunk_grows_only_when_it_is_done(table, add):
    spec = add("trunk", kind="trunk", config={"steps": 100})
    longer = spec.model_copy(update={"config": {"steps": 200}})
    with pytest.raises(Conflict, match="queued"):
        table.extend(longer, now=NOW)
    claim = table.claim(("cpu:0",), now=NOW)
    table.finish("trunk", now=NOW, step=100)
    os.close(claim.lock)
    table.settle("trunk", "branched")
    table.extend(longer, now=NOW)
    run = table.run("trunk")
    assert (run.state, run.step, run.spec.config, run.result) == ("queued", 100, {"steps": 200}, None)


def test_what_ended_is_not_ended_again(table, add):
    add("a")
    claim = table.claim(("cpu:0",), now=NOW)
    os.close(claim.lock)
    table.finish("a", now=NOW, step=9)
    table.put_back("a", now=NOW + 1, step=1, reason="late news")
    table.fail("a", "late news", now=NOW + 1, step=1)
    assert (table.run("a").state, table.run("a").step, table.run("a").error) == ("done", 9, None)


def test_where_no_table_is_that_is_said(tmp_path):
    with pytest.raises(NotFound, match="no runs"):
        RunTable.existing(tmp_path)
