"""Attacks in simulated networks: a few of those that `make bench-attacks` plays, and the table of all."""

import json
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from athena.judge.assess import GATES
from athena.judge.gates import form
from scripts.attacks.play import Played
from scripts.attacks.runs import Died, Run, Runs
from scripts.attacks.table import ATTACKS, QUICK
from scripts.bench_attacks import Bench, Dead

ROOT = Path(__file__).parents[2]
PARTS = {"reading", "ledger", "yield", "proxy", "pay"}
FOUND = Played({"alice": 0.5, "mallory": 0.5}, {"alice": 0.5}, (), ("pass",), False, 1.0)


def played(*arguments):
    """What the bench printed: lines of attacks, lines of missing gates, and the last one."""
    command = [sys.executable, "-m", "scripts.bench_attacks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [line for line in lines if line.get("died")]
    return [line for line in lines if "caught_by" in line], [line for line in lines if "without" in line], lines[-1]


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_few_attacks_earn_nothing_unless_their_gate_is_gone(tmp_path):
    attacks, unguarded, result = played("--quick", "--jobs", "1", "--work", str(tmp_path))
    assert [line["attack"] for line in attacks] == list(QUICK)
    for line in attacks:
        assert line["payoff"] <= 0.05 and line["honest_loss"] <= 0.01, line
        assert line["honest_outcomes"] == ["pass"] and line["as_expected"], line
    assert unguarded and all(line["profitable"] for line in unguarded)
    assert result["max_payoff"] <= 0.05 and result["honest_loss"] <= 0.01
    assert result["defences_shown_necessary"] >= 2


def test_the_table_names_gates_that_there_are():
    gates = {gate for gate, _ in GATES}
    assert len(ATTACKS) >= 22
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) and set(QUICK) <= {a.name for a in ATTACKS}
    for attack in ATTACKS:
        assert set(attack.alone) <= gates and attack.caught_by, attack.name
        assert set(attack.caught_by) <= {form.GATE, *gates, *PARTS}, attack.name


def test_every_gate_is_shown_to_be_needed():
    """A gate without an attack that it alone stops could be lost without anyone noticing."""
    assert {gate for attack in ATTACKS for gate in attack.alone} == {gate for gate, _ in GATES}


def test_a_network_that_dies_is_a_line_of_its_own_and_takes_no_other():
    class Dying:
        def build(self, seed):
            return ended(None)

        def start(self, run):
            return ended(Died("killed") if run.attack == "nothing" else FOUND)

    def ended(result):
        future = Future()
        future.set_result(result)
        return future

    chosen = [attack for attack in ATTACKS if attack.name in ("doubled rows", "nothing", "huge row")]
    lines = list(Bench(Dying(), (0, 1), 1).run(chosen))
    assert [line.attack for line in lines] == [attack.name for attack in chosen]
    assert [line for line in lines if isinstance(line, Dead)] == [Dead("nothing", None, "killed")]


def test_what_was_played_is_not_played_again(tmp_path, monkeypatch):
    """There is no such attack, so that nobody could play it."""
    for name in ("TMPDIR", "BITTENSOR_RUNTIME_CACHE_DIR"):  # set for the processes that play
        monkeypatch.setenv(name, str(tmp_path))
    run = Run("no such attack", seed=0, rounds=1)
    with Runs(tmp_path, 1) as runs:
        [folder] = tmp_path.iterdir()
    (folder / "played").mkdir()
    (folder / "played" / run.file_name).write_bytes(TypeAdapter(Played).dump_json(FOUND))
    with Runs(tmp_path, 1) as runs:
        assert runs.start(run).result() == FOUND
        runs.forget()
    assert not any(tmp_path.iterdir())
