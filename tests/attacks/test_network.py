"""Attacks in simulated networks, as `make bench-attacks` plays them: one of each sort here, all in the full form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from athena.judge.assess import GATES
from athena.judge.gates import form
from scripts.attacks.table import ATTACKS, QUICK

ROOT = Path(__file__).parents[2]
PARTS = {"reading", "ledger", "yield", "proxy", "pay"}


def played(*arguments):
    """What the bench printed: lines of attacks, lines of missing gates, and the last one."""
    command = [sys.executable, "-m", "scripts.bench_attacks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if "caught_by" in line], [line for line in lines if "without" in line], lines[-1]


def assert_held(attacks, unguarded, result):
    for line in attacks:
        assert line["payoff"] <= 0.05 and line["honest_loss"] <= 0.01, line
        assert line["honest_outcomes"] == ["pass"] and line["as_expected"], line
    for line in unguarded:
        assert line["profitable"], line
    assert result["max_payoff"] <= 0.05 and result["honest_loss"] <= 0.01


@pytest.mark.timeout(900)
def test_one_attack_of_each_sort_earns_nothing_unless_its_gate_is_gone():
    attacks, unguarded, result = played("--quick")
    assert [line["attack"] for line in attacks] == list(QUICK)
    assert_held(attacks, unguarded, result)
    assert result["defences_shown_necessary"] >= 2


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_no_attack_earns_anything_unless_its_gate_is_gone():
    attacks, unguarded, result = played()
    assert_held(attacks, unguarded, result)
    assert result["attacks"] == len(ATTACKS) >= 22


def test_the_table_names_gates_that_there_are():
    gates = {gate for gate, _ in GATES}
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) and set(QUICK) <= {a.name for a in ATTACKS}
    for attack in ATTACKS:
        assert set(attack.alone) <= gates and attack.caught_by, attack.name
        assert set(attack.caught_by) <= {form.GATE, *gates, *PARTS}, attack.name


def test_every_gate_is_shown_to_be_needed():
    """A gate without an attack that it alone stops could be lost without anyone noticing."""
    shown = {gate for attack in ATTACKS for gate in attack.alone}
    assert {gate for gate, _ in GATES} - shown <= {"screens"}, "what the screens stop, the proxy prices too"
