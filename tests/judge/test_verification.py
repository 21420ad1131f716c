"""A sheet that follows from its own numbers holds, and every change of a number that pay depends on shows."""

import pytest

from athena.errors import BadInput
from athena.judge import score
from athena.judge.proxy.comparison import LOW
from athena.judge.rules import TOLERANCE_BITS_PER_BYTE, rules_of
from athena.judge.verification import case_of, compared, recomputed
from athena.judge.view import domains, pay_curve, runs
from athena.protocol import Arm, Basis, Shard, Task, Verdict

RULES = rules_of("1")
DOMAINS = ("law", "news")
BASE = {"canonical": 1.00, "miner": 0.99, "canary-raw": 1.10, "canary-shuffled": 1.50}
SHARD = Shard(crawl="CC-MAIN-2026-43", warc_paths=("a.warc.gz", "b.warc.gz"))
TASK = Task(shard=SHARD, rule_version="1", opened_block=7)


def arms_of(case):
    """Runs with the seeds that the draws ask for."""
    proxy = RULES.proxy
    wanted = [(score.CANONICAL, proxy.canonical_seeds, ""), (score.RAW, proxy.canary_seeds, "")]
    wanted += [(score.SHUFFLED, proxy.canary_seeds, ""), (LOW[score.CANONICAL], 1, "")]
    wanted += [(score.MINER, proxy.miner_seeds, case.hotkey), (LOW[score.MINER], 1, case.hotkey)]
    return tuple(
        Arm(
            name=name, seed=case.arm_seed(name, number, owner), tokens=1,
            bits_per_byte={domain: BASE.get(name, 1.2) + 0.001 * number + 0.1 * i for i, domain in enumerate(DOMAINS)},
        )
        for name, seeds, owner in wanted
        for number in range(seeds)
    )  # fmt: skip


@pytest.fixture
def sheet(make_sheet):
    """What an honest validator says: committed late, three quarters of the tokens."""
    basis = Basis(
        shard=SHARD, opened_block=7, deadline_block=200, median_blocks=60, block_hash="0x" + "ab" * 32,
        reference_hash="0x" + "cd" * 32,
    )  # fmt: skip
    fields = {"task_id": TASK.id, "issued_block": 100, "commit_block": 180, "seed_block": 210, "basis": basis}
    bare = make_sheet(**fields, effect=None)
    arms = arms_of(case_of(bare))
    time = score.time_factor(80, 60, 100, RULES.pay)
    assert time < 1
    return bare.model_copy(
        update={
            "gates": (Verdict(gate="form", outcome="pass"), Verdict(gate="canaries", outcome="pass")),
            "arms": arms,
            "effect": score.effect_of_arms(arms, dict.fromkeys(DOMAINS, 0.001), RULES.pay),
            "yield_ratio": 0.75,
            "time_factor": time,
            "units": score.units(2, 0.75, time),
        }
    )


def test_an_honest_sheet_holds(sheet):
    assert recomputed(sheet, RULES) == []
    assert compared(sheet, sheet) == []


def effect(sheet, **changes):
    return sheet.model_copy(update={"effect": sheet.effect.model_copy(update=changes)})


def basis(sheet, **changes):
    return sheet.model_copy(update={"basis": sheet.basis.model_copy(update=changes)})


def better_miner(sheet):
    arms = [
        arm.model_copy(update={"bits_per_byte": {d: b - 0.01 for d, b in arm.bits_per_byte.items()}})
        if arm.name == "miner"
        else arm
        for arm in sheet.arms
    ]
    return sheet.model_copy(update={"arms": tuple(arms)})


