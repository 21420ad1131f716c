"""A published score sheet, worked out again: from its own numbers, and from the data that it is about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from athena.errors import BadInput
from athena.judge import score
from athena.judge.evidence import Case, Rival
from athena.judge.proxy.comparison import LOW
from athena.judge.rules import TOLERANCE_BITS_PER_BYTE, Rules
from athena.protocol import Arm, Basis, Commitment, ScoreSheet, Task

_CANARIES = "canaries"
_EXACT = 1e-9
"""For numbers that are worked out in the same way from the same ones: platforms differ in the last bit."""


@dataclass(frozen=True)
class Difference:
    """Something that a sheet states and that came out otherwise."""

    what: str
    stated: str
    found: str


def basis_of(sheet: ScoreSheet) -> Basis:
    """Raises BadInput for a sheet that does not say what it rests on."""
    if sheet.basis is None:
        raise BadInput("the sheet does not say what it rests on", remedy="ask its validator to upgrade")
    return sheet.basis


def case_of(sheet: ScoreSheet, rivals: Iterable[Rival] = ()) -> Case:
    """The case that a sheet is about, held against `rivals`. Raises BadInput where it does not say enough."""
    basis = basis_of(sheet)
    task = Task(shard=basis.shard, rule_version=sheet.rule_version, opened_block=basis.opened_block)
    return Case(
        task=task,
        commitment=Commitment(dataset=sheet.dataset, task_id=sheet.task_id, hotkey=sheet.hotkey),
        issued_block=sheet.issued_block,
        deadline_block=basis.deadline_block,
        commit_block=sheet.commit_block,
        seed_block=sheet.seed_block,
        block_hash=basis.block_hash,
        reference_hash=basis.reference_hash,
        rivals=tuple(rivals),
        median_blocks=basis.median_blocks,
    )


def recomputed(sheet: ScoreSheet, rules: Rules) -> list[Difference]:
    """What in a sheet does not follow from the rest of it: task, verdict, seeds, effect, time factor and units.

    Neither signature nor data are looked at. Raises BadInput where it does not say what it rests on.
    """
    case = case_of(sheet)
    arms = list(_arms(sheet, case, rules))
    return [
        *_differs("task", sheet.task_id, case.task.id),
        *_differs("outcome", sheet.outcome, _outcome(sheet)),
        *(arms or _effect(sheet, rules)),  # an effect of the wrong arms says nothing
        *_pay(sheet, case, rules),
    ]


def compared(stated: ScoreSheet, found: ScoreSheet) -> list[Difference]:
    """Where two judgements of one case differ: gates, yield, arms and effect, these by TOLERANCE_BITS_PER_BYTE."""
    result = list(_differs("outcome", stated.outcome, found.outcome))
    verdicts = [{verdict.gate: verdict.outcome for verdict in sheet.gates} for sheet in (stated, found)]
    for gate in dict.fromkeys([*verdicts[0], *verdicts[1]]):
        result += _differs(f"gate {gate}", verdicts[0].get(gate, "not asked"), verdicts[1].get(gate, "not asked"))
    result += _apart("yield", stated.yield_ratio, found.yield_ratio, _EXACT)
    result += _apart("units", stated.units, found.units, _EXACT)
    arms = [{(arm.name, arm.seed): arm for arm in sheet.arms} for sheet in (stated, found)]
    for key in dict.fromkeys([*arms[0], *arms[1]]):
        what = f"arm {key[0]} {key[1][:8]}"
        mine, other = arms[0].get(key), arms[1].get(key)
        if mine is None or other is None:
            result += _differs(what, "absent" if mine is None else "trained", "absent" if other is None else "trained")
        else:
            result += _by_domain(what, mine.bits_per_byte, other.bits_per_byte, TOLERANCE_BITS_PER_BYTE)
    if stated.effect is not None and found.effect is not None:
        result += _apart("effect", stated.effect.mean, found.effect.mean, TOLERANCE_BITS_PER_BYTE)
    return result


def _outcome(sheet: ScoreSheet) -> str:
    """That the verdicts make: each but the last passed."""
    if not sheet.gates or any(verdict.outcome != "pass" for verdict in sheet.gates[:-1]):
        return "no order of verdicts"
    return sheet.gates[-1].outcome


def _arms(sheet: ScoreSheet, case: Case, rules: Rules) -> Iterator[Difference]:
    """That the arms are those that the draws ask for, none more and none fewer, and what the canaries say."""
    if not sheet.arms:
        return
    reference = {
        (name, case.arm_seed(name, number))
        for name, seeds in (
            (score.CANONICAL, rules.proxy.canonical_seeds), (score.RAW, rules.proxy.canary_seeds),
            (score.SHUFFLED, rules.proxy.canary_seeds), (LOW[score.CANONICAL], 1),
        )
        for number in range(seeds)
    }  # fmt: skip
    own = {
        (name, case.arm_seed(name, number, case.hotkey))
        for name, seeds in ((score.MINER, rules.proxy.miner_seeds), (LOW[score.MINER], 1))
        for number in range(seeds)
    }
    domains = {frozenset(arm.bits_per_byte) for arm in sheet.arms}
    stated = sorted((arm.name, arm.seed) for arm in sheet.arms)
    if stated not in (sorted(reference), sorted(reference | own)) or len(domains) != 1:
        yield Difference("arms", _named(sheet.arms), "those that the draws ask for")
        return
    said = next((verdict.outcome for verdict in sheet.gates if verdict.gate == _CANARIES), "not asked")
    found = score.canaries(sheet.arms, rules).outcome
    yield from _differs("canaries", said, found)
    yield from _differs("arms of the miner", _is_there(stated != sorted(reference)), _is_there(found == "pass"))


def _effect(sheet: ScoreSheet, rules: Rules) -> Iterator[Difference]:
    is_compared = sheet.outcome == "pass" and bool(score.arms_named(sheet.arms, score.MINER))
    if sheet.effect is None or not is_compared or not score.arms_named(sheet.arms, score.CANONICAL):
        yield from _differs("effect", _is_there(sheet.effect is not None), _is_there(is_compared))
        return
    found = score.effect_of_arms(sheet.arms, sheet.effect.errors, rules.pay)
    for name in ("mean", "low", "high"):
        yield from _apart(f"effect, {name}", getattr(sheet.effect, name), getattr(found, name), _EXACT)
    yield from _by_domain("effect", sheet.effect.by_domain, found.by_domain, _EXACT)
    yield from _differs("domains with errors", str(sorted(sheet.effect.errors)), str(sorted(found.by_domain)))


def _pay(sheet: ScoreSheet, case: Case, rules: Rules) -> Iterator[Difference]:
    time = case.time_factor(rules.pay)
    yield from _apart("time factor", sheet.time_factor, time, _EXACT)
    passed = sheet.outcome == "pass"
    units = score.units(len(case.task.shard.warc_paths), sheet.yield_ratio, time) if passed else 0.0
    yield from _apart("units", sheet.units, units, _EXACT)
    if not 0.0 <= sheet.yield_ratio <= 1.0:
        yield Difference("yield", f"{sheet.yield_ratio:.6g}", "0 to 1")


def _by_domain(what: str, stated: Mapping[str, float], found: Mapping[str, float], most: float) -> Iterator[Difference]:
    yield from _differs(f"domains of {what}", str(sorted(stated)), str(sorted(found)))
    for domain in sorted(stated.keys() & found.keys()):
        yield from _apart(f"{what} on {domain}", stated[domain], found[domain], most)


def _apart(what: str, stated: float, found: float, most: float) -> Iterator[Difference]:
    """Not a number lies apart from everything."""
    if not math.isclose(stated, found, rel_tol=0.0, abs_tol=most):
        yield Difference(what, f"{stated:.6g}", f"{found:.6g}")


def _differs(what: str, stated: str, found: str) -> Iterator[Difference]:
    if stated != found:
        yield Difference(what, stated, found)


def _is_there(there: bool) -> str:
    return "given" if there else "none"


def _named(arms: Iterable[Arm]) -> str:
    return ", ".join(sorted(f"{arm.name} {arm.seed[:8]}" for arm in arms))
