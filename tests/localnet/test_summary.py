"""Summaries: several validators do not narrow an interval, tasks do; ties are ties; burned weight is nobody's."""

import pytest

from athena.localnet.summary import mean_weights, pooled_score, ranking
from athena.protocol import DatasetRef, Effect, ScoreSheet

MINER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
VALIDATOR = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"


def sheet(task="0", mean=0.0, half=0.02, outcome="pass"):
    effect = Effect(mean=mean, low=mean - half, high=mean + half, by_domain={}) if outcome == "pass" else None
    return ScoreSheet(
        task_id=task * 32, hotkey=MINER, validator=VALIDATOR, rule_version="demo-1", eval_pack="0" * 64,
        dataset=DatasetRef(location="file:a/b", revision="0" * 40, root="0" * 64),
        issued_block=1, commit_block=2, seed_block=3, outcome=outcome, gates=(), effect=effect, yield_ratio=0.5,
    )  # fmt: skip


def test_a_second_validator_does_not_narrow_the_interval_but_a_second_task_does():
    one = pooled_score([sheet()])["effect"]
    assert pooled_score([sheet(), sheet()])["effect"] == one
    two = pooled_score([sheet("0"), sheet("1")])["effect"]
    assert two["high"] - two["low"] == pytest.approx((one["high"] - one["low"]) / 2**0.5, abs=2e-5)


def test_outcomes_are_counted_and_what_was_not_told_has_no_effect():
    score = pooled_score([sheet(outcome="fail"), sheet(outcome="none")])
    assert score == {"sheets": 2, "outcomes": {"fail": 1, "none": 1}, "yield": 0.5, "effect": None}


def test_overlapping_intervals_with_like_weights_share_a_place():
    scores = {
        "a": pooled_score([sheet(mean=0.01)]),
        "b": pooled_score([sheet(mean=0.0)]),
        "c": pooled_score([sheet(mean=-0.3)]),
    }
    assert ranking(scores, {"a": 0.5, "b": 0.5, "c": 0.0}) == [["a", "b"], ["c"]]
    assert ranking(scores, {"a": 0.9, "b": 0.1, "c": 0.0}) == [["a"], ["b"], ["c"]]


def test_weights_are_averaged_over_the_validators_that_set_any():
    weights = {"v1": {"ka": 1.0}, "v2": {"ka": 0.5, "kb": 0.5}, "v3": {}}
    assert mean_weights(weights, {"a": "ka", "b": "kb", "c": "kc"}) == {"a": 0.75, "b": 0.25, "c": 0.0}
