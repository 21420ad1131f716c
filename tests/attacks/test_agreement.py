"""Validators that differ in machine, workers and order of work set the same weights."""

import itertools

import numpy as np
import pytest

from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.weights import judged, pay

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")

NARROW = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
MIDDLE = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
VALIDATORS = ((1, {}, 1), (2, NARROW, -1), (1, MIDDLE, -1))
"""Each one's worker processes, what limits their instruction set, and whether it judges first to last (1) or back."""


@pytest.fixture
def weights_of(world, tmp_path, monkeypatch):
    """The weights that a validator with such settings gives the cases' hotkeys, in the cases' order."""

    def weigh(cases, number, processes, environment, step):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with ProxyWorkers(processes) as workers:
            bench = {"workers": workers, "workdir": tmp_path / str(number)}
            sheets = {case.hotkey: world.judge(case, **bench) for case in cases[::step]}
        for name in environment:
            monkeypatch.delenv(name)
        assert all(sheet.outcome == "pass" for sheet in sheets.values()), [s.gates[-1] for s in sheets.values()]
        rules = world.bench.rules
        weights = pay({key: [judged(sheet, rules)] for key, sheet in sheets.items()}, rules, now_block=300).weights
        return [weights.get(case.hotkey, 0.0) for case in cases]

    return weigh


def agreement(cases, weights_of):
    """The smallest correlation of two validators' weights."""
    weights = [weights_of(cases, number, *settings) for number, settings in enumerate(VALIDATORS)]
    assert np.std(weights[0]) > 0.05, "equal weights would agree whatever the validators found"
    return min(np.corrcoef(one, other)[0, 1] for one, other in itertools.combinations(weights, 2))


@pytest.mark.full
def test_three_validators_agree_on_three_miners(world, canonical, weights_of):
    cases = [
        world.publish(list(world.rows), recipe=canonical),
        world.publish(world.refine("unfiltered-1", "bob"), hotkey="bob"),
        world.publish([row for row in world.rows if row["warc_offset"] % 2], hotkey="carol"),
    ]
    assert agreement(cases, weights_of) >= 0.99


@pytest.mark.full
def test_three_validators_agree_on_ten_miners(world, weights_of):
    """Every miner with a recipe or a share of its own."""
    cases = []
    for number in range(10):
        name, recipe = f"miner-{number}", ("fineweb-1", "strict-1", "resiliparse-1")[number % 3]
        rows = [row for row in world.refine(recipe, name) if number < 3 or row["warc_offset"] % (number - 1)]
        cases.append(world.publish(rows, hotkey=name))
    assert agreement(cases, weights_of) >= 0.99
