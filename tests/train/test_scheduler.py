"""The scheduler over real processes: small scripts that write metrics as the loop does."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from athena.errors import BadInput
from athena.events import EventLog
from athena.train import scheduler as module
from athena.train.runs_record import RunSpec, is_alive
from athena.train.runs_table import RUNS_FILE, RunTable
from athena.train.scheduler import Scheduler, command_of, devices_here, parse_devices

# Goes on from its last step, says where it began, and pauses between steps.
RUN = """
import json, os, pathlib, sys, time
folder, steps, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
metrics = folder / "metrics.jsonl"
done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
with (folder / "starts").open("a") as starts:
    print(os.getpid(), done, os.environ["CUDA_VISIBLE_DEVICES"], file=starts)
with metrics.open("a") as out:
    for step in range(done + 1, steps + 1):
        line = dict(at=time.time(), step=step, loss=1 / step, lr=1e-3, gradient_norm=1.0, tokens=step, seconds=0.1)
        print(json.dumps(line), file=out, flush=True)
        time.sleep(pause)
print("all done")
"""


@pytest.fixture
def table(tmp_path):
    with RunTable(tmp_path / RUNS_FILE) as table:
        yield table


@pytest.fixture
def add(table, tmp_path):
    def make(name, steps=3, pause=0.0, code="", **fields):
        config = {"steps": steps, "pause": pause, "code": code}
        table.add(RunSpec(name=name, folder=str(tmp_path / name), config=config, **fields), now=time.time())
        return tmp_path / name

    return make


def command(run):
    config = run.spec.config
    code = RUN + config["code"]
    return [sys.executable, "-c", code, str(run.folder), str(config["steps"]), str(config["pause"])]


@pytest.fixture
def schedule(table, monkeypatch):
    """A scheduler that never waits between two deaths."""
    monkeypatch.setattr("athena.train.runs_table.FIRST_PAUSE_SECONDS", 0.0)

    def make(*devices, events=None):
        return Scheduler(table, devices or ("cpu:0",), events or EventLog(None), command=command)

    return make


def until(scheduler, condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        scheduler.tick()
        time.sleep(0.01)


def starts(folder):
    file = folder / "starts"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_queued_runs_start_as_devices_free_up(table, add, schedule):
    folders = [add(f"run-{i}", pause=0.03) for i in range(3)]
    most = 0
    with schedule("cuda:3", "cuda:5") as scheduler:

        def done():
            nonlocal most
            running = [run for run in table.runs() if run.state == "running"]
            held = [device for run in running for device in run.held]
            assert len(set(held)) == len(held)
            most = max(most, len(running))
            return all(run.state == "done" for run in table.runs())

        until(scheduler, done)
    assert most == 2
    assert [len(starts(folder)) for folder in folders] == [1, 1, 1]
    assert {starts(folder)[0][2] for folder in folders} <= {"3", "5"}
    assert [run.step for run in table.runs()] == [3, 3, 3]


def test_a_killed_run_goes_on_and_a_failing_one_says_why(table, add, schedule):
    folder = add("killed", steps=40, pause=0.01)
    add("failing", code="sys.exit('the loss is not a number')")
    with schedule() as scheduler:
        until(scheduler, lambda: len(starts(folder)) == 1)
        time.sleep(0.1)
        os.kill(int(starts(folder)[0][0]), signal.SIGKILL)
        until(scheduler, lambda: table.run("failing").state == "failed")
    assert table.run("killed").state == "done" and table.run("killed").step == 40
    first, second = starts(folder)
    assert first[1] == "0" and 0 < int(second[1]) < 40
    assert table.run("failing").error == "the loss is not a number"


@pytest.mark.parametrize(("code", "state", "times"), [(75, "done", 8), (65, "failed", 1)])
def test_what_may_mend_is_tried_again_and_what_does_not_ends(table, add, schedule, code, state, times):
    """75 says that a service is away, 65 that the run diverged."""
    folder = add("a", steps=0, code=f"sys.exit({code} if len((folder / 'starts').open().readlines()) < 8 else 0)")
    with schedule() as scheduler:
        until(scheduler, lambda: table.run("a").state not in ("queued", "running"))
    assert (table.run("a").state, len(starts(folder))) == (state, times)


def test_a_cancelled_run_stops_and_resumes_where_it_was(table, add, schedule):
    folder = add("a", steps=50, pause=0.02)
    with schedule() as scheduler:
        until(scheduler, lambda: len(starts(folder)) == 1 and module.last_step(folder) > 2)
        table.cancel("a", now=time.time())
        until(scheduler, lambda: table.run("a").state == "cancelled")
        assert not is_alive(folder)
        stopped_at = table.run("a").step
        table.resume("a", now=time.time())
        until(scheduler, lambda: table.run("a").state == "done")
    assert int(starts(folder)[1][1]) == stopped_at > 0


def test_what_a_scheduler_leaves_is_taken_up_by_the_next(table, add, schedule):
    folder = add("a", steps=60, pause=0.01)
    with schedule() as scheduler:
        until(scheduler, lambda: module.last_step(folder) > 2)
    assert table.run("a").state == "queued" and not is_alive(folder)
    with schedule() as scheduler:
        until(scheduler, lambda: table.run("a").state == "done")
    assert len(starts(folder)) == 2 and table.run("a").deaths == 0


SCHEDULER = """
import sys, time
from athena.events import EventLog
from athena.train.runs_table import RunTable
from athena.train.scheduler import Scheduler
from pathlib import Path
table = RunTable(Path(sys.argv[1]))
script = sys.argv[2]
def command(run):
    return [sys.executable, "-c", script, str(run.folder), "100", "0.05"]
with Scheduler(table, ("cpu:0",), EventLog(None), command=command) as scheduler:
    while True:
        scheduler.tick()
        time.sleep(0.01)
"""


def test_a_scheduler_killed_takes_its_runs_down_and_the_next_goes_on(table, add, schedule, tmp_path):
    folder = add("a", steps=100, pause=0.0)
    other = subprocess.Popen([sys.executable, "-c", SCHEDULER, str(tmp_path / RUNS_FILE), textwrap.dedent(RUN)])
    while module.last_step(folder) < 3:
        assert other.poll() is None
        time.sleep(0.01)
    with schedule() as scheduler:
        for _ in range(3):
            scheduler.tick()  # beside the other: it finds the run taken
        other.kill()
        other.wait()
        until(scheduler, lambda: table.run("a").state == "done")
    first, second = starts(folder)
    assert first[1] == "0" and int(second[1]) >= 3


def test_devices_by_name(monkeypatch):
    assert parse_devices("cpu:2") == ("cpu:0", "cpu:1")
    assert parse_devices("0,3") == ("cuda:0", "cuda:3")
    assert parse_devices("auto") == devices_here()
    for wrong in ("", "cpu", "cpu:0", "cpu:-1", "0,0", "gpu:1", "0,"):
        with pytest.raises(BadInput):
            parse_devices(wrong)


def test_a_run_is_told_its_size_and_where_its_events_go(table, add, tmp_path):
    add("two", devices=2)
    command = command_of(table.run("two"), tmp_path / "events.jsonl")
    assert command[1:5] == ["-m", "athena.train.runs_process", "--run", str(tmp_path / "two")]
    assert command[5:] == ["--processes", "2", "--events", str(tmp_path / "events.jsonl")]
