import random

import pytest

from athena.errors import BadInput
from athena.judge.overfitting import EVERYBODY, Gain, excesses, paired, watched
from athena.judge.rules import PayRules
from athena.protocol import DatasetRef, Effect, ScoreSheet

RULES = PayRules()
ALICE, BOB = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"


def gains(seed, hotkeys=12, tasks=8, cheats=(), excess=0.02):
    """Effects of ±0.01, measured with an error of 0.004 on each half; cheats add `excess` on the public half."""
    dice = random.Random(seed)
    found = []
    for number in range(hotkeys):
        name = f"key-{number}"
        for _ in range(tasks):
            effect = dice.gauss(0, 0.01)
            public = effect + dice.gauss(0, 0.004) + (excess if name in cheats else 0)
            found.append(Gain(name, public, effect + dice.gauss(0, 0.004)))
    return found


def alarmed(found):
    return [excess.hotkey for excess in excesses(found) if excess.overfits(RULES)]


def test_honest_work_raises_no_alarm():
    assert sum(bool(alarmed(gains(seed))) for seed in range(200)) <= 10


def looks(found):
    """Who is alarmed of at each look, where every gain that comes in is followed by one."""
    return [
        [excess.hotkey for excess in watched(found[:count]) if excess.overfits(RULES)]
        for count in (8, 16, 32, 64, len(found))
    ]


def in_turn(found, hotkeys=12):
    """The hotkeys' gains as they would come in: one of each, then the next of each."""
    tasks = len(found) // hotkeys
    return [found[hotkey * tasks + task] for task in range(tasks) for hotkey in range(hotkeys)]


def test_who_looks_again_and_again_is_not_alarmed_by_luck():
    assert sum(any(looks(in_turn(gains(seed)))) for seed in range(40)) <= 2


def test_looks_find_a_cheat_in_the_end_and_come_when_gains_have_doubled():
    found = in_turn(gains(0, tasks=24, cheats={"key-3"}))
    assert looks(found)[-1] == ["key-3"]
    assert watched(found[:7]) == [] and watched(found[:8]) == watched(found[:15])


def test_one_cheat_among_many_is_found():
    assert sum(alarmed(gains(seed, cheats={"key-3"})) == ["key-3"] for seed in range(50)) >= 45


def test_everybody_is_told_when_all_do_it():
    everybody = {f"key-{number}" for number in range(12)}
    assert EVERYBODY in alarmed(gains(1, tasks=2, cheats=everybody))


def test_order_does_not_matter_and_few_datasets_say_nothing():
    found = gains(0, cheats={"key-1"})
    assert excesses(found) == excesses(found[::-1])
    assert excesses(gains(0, hotkeys=2, tasks=2)) == []
    assert [excess.hotkey for excess in excesses(gains(0, hotkeys=2, tasks=3))] == ["key-0", "key-1"]


def test_equal_gains_have_no_excess():
    (excess,) = excesses(Gain("key", value, value) for value in (0.01, 0.02, 0.03))
    assert excess.mean == excess.low == 0 and not excess.overfits(RULES)


def sheet(hotkey, task, effect, pack="a" * 64):
    found = None if effect is None else Effect(mean=effect, low=effect, high=effect, by_domain={})
    return ScoreSheet(
        task_id=f"{task:032x}", hotkey=hotkey, validator=ALICE, rule_version="1", eval_pack=pack, issued_block=1,
        dataset=DatasetRef(location="file:org/data", revision="a" * 40, root=f"{task:064x}"), commit_block=2,
        seed_block=3, outcome="pass", gates=(), effect=found,
    )  # fmt: skip


def test_datasets_with_an_effect_on_both_halves_are_paired():
    public = [
        sheet(ALICE, 1, 0.0),
        sheet(ALICE, 1, 0.02),
        sheet(ALICE, 2, None),
        sheet(BOB, 1, 0.02),
        sheet(BOB, 3, 0.03),
    ]
    sealed = [sheet(BOB, 1, 0.0, "b" * 64), sheet(ALICE, 2, 0.5, "b" * 64), sheet(ALICE, 1, 0.02, "b" * 64)]
    assert {(gain.hotkey, gain.public, gain.sealed) for gain in paired(public, sealed)} == {
        (ALICE, 0.01, 0.02),
        (BOB, 0.02, 0.0),
    }
    with pytest.raises(BadInput, match="mixed"):
        paired([*public, sheet(BOB, 5, 0.1, "c" * 64)], sealed)
