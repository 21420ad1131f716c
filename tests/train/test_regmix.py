import random

import numpy as np
import pytest

from athena.errors import BadInput
from athena.evalpack import EvalDocument, write_pack
from athena.events import EventLog
from athena.train.gather import gather
from athena.train.local import LocalDatasets
from athena.train.mixture import MixtureRules
from athena.train.regmix import Fit, RegmixPlan, learn, learn_weights, random_shares

TRUTH = {"a": np.array([3.0, 3.4, 3.9]), "b": np.array([-0.8, -0.5, -0.1])}


def loss(shares):
    return float(TRUTH["a"] @ shares + TRUTH["b"] @ np.sqrt(shares))


@pytest.fixture(scope="module")
def shares():
    return np.stack([random_shares(3, 0, run) for run in range(24)])


def test_random_shares_spread_over_all_mixtures(shares):
    assert shares.min() >= 0 and np.allclose(shares.sum(1), 1)
    assert np.allclose(shares.mean(0), 1 / 3, atol=0.1)
    assert shares.max() > 0.8 and (shares.max(1) < 0.5).any()
    assert np.array_equal(random_shares(3, 0, 7), shares[7]) and not np.array_equal(random_shares(3, 1, 7), shares[7])


def test_the_best_mixture_of_a_known_loss_is_found(shares):
    noise = np.random.default_rng(0).normal(0, 0.003, len(shares))
    fit = Fit.of(shares, np.array([loss(s) for s in shares]) + noise)
    best = fit.best(np.ones(3), np.full(3, 1 / 3))
    grid = [np.array([i, j, 50 - i - j]) / 50 for i in range(51) for j in range(51 - i)]
    assert loss(best) < min(map(loss, grid)) + 0.01
    assert fit.error < 0.02
    assert fit.predict(best) == pytest.approx(loss(best), abs=0.02)


def test_no_source_gets_more_than_its_cap(shares):
    fit = Fit.of(shares, np.array([loss(s) for s in shares]))
    caps = np.array([0.3, 0.5, 0.6])
    best = fit.best(caps, np.full(3, 1 / 3))
    assert (best <= caps + 1e-6).all() and best.sum() == pytest.approx(1)
    assert best[0] == pytest.approx(0.3, abs=1e-3) and best[1] == pytest.approx(0.5, abs=1e-2)
    assert fit.best(np.array([0.2, 0.3, 0.1]), np.full(3, 1 / 3)) == pytest.approx(np.array([2, 3, 1]) / 6)


def test_one_source_is_not_weighed(tmp_path):
    pack = write_pack(tmp_path / "pack", "test", [EvalDocument(id="1", domain="wiki", text="text")])
    with pytest.raises(BadInput, match="1 source"):
        learn([], {"a": 5}, {"a": 1.0}, pack, RegmixPlan(), tmp_path, 1, lambda done, total: None)


ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_source_of_the_evaluations_kind_is_preferred(tmp_path, make_corpus, make_dataset):
    """Real runs: Alice has sentences like those of the evaluation, Bob noise."""
    make_dataset(tmp_path / "refined" / "alice", ALICE, make_corpus(300))
    draw = random.Random(0)
    noise = [" ".join("".join(draw.choices("bcdfghjk", k=6)) for _ in range(30)) for _ in range(300)]
    make_dataset(tmp_path / "refined" / "bob", BOB, noise)
    evaluated = [EvalDocument(id=str(i), domain="wiki", text=text) for i, text in enumerate(make_corpus(8, seed=9))]
    pack = write_pack(tmp_path / "pack", "test", evaluated)
    source = LocalDatasets([tmp_path / "refined"])

    def gathered(name, rules):
        return gather(source.accepted, rules, pack, source, tmp_path / "shelf", tmp_path / name, EventLog(None))

    pool = gathered("pool", MixtureRules(max_tokens=10**9, max_miner_share=0.9))
    rules = MixtureRules(max_tokens=pool.tokens // 3, max_miner_share=0.9)
    told = []

    def learnt():
        plan = RegmixPlan(runs=8, run_tokens=15_000)
        return learn_weights(tmp_path / "pool", rules, pack, plan, 2, lambda *done: told.append(done))

    first = learnt()
    assert told[-1] == (8, 8)
    assert first.weights[ALICE] > first.natural[ALICE] + 0.1
    assert first.gain > first.error
    assert learnt() == first
    mixed = gathered("mixture", rules.model_copy(update={"weights": first.weights}))
    assert mixed.tokens_by_hotkey[ALICE] / mixed.tokens == pytest.approx(first.weights[ALICE], abs=0.05)
