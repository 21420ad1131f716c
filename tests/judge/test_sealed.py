"""The sealed half beside the public one: the same models, an alarm, and nothing that anybody is paid by."""

import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from athena.evalpack import EvalDocument, PackShelf, write_pack
from athena.events import EventLog, read_events
from athena.judge.overfitting import EVERYBODY
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.proxy.comparison import compare
from athena.judge.queue import CaseQueue
from athena.judge.rules import PayRules, ProxyRules, Rules
from athena.judge.score import effect
from athena.judge.sealed import SealedHalves, overfitting
from athena.refine.recipe import load_recipe

RULES = Rules(
    "1",
    proxy=ProxyRules(
        vocab_size=512, length=32, max_tokens=400, min_tokens=500, miner_seeds=2, canonical_seeds=3, opening_tokens=0
    ),
    pay=PayRules(sigma_seed=0.01),
)
CHEAT = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"


def documents(kind: str) -> list[EvalDocument]:
    return [EvalDocument(id=f"{kind}-{i}", domain="web", text=f"A {kind} tale, number {i}.") for i in range(4)]


@pytest.fixture
def queue(tmp_path):
    with CaseQueue(tmp_path / "queue.sqlite") as queue:
        yield queue


@pytest.fixture
def halves(tmp_path):
    """A pack, and the shelf on which its sealed half lies beside that of another."""
    write_pack(tmp_path / "hidden" / "old", "p", documents("old"), half="sealed")
    sealed = write_pack(tmp_path / "hidden" / "new", "p", documents("sealed"), half="sealed")
    public = write_pack(tmp_path / "public", "p", documents("public"), sealed=sealed.hash)
    return public, PackShelf(tmp_path / "hidden")


@pytest.fixture
def heard(tmp_path, queue, make_evidence, make_sheet, proxy_stand_in):
    """heard(pack, shelf): a case that passed with this pack is heard by the shelf's halves; the workers' orders."""
    orders = proxy_stand_in({"canary-raw": 1.5, "canary-shuffled": 2.0, "miner": 0.9})

    def hear(pack, shelf, **changes):
        stories = [f"Story {number}: the {number}th cat sat on a mat." for number in range(100)]
        evidence = make_evidence(stories, canonical=stories, pack=pack, rules=RULES)
        evidence = replace(evidence, canonical_recipe=load_recipe("fineweb-1"))
        with ProxyWorkers(1) as workers:
            bench = SimpleNamespace(
                pack=pack, rules=RULES, workers=workers, made=tmp_path, events=EventLog(tmp_path / "events.jsonl")
            )
            found = compare(evidence, lambda _: evidence.rows, workers, tmp_path / "arms", lambda *_: None)
            paid = effect(found.measured, RULES.pay, evidence.case.seed("bootstrap"))
            sheet = make_sheet(**{"effect": paid, **changes})
            before = len(orders())
            SealedHalves(shelf).hear(queue, evidence.case, bench, sheet, found)
        return sheet, [job for _, ordered in orders() for job in ordered][:before], orders()[before:]

    return hear


def test_the_very_models_are_measured_on_the_sealed_half_too(heard, halves, queue, tmp_path):
    public, shelf = halves
    sheet, trained, orders = heard(public, shelf)
    again = [job for _, ordered in orders for job in ordered]
    assert [job["name"] for job in again] == ["canonical"] * 3 + ["miner"] * 2
    models = {job["model"]: job for job in trained}
    assert all(models[job["model"]]["documents"] == job["documents"] for job in again)
    assert all(models[job["model"]]["evaluation"] != job["evaluation"] for job in again)
    bytes_of = {job["evaluation"]: sum(json.loads(Path(job["evaluation"]).read_text())["bytes"]) for job in again}
    assert list(bytes_of.values()) == [sum(len(d.text.encode()) for d in documents("sealed"))]
    kept = queue.gains()
    assert (kept.pack, kept.rule_version) == (public.hash, "1")
    [(hotkey, public_gain, sealed_gain)] = kept.effects
    assert (hotkey, public_gain) == (sheet.hotkey, sheet.effect.mean) and sealed_gain == pytest.approx(0.03)


@pytest.mark.parametrize("case", ["failed", "not compared", "another pack", "broken"])
def test_where_nothing_can_be_said_nothing_is(heard, halves, queue, tmp_path, case):
    public, shelf = halves
    changes = {"failed": {"outcome": "fail"}, "not compared": {"effect": None}}.get(case, {})
    if case == "another pack":
        public = write_pack(tmp_path / "other", "p", documents("other"), sealed="f" * 64)
    if case == "broken":
        (tmp_path / "hidden" / "new" / "documents.jsonl").write_bytes(b"")
    assert heard(public, shelf, **changes)[2] == [] and queue.gains() is None and overfitting(queue) == []


def fill(queue, pack, count, excess):
    """Gains of four hotkeys in turn, of which CHEAT has more on the public half; the halves agree within 0.001."""
    dice = random.Random(0)
    for number in range(count):
        hotkey = CHEAT if number % 4 == 0 else f"honest-{number % 4}"
        sealed = dice.gauss(0.0, 0.01)
        public = sealed + dice.gauss(0.0, 0.001) + (excess if hotkey == CHEAT else 0.0)
        queue.keep_gain(str(number), pack=pack, rule_version="1", hotkey=hotkey, public=public, sealed=sealed)


@pytest.mark.parametrize(("excess", "alarmed"), [(0.02, [CHEAT]), (0.0, [])])
def test_who_gains_on_the_public_half_alone_is_told_and_once(heard, halves, queue, tmp_path, excess, alarmed):
    public, shelf = halves
    fill(queue, public.hash, 63, excess)
    heard(public, shelf)
    assert [found.hotkey for found in overfitting(queue)] == alarmed
    told = [e for e in read_events(tmp_path / "events.jsonl") if e["event"] == "validator.overfitting"]
    assert [event["hotkeys"] for event in told] == ([alarmed] if alarmed else [])
    assert EVERYBODY not in alarmed


def test_gains_of_an_earlier_pack_say_nothing_of_this_one(queue):
    fill(queue, "a" * 64, 64, 0.02)
    assert overfitting(queue)
    queue.keep_gain("next", pack="b" * 64, rule_version="1", hotkey=CHEAT, public=0.1, sealed=0.0)
    assert overfitting(queue) == [] and len(queue.gains().effects) == 1
    queue.keep_gain("next", pack="b" * 64, rule_version="1", hotkey=CHEAT, public=0.5, sealed=0.0)
    assert queue.gains().effects == [(CHEAT, 0.1, 0.0)], "the first of a case stays"
