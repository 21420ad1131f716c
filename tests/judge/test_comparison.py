"""Which arms of a case are trained on what, under a stand-in for the training process."""

import hashlib
from dataclasses import replace

import pytest

from athena.durable import write_file
from athena.errors import Unavailable
from athena.evalpack import ClozeItem
from athena.judge.evidence import Evidence
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.proxy.comparison import Comparison, compare, second_protocol
from athena.judge.rules import PayRules, ProxyRules, Rules
from athena.refine.recipe import load_recipe

BITS = {"canary-raw": 1.5, "canary-shuffled": 2.0, "miner": 0.9, "miner-low": 0.95}
PAY = PayRules(sigma_seed=0.01)


def stories(count: int) -> list[str]:
    return [f"Story {number}: the {number}th cat sat on a mat." for number in range(count)]


@pytest.fixture
def make_case(make_evidence, make_pack):
    """Evidence of 90 stories where canonical work has `canonical`, of about 9 tokens each."""
    cloze = [ClozeItem(id="1", domain="web", context="A tale", choices=(" ends", " sofa"), answer=0)]
    pack = make_pack([f"Another tale altogether, {number}." for number in range(4)], cloze)
    small = ProxyRules(
        vocab_size=512, length=32, max_tokens=400, min_tokens=500, miner_seeds=2, canonical_seeds=3, canary_seeds=1
    )

    def make(canonical: int = 100, **proxy: object) -> Evidence:
        rules = Rules("1", proxy=replace(small, **proxy), pay=PAY)
        evidence = make_evidence(stories(90), canonical=stories(canonical), pack=pack, rules=rules)
        return replace(evidence, canonical_recipe=load_recipe("fineweb-1"))

    return make


@pytest.fixture
def run_compare(tmp_path, make_evidence):
    unfiltered = make_evidence(stories(200)).rows

    def run(evidence: Evidence, **options: object) -> Comparison:
        with ProxyWorkers(2) as workers:
            return compare(evidence, lambda path: unfiltered, workers, tmp_path / "arms", lambda *_: None, **options)

    return run


def names(comparison: Comparison) -> list[str]:
    return [arm.name for arm in comparison.arms]


def test_arms_and_the_second_protocol(make_case, run_compare, proxy_stand_in):
    orders = proxy_stand_in(BITS)
    found = run_compare(make_case())
    assert names(found) == [
        "canonical", "canonical", "canonical", "canary-raw", "canary-shuffled", "canonical-low", "miner", "miner",
        "miner-low",
    ]  # fmt: skip
    assert found.yield_ratio == pytest.approx(0.9, abs=0.01) and found.canaries.outcome == "pass"
    second = found.canaries.evidence["second_protocol"]
    assert second["difference"] == pytest.approx(0.05) and second["disagrees"] is False
    again = run_compare(make_case())
    assert again == found and len(orders()) == 9


def test_the_low_arm_has_its_own_rate_and_budget(make_case, run_compare, proxy_stand_in):
    orders = proxy_stand_in(BITS)
    run_compare(make_case(low_learning_rate=0.2, low_budget_share=0.25))
    jobs = [job for _, ordered in orders() for job in ordered]
    by_name = {job["name"]: job for job in jobs}
    for name in ("miner", "canonical"):
        main, low = by_name[name], by_name[f"{name}-low"]
        assert low["rules"]["learning_rate"] == pytest.approx(0.2 * main["rules"]["learning_rate"])
        assert (main["budget_tokens"], low["budget_tokens"]) == (400, 100)
        assert low["documents"] == main["documents"]
    assert len({job["seed"] for job in jobs}) == len(jobs)


def test_canaries_out_of_order_stop_before_the_miners_arms(make_case, run_compare, proxy_stand_in):
    proxy_stand_in({**BITS, "canary-shuffled": 0.5})
    found = run_compare(make_case())
    assert found.canaries.outcome == "none" and not set(names(found)) & {"miner", "miner-low"}


def test_a_file_with_too_little_text_compares_nothing_without_a_base(make_case, run_compare, proxy_stand_in):
    orders = proxy_stand_in(BITS)
    found = run_compare(make_case(canonical=40))
    assert found.arms == () and found.canaries is None and orders() == []


def test_a_small_file_goes_on_from_the_base_that_the_rules_name(make_case, run_compare, proxy_stand_in, tmp_path):
    orders, base = proxy_stand_in(BITS), tmp_path / "base.safetensors"
    write_file(base, b"weights")
    rules = {"base_sha256": hashlib.sha256(b"weights").hexdigest(), "base_min_tokens": 300}
    small = make_case(canonical=40, **rules)
    assert "miner" in names(run_compare(small, base=base))
    with pytest.raises(Unavailable, match="base checkpoint"):
        run_compare(small)
    write_file(base, b"others")
    with pytest.raises(Unavailable, match="base checkpoint"):
        run_compare(small, base=base)
    before = len(orders())
    assert run_compare(make_case(canonical=20, **rules)).arms == () and len(orders()) == before
    assert "miner" in names(run_compare(make_case(canonical=100, **rules)))  # from scratch: no base is looked for


@pytest.mark.parametrize(
    ("miner", "low", "disagrees"),
    [(0.9, 0.9, False), (0.9, 1.1, True), (1.1, 0.9, True), (0.999, 1.1, False), (0.9, 1.01, False), (1.0, 1.0, False)],
)
def test_the_second_protocol_disagrees_only_beyond_chance(make_arm, miner, low, disagrees):
    values = {"canonical": 1.0, "miner": miner, "canonical-low": 1.0, "miner-low": low}
    arms = [make_arm(name, d=value) for name, value in values.items()]
    found = second_protocol(arms, Rules("1", pay=PAY))
    assert found["disagrees"] is disagrees
    assert found["difference"] == pytest.approx(1.0 - low) and found["chance"] == pytest.approx(1.96 * 0.01 * 2**0.5)
