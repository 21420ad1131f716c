"""Weights: once an epoch, off the main loop, whatever the chain says."""

import pytest

from athena.chain.client import ChainRefused, Neuron
from athena.errors import Unavailable
from athena.events import EventLog, read_events
from athena.judge.queue import WEIGHED_BLOCK, CaseQueue
from athena.judge.weighing import Weigher

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
OWNER = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
VALIDATOR = "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y"
EVERY = 100


class FakeChain:
    def __init__(self):
        self.weights, self.errors, self.last_update = [], [], 0
        self.arrives = False
        """Whether weights take effect although setting them fails."""
        self.block = 0

    def neurons(self, block=None):
        updates = {VALIDATOR: self.last_update}
        return [
            Neuron(uid, key, key, 1.0, False, 0.0, 0, updates.get(key, 0))
            for uid, key in enumerate((VALIDATOR, ALICE, OWNER))
        ]

    def owner_hotkey(self):
        return OWNER

    def set_weights(self, weights):
        error = self.errors.pop(0) if self.errors else None
        if error is None or self.arrives:
            self.weights.append(dict(weights))
            self.last_update = self.block
        if error is not None:
            raise error


class FakeLedger:
    def leases(self, **filters):
        return []


@pytest.fixture
def queue(tmp_path):
    with CaseQueue(tmp_path / "queue.sqlite") as queue:
        yield queue


@pytest.fixture
def judged(queue, make_sheet, sign):
    queue.enqueue("a", hotkey=ALICE, task_id="0" * 32, commit_block=10, payload="", due_at=0.0)
    queue.settle("a", sign(make_sheet(hotkey=ALICE, units=1.0)), now=0.0)


@pytest.fixture
def make_weigher(tmp_path):
    def make(chain):
        weigher = Weigher(
            chain, FakeLedger(), tmp_path / "queue.sqlite", hotkey=VALIDATOR, rule_version="1", every=EVERY,
            events=EventLog(tmp_path / "events.jsonl"),
        )  # fmt: skip

        def weigh(queue, *blocks):
            done = []
            for block in blocks:
                chain.block = block
                if weigher.weigh(queue, block):
                    done.append(block)
            return done

        return weigh

    return make


@pytest.mark.usefixtures("judged")
def test_each_epoch_is_weighed_once_also_across_restarts(queue, make_weigher):
    chain = FakeChain()
    assert make_weigher(chain)(queue, 150, 151, 199) == [150]
    assert make_weigher(chain)(queue, 160, 200, 201, 305) == [200, 305]
    assert chain.weights == [{ALICE: 1.0}] * 3 and queue.noted(WEIGHED_BLOCK) == 305


def test_where_nobody_earned_the_weight_goes_to_the_owner(queue, make_weigher, make_sheet, sign):
    queue.enqueue("a", hotkey=ALICE, task_id="0" * 32, commit_block=10, payload="", due_at=0.0)
    queue.settle("a", sign(make_sheet(hotkey=ALICE, outcome="fail", units=0.0, effect=None)), now=0.0)
    chain = FakeChain()
    assert make_weigher(chain)(queue, 150) == [150] and chain.weights == [{OWNER: 1.0}]


def test_nothing_is_set_before_the_first_verdict(queue, make_weigher):
    chain = FakeChain()
    assert make_weigher(chain)(queue, *range(100, 200)) == [] and chain.weights == []


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(
    "error", [ChainRefused("too fast", name="SettingWeightsTooFast"), Unavailable("no node")], ids=lambda e: e.code
)
def test_what_fails_is_tried_again_within_the_epoch_later_each_time(queue, make_weigher, error, tmp_path):
    chain = FakeChain()
    chain.errors = [error] * 3
    asked = []
    chain_set = chain.set_weights
    chain.set_weights = lambda weights: (asked.append(chain.block), chain_set(weights))
    assert make_weigher(chain)(queue, *range(100, 200)) == [135]
    assert asked == [100, 105, 115, 135]
    refused = [event for event in read_events(tmp_path / "events.jsonl") if event["event"] == "validator.refused"]
    assert len(refused) == (3 if isinstance(error, ChainRefused) else 0)


@pytest.mark.usefixtures("judged")
def test_weights_that_went_through_although_the_answer_got_lost_are_not_set_twice(queue, make_weigher):
    chain = FakeChain()
    chain.errors, chain.arrives = [Unavailable("connection lost")], True
    assert make_weigher(chain)(queue, *range(100, 200)) == [105]
    assert len(chain.weights) == 1
