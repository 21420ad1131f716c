"""Honest work passes every gate, whatever the recipe, and is paid by what a model learns from it."""

import dataclasses
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from athena.errors import Unavailable
from athena.events import read_events
from athena.judge.assess import GATES, assess
from athena.judge.evidence import noting_undecided
from athena.judge.weights import judged, pay
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import canonical_json
from athena.wire import OptOut

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")


def test_canonical_work_passes_with_full_units(world, canonical):
    sheet = world.judge(world.publish(list(world.rows), recipe=canonical))
    assert sheet.outcome == "pass", sheet.gates
    assert [v.gate for v in sheet.gates] == ["form", *(gate for gate, _ in GATES), "canaries"]
    assert sheet.units == 2.0 and sheet.yield_ratio == 1.0
    assert sheet.effect is not None and sheet.effect.low < 0 < sheet.effect.high
    names = {arm.name for arm in sheet.arms}
    assert names == {"canonical", "miner", "canary-raw", "canary-shuffled", "canonical-low", "miner-low"}
    assert canonical_json(sheet.model_dump(mode="json"))


def test_domains_that_opted_out_are_left_out_by_miner_and_validator_alike(world, canonical):
    """Who leaves them out passes as canonical; who does not, fails, but only for what was known at the lease."""
    domain = urlsplit(world.rows[0]["url"]).hostname
    entries = (OptOut(domain=domain, reason="take-down", since_block=100),)
    without = world.refine("fineweb-1", left_out=LeftOut(frozenset({domain})))
    assert 0 < len(without) < len(world.rows)
    sheet = world.judge(world.publish(without, recipe=canonical), opt_outs=lambda: entries)
    assert sheet.outcome == "pass" and sheet.yield_ratio == 1.0, sheet.gates
    careless = world.publish(list(world.rows))
    sheet = world.judge(careless, opt_outs=lambda: entries)
    assert (sheet.outcome, sheet.gates[-1].gate) == ("fail", "privacy")
    assert sheet.gates[-1].reason == "pages of domains that opted out"
    later = (OptOut(domain=domain, reason="take-down", since_block=careless.issued_block + 1),)
    assert world.judge(careless, opt_outs=lambda: later).outcome == "pass"


def test_no_verdict_while_the_opt_out_list_is_out_of_reach(world, canonical):
    def unreachable():
        raise Unavailable("no task server")

    assert world.judge(world.publish(list(world.rows)), opt_outs=unreachable).outcome == "none"


def test_judging_again_trains_nothing_and_finds_the_same(world, canonical):
    case = world.publish(list(world.rows), recipe=canonical)
    first = world.judge(case)
    before = {p: p.stat().st_mtime_ns for p in (world.bench.workdir / "arms").iterdir()}
    assert world.judge(case) == first
    assert {p: p.stat().st_mtime_ns for p in (world.bench.workdir / "arms").iterdir()} == before


def test_weights_follow_the_recipes_and_not_the_names(world):
    """Two hotkeys swap their recipes; nothing but the data tells them apart, and the weights swap."""
    weights = []
    for careful, careless in (("alice", "bob"), ("bob", "alice")):
        sheets = {
            key: world.judge(world.publish(world.refine(recipe, key), hotkey=key))
            for key, recipe in ((careful, "strict-1"), (careless, "unfiltered-1"))
        }
        assert all(s.outcome == "pass" for s in sheets.values()), [s.gates[-1] for s in sheets.values()]
        history = {key: [judged(sheet, world.bench.rules)] for key, sheet in sheets.items()}
        payout = pay(history, world.bench.rules, now_block=300)
        weights.append((payout.weights.get(careful, 0.0), payout.weights.get(careless, 0.0)))
    for careful, careless in weights:
        assert careful > 0.6 > 0.4 > careless


def test_progress_is_told(world, canonical):
    world.judge(world.publish(list(world.rows[:10]), hotkey="bob"))
    kinds = {event["event"] for event in read_events(world.events)}
    assert {"judge.start", "judge.gate", "judge.proxy", "judge.done"} <= kinds


def test_a_small_set_is_paid_by_its_yield(world):
    part = [row for row in world.rows if row["warc_offset"] % 2 == 0]
    sheet = world.judge(world.publish(part))
    assert sheet.outcome == "pass" and 0 < sheet.yield_ratio < 0.9
    assert sheet.units == pytest.approx(2 * sheet.yield_ratio)


def test_late_work_loses_a_tenth_at_most(world):
    case = world.publish(list(world.rows))
    late = case.model_copy(update={"commit_block": 300, "deadline_block": 300, "median_blocks": 50})
    assert world.judge(late).time_factor == pytest.approx(0.9)


@pytest.mark.parametrize("noted", [True, False])
def test_a_record_that_the_validator_could_not_decide_is_not_held_against_the_miner(world, canonical, tmp_path, noted):
    """Its own worker died on the first row of each file; the miner's did not."""
    bench = dataclasses.replace(world.bench, workdir=tmp_path, workers=None)
    for path in world.paths:
        full = bench.refined(path, bench.canonical_recipe, NOTHING_LEFT_OUT).table
        lost = full["warc_offset"].to_pylist()[:1] if noted else []
        [file] = (f for f in (tmp_path / "refined").iterdir() if pq.read_table(f)["warc_path"][0].as_py() == path)
        pq.write_table(noting_undecided(full.slice(1), lost), file)
    sheet = assess(world.publish(list(world.rows), recipe=canonical), bench)
    assert {v.gate: v.outcome for v in sheet.gates}["completeness"] == ("pass" if noted else "fail")
