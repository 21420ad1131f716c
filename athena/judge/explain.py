"""Why a hotkey earns what it earns: its sheets gate by gate, the pay formula's numbers, and what to change. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from athena.judge.rules import PayRules, Rules
from athena.judge.weights import Account, Judged, account, judged, last_of_each_task
from athena.protocol import Hotkey, ScoreSheet, Verdict

ADVICE = {
    "form": "Publish what you committed to: the files, checksums and Merkle root of the manifest, at that revision, as "
    "`athena miner` does it.",
    "provenance": "Keep every text as the page has it, in order. Remove lines, do not write any; only the anonymiser's "
    "placeholders may stand for others.",
    "completeness": "A set that names the canonical recipe must hold what that makes: refine all records of the shard, "
    "or name a recipe of your own.",
    "duplicates": "Drop documents that repeat others of the set, also in near-identical form.",
    "copies": "Refine the shard that you leased yourself. Who commits before another set of it lies open, or runs a "
    "public recipe, cannot be taken for a copier.",
    "known": "Refine the pages yourself, and keep others than those of the release that the reason names.",
    "contamination": "Leave out pages that quote evaluation texts.",
    "privacy": "Leave out pages of domains that opted out, and mask contacts, account numbers and keys.",
    "language": "Keep prose in the languages of the rules, and label it as fastText's lid.176 does.",
    "screens": "Drop boilerplate that repeats from page to page, and text that is no prose.",
    "proxy": "Nothing to change: this validator found its own measurement out of order and tries again.",
}
_OWN_FAULT = "Nothing to change: the validator could not tell and tries again; meanwhile your pay does not decay."
_LOW_YIELD = 0.9
_MAX_TASKS = 200
_ENOUGH_DOMAINS = 3


@dataclass(frozen=True)
class TaskStory:
    """What one validator found about one task, and what to change, empty where nothing."""

    sheet: ScoreSheet
    stopped_by: Verdict | None
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """One validator's view of a hotkey: its pay, its tasks, the newest first, and advice about all of them."""

    validator: Hotkey
    account: Account
    tasks: tuple[TaskStory, ...]
    advice: tuple[str, ...]


def explain(sheets: Sequence[ScoreSheet], rules: Rules, *, now_block: int) -> Explanation:
    """Of one validator's sheets about one hotkey, at least one of them. What was never revealed has no sheet."""
    sheet_of = {judged(sheet, rules): sheet for sheet in sheets}
    kept = (sheet_of[entry] for entry in last_of_each_task(sheet_of))
    newest = sorted(kept, key=lambda sheet: (-sheet.seed_block, sheet.task_id))
    entries = [judged(sheet, rules) for sheet in newest]
    found = account(entries, rules, now_block=now_block)
    advice = _about_pay(found, entries, newest, rules, now_block)
    return Explanation(newest[0].validator, found, tuple(map(_story, newest)), advice)


def _story(sheet: ScoreSheet) -> TaskStory:
    stopped_by = next((verdict for verdict in sheet.gates if verdict.outcome != "pass"), None)
    advice = []
    if stopped_by is not None:
        ours = stopped_by.outcome == "none"
        advice.append(_OWN_FAULT if ours else ADVICE.get(stopped_by.gate, "See the reason of the verdict."))
    elif sheet.outcome == "pass":
        if sheet.yield_ratio < _LOW_YIELD:
            advice.append(
                f"You kept {sheet.yield_ratio:.0%} of the unique tokens that the canonical recipe keeps, and yield is "
                "paid in proportion: filter less, or only what harms."
            )
        if sheet.time_factor < 1:
            advice.append(f"It was committed later than most: {1 - sheet.time_factor:.1%} less pay.")
    return TaskStory(sheet, stopped_by, tuple(advice))


def _about_pay(
    found: Account, entries: Sequence[Judged], sheets: Sequence[ScoreSheet], rules: Rules, now_block: int
) -> tuple[str, ...]:
    if found.quality is None or found.spread is None:
        return ("No task was compared yet, so work is paid like canonical work.",)
    failed = sum(entry.outcome == "fail" for entry in entries)
    advice = []
    if failed:
        advice.append(
            f"{failed} of {len(entries)} tasks failed: they pay nothing, and each counts as an effect of "
            f"{rules.pay.abandoned_effect:+.3f} until it decays."
        )
    if found.multiplier < 1:
        worst = ", ".join(_worst_domains(sheets))
        advice.append(
            f"The data is surely worse than canonical, and M is below 1{f'; worst in {worst}' if worst else ''}. The "
            "canonical recipe would be paid 1."
        )
    elif found.multiplier > 1:
        advice.append("The data is surely better than canonical: M is above 1.")
    else:
        advice.append(_when_sure(found, entries, rules, now_block))
    return tuple(advice)


def _when_sure(found: Account, entries: Sequence[Judged], rules: Rules, now_block: int) -> str:
    """How many tasks like these would show a difference."""
    assert found.quality is not None
    if found.quality <= 0:
        return "The data cannot be told from canonical, which is paid 1."
    measured = [entry for entry in entries if entry.effect is not None]
    for copies in range(2, _MAX_TASKS // len(measured) + 1):
        more = [replace(entry, task_id=f"{entry.task_id}-{copy}") for entry in measured for copy in range(copies)]
        if account(more, rules, now_block=now_block).multiplier > 1:
            return f"It looks better than canonical, but not surely: about {len(more)} such tasks would show it."
    return "It looks a little better than canonical, by too little to be sure of."


def _worst_domains(sheets: Sequence[ScoreSheet]) -> list[str]:
    """Domains in which the data is worse on average over tasks, the worst first."""
    effects = [sheet.effect.by_domain for sheet in sheets if sheet.outcome == "pass" and sheet.effect is not None]
    domains = {domain for effect in effects for domain in effect}
    means = {domain: _mean([effect[domain] for effect in effects if domain in effect]) for domain in domains}
    return sorted((domain for domain in means if means[domain] < 0), key=lambda domain: (means[domain], domain))[
        :_ENOUGH_DOMAINS
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def formula(found: Account, rules: PayRules) -> str:
    """The pay formula with a hotkey's numbers, one line."""
    if found.quality is None or found.spread is None:
        return f"W = M · Σ a·u = 1 · {found.units:.3f} = {found.weight:.3f}"
    better, worse = found.quality - rules.confidence * found.spread, found.quality + rules.confidence * found.spread
    return (
        f"q = {found.quality:+.5f}, s = {found.spread:.5f}, between {better:+.5f} and {worse:+.5f} bits per byte; "
        f"M = {found.multiplier:.3f}; W = M · Σ a·u = {found.multiplier:.3f} · {found.units:.3f} = {found.weight:.3f}"
    )
