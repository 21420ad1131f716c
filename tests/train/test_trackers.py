"""Trackers: trackio as it is, the others by modules that keep what they are told as the real ones would."""

import os
import subprocess
import sys

import pytest

from athena.errors import BadInput, Misconfigured
from athena.train.trackers import open_tracker

WANDB = """
import json, pathlib
log = pathlib.Path({log!r})
class Run:
    def __init__(self, **given): log.write_text(json.dumps(given) + "\\n")
    def log(self, values, step):
        with log.open("a") as out: print(json.dumps([step, values]), file=out)
    def finish(self):
        with log.open("a") as out: print('"finished"', file=out)
def init(**given): return Run(**given)
"""
MLFLOW = """
import json, pathlib, types
log = pathlib.Path({log!r})
def note(*words):
    with log.open("a") as out: print(json.dumps(words), file=out)
def set_experiment(name): note("experiment", name)
def search_runs(filter_string, output_format):
    known = log.read_text().count('"start"')
    return [types.SimpleNamespace(info=types.SimpleNamespace(run_id="7"))] * known
def start_run(run_id, run_name): note("start", run_id, run_name)
def log_params(config): note("params", config)
def log_metrics(values, step): note(step, values)
def end_run(): note("end")
"""
BROKEN = "def init(**given): return type('Run', (), {'log': lambda *a, **k: 1 / 0, 'finish': lambda self: 1 / 0})()"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Puts a module of that name first on the path."""

    def make(name, source):
        (tmp_path / f"{name}.py").write_text(source.replace("{log!r}", repr(str(tmp_path / "log"))))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return tmp_path / "log"

    yield make
    for name in ("wandb", "mlflow"):
        sys.modules.pop(name, None)


def track(name, steps=(1, 2)):
    tracker = open_tracker(name, project="athena", run="trunk", config={"lr": 0.01})
    for step in steps:
        tracker.log(step, {"loss": 1 / step, "gradient_norm": float("nan")})
    tracker.close()


def test_without_a_tracker_nothing_is_imported_or_kept():
    track("none")
    with pytest.raises(BadInput, match="tensorboard"):
        open_tracker("tensorboard", project="p", run="r", config={})


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Misconfigured, match="wandb is not installed"):
        track("wandb")


def test_wandb_goes_on_with_the_run_of_that_name(module):
    log = module("wandb", WANDB)
    track("wandb")
    first, *steps = log.read_text().splitlines()
    assert '"id": "trunk"' in first and '"resume": "allow"' in first and '"project": "athena"' in first
    assert steps == ['[1, {"loss": 1.0}]', '[2, {"loss": 0.5}]', '"finished"']


def test_mlflow_goes_on_with_the_run_of_that_name(module):
    log = module("mlflow", MLFLOW)
    log.touch()
    track("mlflow", steps=(1,))
    track("mlflow", steps=(2,))
    lines = log.read_text().splitlines()
    assert lines[1:3] == ['["start", null, "trunk"]', '["params", {"lr": 0.01}]']
    assert '["start", "7", "trunk"]' in lines and lines.count('["params", {"lr": 0.01}]') == 1
    assert '[2, {"loss": 0.5}]' in lines and lines[-1] == '["end"]'


def test_a_tracker_that_breaks_stops_nothing(module, caplog):
    module("wandb", BROKEN)
    track("wandb", steps=(1, 2, 3))
    assert [record.message for record in caplog.records] == ["wandb failed: this run goes on without it"]


READ = """
import sqlite3, sys, pathlib
from athena.train.trackers import open_tracker
for steps in ((1, 2), (3,)):
    tracker = open_tracker("trackio", project="athena", run="trunk", config={"lr": 0.01})
    for step in steps:
        tracker.log(step, {"loss": 1 / step})
    tracker.close()
(file,) = pathlib.Path(sys.argv[1]).rglob("*.db")
rows = sqlite3.connect(file).execute("SELECT run_name, step FROM metrics ORDER BY step").fetchall()
assert rows == [("trunk", 1), ("trunk", 2), ("trunk", 3)], rows
"""


@pytest.mark.full
@pytest.mark.timeout(300)
def test_trackio_keeps_the_curve_over_a_restart(tmp_path):
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", READ, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
