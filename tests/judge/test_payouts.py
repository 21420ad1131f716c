"""Every payout survives what lies before the chain: the SDK makes 16-bit weights of it, which the chain then checks."""

import math

import pytest
from bittensor.intents import normalize
from hypothesis import given, settings
from hypothesis import strategies as st

from athena.judge.rules import rules_of
from athena.judge.weights import Judged, abandoned, pay

RULES = rules_of("1")
U16_MAX = 65535
MAX_UIDS = 256
MIN_ALLOWED_WEIGHTS = 1  # of a new subnet


def as_the_chain_takes_them(payout, hotkeys):
    """Uids and 16-bit weights of a payout, which must pass the checks of the chain's set_weights."""
    uid_of = {hotkey: uid for uid, hotkey in enumerate(hotkeys)}
    by_uid = {uid_of[hotkey]: weight for hotkey, weight in payout.weights.items()} or {0: 1.0}
    assert all(math.isfinite(weight) and weight > 0 for weight in by_uid.values())  # as Chain.set_weights asks
    uids, values = normalize(list(by_uid), list(by_uid.values()))
    assert MIN_ALLOWED_WEIGHTS <= len(uids) == len(values) <= len(hotkeys)
    assert len(set(uids)) == len(uids) and max(uids) < len(hotkeys)
    assert max(values) == U16_MAX and min(values) > 0
    return dict(zip(uids, values, strict=True))


entries = st.builds(
    Judged,
    task_id=st.integers(0, 5).map(lambda i: f"{i:032x}"),
    block=st.integers(0, 2**53) | st.just(0),
    outcome=st.sampled_from(["pass", "fail", "none"]),
    units=st.floats(0, 32) | st.sampled_from([0.0, 5e-324, 1e-300]),
    effect=st.none() | st.floats(-64, 64),
)
accounts = st.lists(entries, max_size=4)


@given(st.data(), st.sampled_from([1, 2, 17, MAX_UIDS]), st.integers(0, 2**53))
@settings(max_examples=60)
def test_any_history_is_taken(data, num_hotkeys, now):
    some = data.draw(st.lists(accounts, min_size=1, max_size=5))
    hotkeys = [f"hotkey-{number}" for number in range(num_hotkeys)]
    history = {hotkey: some[number % len(some)] for number, hotkey in enumerate(hotkeys)}
    as_the_chain_takes_them(pay(history, RULES, now_block=now), hotkeys)


@pytest.mark.parametrize("num_hotkeys", [1, 2, MAX_UIDS])
def test_where_all_fail_all_is_burnt(num_hotkeys):
    hotkeys = [f"hotkey-{number}" for number in range(num_hotkeys)]
    history = {hotkey: [abandoned("0" * 32, 0, RULES)] for hotkey in hotkeys}
    assert as_the_chain_takes_them(pay(history, RULES, now_block=0), hotkeys) == {0: U16_MAX}


def test_16_bits_keep_the_proportions_of_a_full_subnet():
    hotkeys = [f"hotkey-{number}" for number in range(MAX_UIDS)]
    history = {
        hotkey: [Judged("0" * 32, 0, "pass", units=(number + 1) / 8, effect=0.0)]
        for number, hotkey in enumerate(hotkeys)
    }
    values = as_the_chain_takes_them(pay(history, RULES, now_block=0), hotkeys)
    assert values == pytest.approx({uid: U16_MAX * (uid + 1) / MAX_UIDS for uid in range(MAX_UIDS)}, abs=0.51)


def test_a_task_that_is_no_longer_looked_at_would_weigh_nothing():
    """`memory_blocks` leaves out no work that the chain would see beside as much that is new."""
    newest = RULES.pay.memory_blocks
    history = {
        "new": [Judged("0" * 32, newest, "pass", units=1.0, effect=0.0)],
        "old": [Judged("1" * 32, 0, "pass", units=1.0, effect=0.0)],
    }
    assert as_the_chain_takes_them(pay(history, RULES, now_block=newest), ["new", "old"]) == {0: U16_MAX}
