"""What a miner is told about its pay is what the pay formula says, and which gate stopped it."""

import pytest

from athena.judge.assess import GATES
from athena.judge.explain import ADVICE, explain, formula
from athena.judge.rules import rules_of
from athena.judge.weights import account, judged
from athena.protocol import Effect, Verdict

RULES = rules_of("1")


@pytest.fixture
def sheet(make_sheet):
    def make(number, effect=0.0, **changes):
        found = effect is not None and Effect(
            mean=effect, low=effect - 0.01, high=effect + 0.01, by_domain={"web": effect, "law": 0.02}
        )
        fields = {"task_id": f"{number:032x}", "effect": found or None, "seed_block": 20 + number, "yield_ratio": 1.0}
        return make_sheet(**{**fields, "time_factor": 1.0, **changes})

    return make


def test_the_numbers_are_the_pay_formulas(sheet):
    sheets = [sheet(number, 0.01) for number in range(12)]
    explanation = explain(sheets, RULES, now_block=40)
    assert explanation.account == account([judged(s, RULES) for s in sheets], RULES, now_block=40)
    assert f"M = {explanation.account.multiplier:.3f}" in formula(explanation.account, RULES.pay)
    assert f"{explanation.account.weight:.3f}" in formula(explanation.account, RULES.pay)


def test_the_newest_sheet_of_a_task_counts_and_comes_first(sheet):
    failed = sheet(1, outcome="fail", gates=(Verdict(gate="form", outcome="fail", reason="no manifest"),), effect=None)
    later = sheet(1, commit_block=400, seed_block=500)
    explanation = explain([later, failed, sheet(2)], RULES, now_block=600)
    assert [story.sheet for story in explanation.tasks] == [later, sheet(2)]
    assert explanation.tasks[0].stopped_by is None


@pytest.mark.parametrize("gate", ["form", *(gate for gate, _ in GATES)])
def test_a_failed_gate_has_its_reason_and_its_advice(sheet, gate):
    verdict = Verdict(gate=gate, outcome="fail", reason="because")
    passed = Verdict(gate="earlier", outcome="pass")
    (story,) = explain([sheet(1, outcome="fail", gates=(passed, verdict), effect=None)], RULES, now_block=30).tasks
    assert story.stopped_by == verdict
    assert story.advice == (ADVICE[gate],)


def test_a_validators_own_fault_is_not_the_miners(sheet):
    verdict = Verdict(gate="provenance", outcome="none", reason="503")
    (story,) = explain([sheet(1, outcome="none", gates=(verdict,), effect=None)], RULES, now_block=30).tasks
    assert "Nothing to change" in story.advice[0]


def test_what_was_paid_less_is_said(sheet):
    (story,) = explain([sheet(1, yield_ratio=0.4, time_factor=0.95)], RULES, now_block=30).tasks
    assert "40%" in story.advice[0] and "5.0% less" in story.advice[1]
    assert explain([sheet(1)], RULES, now_block=30).tasks[0].advice == ()


@pytest.mark.parametrize(
    ("effects", "said"),
    [
        ([0.02] * 12, "surely better"),
        ([-0.02] * 12, "worst in web"),
        ([-0.001] * 3, "cannot be told from canonical"),
        ([1e-7] * 3, "too little to be sure of"),
    ],
)
def test_where_the_data_stands_is_said(sheet, effects, said):
    sheets = [sheet(number, effect) for number, effect in enumerate(effects)]
    (advice,) = explain(sheets, RULES, now_block=40).advice
    assert said in advice


def test_how_many_tasks_it_takes_to_be_sure_is_true(sheet):
    sheets = [sheet(number, 0.003) for number in range(2)]
    (advice,) = explain(sheets, RULES, now_block=30).advice
    needed = int(advice.split("about ")[1].split()[0])
    assert account([judged(sheet(n, 0.003), RULES) for n in range(needed)], RULES, now_block=30).multiplier > 1
    assert account([judged(sheet(n, 0.003), RULES) for n in range(needed - 2)], RULES, now_block=30).multiplier == 1


def test_what_was_never_compared_is_paid_like_canonical(sheet):
    explanation = explain([sheet(1, effect=None)], RULES, now_block=30)
    assert "paid like canonical" in explanation.advice[0]
    assert formula(explanation.account, RULES.pay).endswith("= 1.000")


def test_failures_are_counted(sheet):
    failed = sheet(1, outcome="fail", gates=(Verdict(gate="form", outcome="fail", reason="x"),), effect=None)
    advice = explain([failed, *(sheet(n) for n in range(2, 6))], RULES, now_block=30).advice
    assert "1 of 5 tasks failed" in advice[0] and "-0.010" in advice[0]