@pytest.mark.parametrize(
    ("forged", "told"),
    [
        (lambda s: s.model_copy(update={"units": s.units + 0.1}), "units"),
        (lambda s: s.model_copy(update={"yield_ratio": 0.8}), "units"),
        (lambda s: s.model_copy(update={"time_factor": 1.0}), "time factor"),
        (lambda s: basis(s, median_blocks=90), "time factor"),
        (lambda s: basis(s, shard=Shard(crawl="CC-MAIN-2026-43", warc_paths=("a.warc.gz",))), "task"),
        (lambda s: basis(s, block_hash="0x" + "ef" * 32), "arms"),
        (lambda s: effect(s, mean=0.02), "effect, mean"),
        (lambda s: effect(s, low=0.0), "effect, low"),
        (lambda s: effect(s, by_domain={**s.effect.by_domain, "law": 0.5}), "effect on law"),
        (lambda s: effect(s, errors={}), "domains with errors"),
        (better_miner, "effect, mean"),
        (lambda s: s.model_copy(update={"arms": s.arms[:-1]}), "arms"),
        (lambda s: s.model_copy(update={"arms": (*s.arms, s.arms[-1])}), "arms"),
        (lambda s: s.model_copy(update={"arms": ()}), "effect"),
        (lambda s: s.model_copy(update={"effect": None}), "effect"),
        (lambda s: s.model_copy(update={"outcome": "fail"}), "outcome"),
        (lambda s: s.model_copy(update={"gates": (Verdict(gate="form", outcome="pass"),)}), "canaries"),
        (lambda s: s.model_copy(update={"gates": (Verdict(gate="form", outcome="fail"), *s.gates)}), "outcome"),
        (lambda s: s.model_copy(update={"gates": ()}), "outcome"),
    ],
)  # fmt: skip
def test_a_forged_number_shows(sheet, forged, told):
    assert told in [difference.what for difference in recomputed(forged(sheet), RULES)]


def test_arms_over_other_domains_show_and_break_nothing(sheet):
    odd = sheet.arms[0].model_copy(update={"bits_per_byte": {"other": 1.0}})
    assert [d.what for d in recomputed(sheet.model_copy(update={"arms": (odd, *sheet.arms[1:])}), RULES)] == ["arms"]


def test_a_sheet_that_does_not_say_what_it_rests_on_cannot_be_checked(sheet):
    with pytest.raises(BadInput, match="rests on"):
        recomputed(sheet.model_copy(update={"basis": None}), RULES)


def test_a_failed_sheet_has_neither_units_nor_effect(make_sheet, sheet):
    verdicts = (Verdict(gate="form", outcome="pass"), Verdict(gate="provenance", outcome="fail", reason="x"))
    bare = {"outcome": "fail", "gates": verdicts, "arms": (), "effect": None, "yield_ratio": 0.0, "units": 0.0}
    failed = sheet.model_copy(update=bare)
    assert recomputed(failed, RULES) == []
    assert [d.what for d in recomputed(failed.model_copy(update={"units": 1.0}), RULES)] == ["units"]


def moved(sheet, by):
    first, *rest = sheet.arms
    shifted = first.model_copy(update={"bits_per_byte": {d: b + by for d, b in first.bits_per_byte.items()}})
    return sheet.model_copy(update={"arms": (shifted, *rest)})


def test_two_judgements_agree_within_the_published_tolerance(sheet):
    assert compared(sheet, moved(sheet, 0.9 * TOLERANCE_BITS_PER_BYTE)) == []
    told = [difference.what for difference in compared(sheet, moved(sheet, 1.1 * TOLERANCE_BITS_PER_BYTE))]
    assert told == [f"arm canonical {sheet.arms[0].seed[:8]} on {domain}" for domain in DOMAINS]


def test_two_judgements_with_other_verdicts_differ(sheet):
    failed = sheet.model_copy(update={"outcome": "fail", "gates": (Verdict(gate="form", outcome="fail"),)})
    told = {difference.what for difference in compared(sheet, failed)}
    assert {"outcome", "gate form", "gate canaries"} <= told


def test_what_people_see_are_the_sheets_numbers(sheet):
    seen = domains(sheet, RULES)
    assert [domain.name for domain in seen] == sorted(DOMAINS)
    assert all(domain.low < domain.difference < domain.high for domain in seen)
    assert all(domain.difference == pytest.approx(domain.canonical - domain.miner) for domain in seen)
    assert [kind.name for kind in runs(sheet.arms)][:2] == ["miner", "canonical"]
    curve = pay_curve(sheet, RULES)
    assert curve.mean[0] <= curve.mean[-1] and curve.low[-1] <= curve.mean[-1] <= curve.high[-1]
    assert pay_curve(sheet.model_copy(update={"effect": None}), RULES) is None
