"""Consensus decides what is trained on: a majority of stake, and incentive."""

from hypothesis import given
from hypothesis import strategies as st

from athena.chain.client import Head, Neuron
from athena.chain.wallets import open_wallet, sign
from athena.errors import NotFound
from athena.protocol import DatasetRef, Effect, ScoreSheet, SignedSheet
from athena.train.selection import averaged, epochs_since, genuine, select

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


def test_what_validators_measured_is_the_forecast():
    def measuring(validator, mean):
        effect = mean if mean is None else Effect(mean=mean, low=mean - 1, high=mean + 1, by_domain={"web": mean})
        return sheet(validator).model_copy(update={"effect": effect})

    votes = [measuring(VALIDATORS[0], 0.1), measuring(VALIDATORS[1], None), measuring(VALIDATORS[2], 0.3)]
    stranger = measuring("5CiPPseXPECbkjWCa6MnjNokrgYjMqmKndv2rSnekmSK2DjL", 9.0)
    [found] = select(neurons(), [*votes, stranger]).accepted
    assert (found.forecast, found.rule_version) == (0.2, "1")
    assert select(neurons(), [sheet(v) for v in VALIDATORS]).accepted[0].forecast is None


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


def test_incentive_is_averaged_over_epochs():
    late = Neuron(9, VALIDATORS[0], VALIDATORS[0], 0.0, False, 0.4, 50, 0)
    gone = Neuron(8, VALIDATORS[1], VALIDATORS[1], 500.0, True, 0.3, 0, 0)
    epochs = [[*neurons(incentive=0.2)[:1], late], [*neurons(incentive=0.6)[:1], gone]]
    found = {neuron.hotkey: neuron for neuron in averaged(epochs)}
    assert {key: round(neuron.incentive, 9) for key, neuron in found.items()} == {
        MINER: 0.4,
        late.hotkey: 0.2,
        gone.hotkey: 0.15,
    }
    assert not found[gone.hotkey].validator_permit and found[gone.hotkey].stake == 0


class Archive:
    """A chain whose node has forgotten the state before block 100."""

    def __init__(self, forgotten=0):
        self.forgotten = forgotten
        self.asked = []

    def head(self):
        return Head(1000, "0x")

    def neurons(self, block):
        if block < self.forgotten:
            raise NotFound("state gone")
        self.asked.append(block)
        return neurons()


def test_epochs_are_read_since_the_last_mixture():
    chain = Archive()
    assert len(epochs_since(chain, 500, 200)) == 3
    assert chain.asked == [1000, 800, 600]
    assert len(epochs_since(Archive(), 990, 200)) == 1
    assert len(epochs_since(Archive(forgotten=700), 0, 200)) == 2


def test_only_what_a_validator_signed_counts(tmp_path):
    wallet = open_wallet("validator", "default", tmp_path, create=True)
    own = sheet(wallet.hotkey.ss58_address)
    signature = sign(wallet, own.canonical())
    forged = sheet(wallet.hotkey.ss58_address, "fail")
    signed = [SignedSheet(sheet=each, signature=signature) for each in (own, forged, sheet(VALIDATORS[0]))]
    assert list(genuine(signed)) == [own]
