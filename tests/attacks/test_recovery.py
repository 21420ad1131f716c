"""Whatever ends a judge, and wherever: the next start comes to the same sheet."""

import errno
import os
import pickle
import re
import subprocess
import sys

import pytest

from athena import durable
from athena.protocol import ScoreSheet

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")

JUDGE = """
import os, pickle, signal, sys
from dataclasses import replace
from pathlib import Path

from athena.events import EventLog
from athena.judge.assess import Bench, assess
from athena.judge.proxy.arms import ProxyWorkers

class Dying(EventLog):
    "Kills this process when the judge has told so many events."

    left = int(sys.argv[2])

    def emit(self, event, **fields):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    case, fields = pickle.loads(Path(sys.argv[1]).read_bytes())
    with ProxyWorkers() as workers:
        bench = Bench(**fields, events=Dying(None), workers=workers)
        print(assess(case, bench).model_dump_json())
"""


@pytest.fixture(scope="module")
def case(world):
    return world.publish([{**row, "language_score": row["language_score"] * 0.999} for row in world.rows], hotkey="bob")


@pytest.fixture(scope="module")
def reference(world, case):
    """The sheet, and how many events were told on the way to it."""
    told = []

    class Counting:
        def emit(self, event, **fields):
            told.append(event)

    sheet = world.judge(case, events=Counting(), workdir=world.root / "undisturbed")
    assert sheet.outcome == "pass", sheet.gates[-1]
    return sheet, told


@pytest.fixture
def judge_until(world, case, tmp_path):
    """Judges in a process that dies at an event, or with 0 lives; the sheet's JSON, if there is one."""
    bench = world.bench
    names = ("hub", "crawl", "pack", "rules", "validator")
    fields = {name: getattr(bench, name) for name in names} | {"workdir": tmp_path / "work"}
    (tmp_path / "case").write_bytes(pickle.dumps((case, fields)))

    def judge(event: int) -> str:
        command = [sys.executable, "-c", JUDGE, str(tmp_path / "case"), str(event)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == (-9 if event else 0), done.stderr
        return done.stdout

    return judge


def die_at(events, judge_until, reference):
    """Each start gets further than the one before; the last one lives."""
    for number in events:
        assert judge_until(number) == ""
    assert ScoreSheet.model_validate_json(judge_until(0)) == reference[0]


def test_killed_at_the_first_gate_and_at_the_first_and_last_arm(judge_until, reference):
    _, told = reference
    arms = [number for number, event in enumerate(told, 1) if event == "judge.proxy"]
    die_at((2, arms[0], arms[-1]), judge_until, reference)


@pytest.mark.full
def test_killed_at_every_event(judge_until, reference):
    die_at(range(1, len(reference[1]) + 1), judge_until, reference)


def test_disk_full_at_every_file_in_turn(world, case, reference, tmp_path, monkeypatch):
    """The first attempt to finish each file fails: no verdict each time, and the sheet in the end."""
    failed = set()
    flush = durable.flush

    def full(path):
        name = re.sub(r"\.\d+\.\d+\.part$|\.part$", "", path.name)
        if not path.is_dir() and name not in failed:
            failed.add(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    monkeypatch.setattr(durable, "flush", full)
    outcomes = []
    while True:
        before = len(failed)
        sheet = world.judge(case, workdir=tmp_path)
        if len(failed) == before:
            break
        outcomes.append(sheet.outcome)
    assert set(outcomes) == {"none"} and len(outcomes) > 5
    assert sheet == reference[0]
