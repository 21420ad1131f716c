"""Consensus decides what is trained on: a majority of stake, and incentive."""

from hypothesis import given
from hypothesis import strategies as st

from athena.chain.client import Neuron
from athena.protocol import DatasetRef, ScoreSheet
from athena.train.selection import select

MINER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
VALIDATORS = (
    "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
    "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y",
    "5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy",
)


def neurons(stakes=(100.0, 100.0, 100.0), incentive=0.5, permits=(True, True, True)):
    miner = Neuron(0, MINER, MINER, 0.0, False, incentive, 0, 0)
    rest = [
        Neuron(uid, key, key, stake, permit, 0.0, 0, 0)
        for uid, (key, stake, permit) in enumerate(zip(VALIDATORS, stakes, permits, strict=True), start=1)
    ]
    return [miner, *rest]


def sheet(validator, outcome="pass"):
    return ScoreSheet(
        task_id="0" * 32, hotkey=MINER, validator=validator, rule_version="1", eval_pack="0" * 64, outcome=outcome,
        dataset=DatasetRef(location="file:a/b", revision="0" * 40, root="0" * 64), gates=(), issued_block=1,
        commit_block=2, seed_block=3,
    )  # fmt: skip


def test_most_of_the_stake_accepts():
    two = select(neurons(), [sheet(v) for v in VALIDATORS[:2]])
    assert [d.hotkey for d in two.accepted] == [MINER] and two.judged == 1
    assert select(neurons(), [sheet(VALIDATORS[0])]).accepted == ()


def test_stake_counts_and_not_heads():
    votes = [sheet(VALIDATORS[0]), sheet(VALIDATORS[1], "fail"), sheet(VALIDATORS[2], "fail")]
    assert select(neurons((500.0, 100.0, 100.0)), votes).accepted
    assert not select(neurons((100.0, 100.0, 100.0)), votes).accepted


def test_one_validator_cannot_vote_twice_nor_without_a_permit():
    assert not select(neurons(), [sheet(VALIDATORS[0])] * 5).accepted
    votes = [sheet(v) for v in VALIDATORS]
    assert not select(neurons(permits=(False, False, True)), votes[:2]).accepted


def test_no_verdict_is_no_vote_and_no_incentive_no_data():
    votes = [sheet(v, "none") for v in VALIDATORS]
    assert select(neurons(), votes).judged == 0
    paid_nothing = select(neurons(incentive=0.0), [sheet(v) for v in VALIDATORS])
    assert paid_nothing.accepted == () and paid_nothing.judged == 1


@given(st.permutations([sheet(VALIDATORS[0]), sheet(VALIDATORS[1]), sheet(VALIDATORS[2], "fail")]))
def test_the_order_of_sheets_does_not_matter(votes):
    assert len(select(neurons(), votes).accepted) == 1
