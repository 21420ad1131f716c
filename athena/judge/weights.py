"""Histories to weights: the pay formula. Pure: no clock, network, disk or torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from athena.errors import BadInput
from athena.judge.rules import Rules
from athena.judge.score import clip, credited
from athena.protocol import MAX_BITS_PER_BYTE, MAX_WARCS_PER_SHARD, Outcome, ScoreSheet


@dataclass(frozen=True)
class Judged:
    """What one task adds to a hotkey's pay. `effect` is None where no proxy could compare anything.

    A failed or abandoned task has no units and the rules' `abandoned_effect`. Raises BadInput for numbers that no sheet
    can hold: one that is not finite would spoil everybody's weights.
    """

    task_id: str
    block: int
    outcome: Outcome
    units: float = 0.0
    effect: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.units <= MAX_WARCS_PER_SHARD:
            raise BadInput(f"{self.units} units of task {self.task_id}, not 0 to {MAX_WARCS_PER_SHARD}")
        if self.effect is not None and not abs(self.effect) <= MAX_BITS_PER_BYTE:
            raise BadInput(f"an effect of {self.effect} on task {self.task_id}, over {MAX_BITS_PER_BYTE} bits per byte")


@dataclass(frozen=True)
class Account:
    """How one hotkey's pay came about: `weight` = `multiplier` · `units`, before normalising over hotkeys.

    `quality` is the shrunk effect q and `spread` its standard deviation s, both None without a measured effect.
    """

    units: float
    quality: float | None
    spread: float | None
    multiplier: float

    @property
    def weight(self) -> float:
        return self.multiplier * self.units


@dataclass(frozen=True)
class Payout:
    """`weights` by hotkey sum to 1, and `burn` is false; or nobody earned: `weights` is empty and `burn` is true."""

    weights: dict[str, float]
    burn: bool
    accounts: dict[str, Account]


def judged(sheet: ScoreSheet, rules: Rules) -> Judged:
    """A sheet's entry in its hotkey's history, dated by the commitment."""
    if sheet.outcome != "pass":
        effect = rules.pay.abandoned_effect if sheet.outcome == "fail" else None
        return Judged(sheet.task_id, sheet.commit_block, sheet.outcome, effect=effect)
    found = credited(sheet.effect, rules) if sheet.effect is not None else None
    return Judged(sheet.task_id, sheet.commit_block, "pass", units=sheet.units, effect=found)


def abandoned(task_id: str, block: int, rules: Rules) -> Judged:
    """A task that was leased, then abandoned, expired, or never revealed; `block` is its deadline."""
    return Judged(task_id, block, "fail", effect=rules.pay.abandoned_effect)


def pay(
    history: Mapping[str, Sequence[Judged]],
    rules: Rules,
    *,
    now_block: int,
    registered: Mapping[str, int] | None = None,
) -> Payout:
    """Weights of all hotkeys at `now_block`.

    `registered` maps hotkeys to their registration blocks: older entries belonged to someone else's slot and do not
    count, nor does a hotkey that it does not name. None counts everything. Order and duplicates of a task's entries do
    not matter: the entry with the largest block wins, so that a verdict replaces the one still owed.
    """
    accounts = {}
    for hotkey in sorted(history):
        if registered is not None and hotkey not in registered:
            continue
        since = registered[hotkey] if registered is not None else 0
        entries = last_of_each_task(entry for entry in history[hotkey] if entry.block >= since)
        accounts[hotkey] = account(entries, rules, now_block=now_block)
    total = math.fsum(a.weight for a in accounts.values())
    if not total > 0:
        return Payout({}, True, accounts)
    shares = {hotkey: a.weight / total for hotkey, a in accounts.items()}
    return Payout({hotkey: share for hotkey, share in shares.items() if share > 0}, False, accounts)


def account(entries: Sequence[Judged], rules: Rules, *, now_block: int) -> Account:
    """One hotkey's units, shrunk effect and multiplier. Entries with outcome none only pause the decay."""
    owed = [now_block - entry.block for entry in entries if entry.outcome == "none"]
    pause = int(clip(max(owed, default=0), 0, rules.pay.max_pause_blocks))
    settled = [entry for entry in entries if entry.outcome != "none"]
    ages = {entry.task_id: max(0, now_block - entry.block - pause) for entry in settled}
    decay = {task: 0.5 ** (age / rules.pay.half_life_blocks) for task, age in ages.items()}
    units = math.fsum(decay[entry.task_id] * entry.units for entry in settled)
    quality, spread = _shrunk([(decay[e.task_id], e.effect) for e in settled if e.effect is not None], rules)
    return Account(units, quality, spread, multiplier(quality, spread, rules))


def _shrunk(measured: Sequence[tuple[float, float]], rules: Rules) -> tuple[float | None, float | None]:
    """(q, s) of decayed effects: their mean, shrunk towards zero by how little it is sure of."""
    total = math.fsum(a for a, _ in measured)
    if not total > 0:
        return None, None
    p, proxy = rules.pay, rules.proxy
    shares = [(a / total, effect) for a, effect in measured]  # before squaring: a² of ages ago is no number any more
    observed = math.fsum(share * effect for share, effect in shares)
    one_task = p.sigma_seed**2 * (1 / proxy.miner_seeds + 1 / proxy.canonical_seeds) + p.sigma_task**2
    variance = one_task * math.fsum(share * share for share, _ in shares)
    quality = observed * p.prior**2 / (p.prior**2 + variance)
    return quality, (1 / p.prior**2 + 1 / variance) ** -0.5


def multiplier(quality: float | None, spread: float | None, rules: Rules) -> float:
    """M: 1 for canonical work, up to 1 + bonus for surely better, down to 0 for surely worse."""
    if quality is None or spread is None:
        return 1.0
    p = rules.pay
    better = clip((quality - p.confidence * spread) / p.scale, 0.0, 1.0)
    worse = clip(-(quality + p.confidence * spread) / p.scale, 0.0, 1.0)
    return max(0.0, 1.0 + p.bonus * better - p.malus * worse)


def last_of_each_task(entries: Iterable[Judged]) -> list[Judged]:
    """One entry per task in a fixed order: the latest, and of equally late ones a settled one."""
    last: dict[str, Judged] = {}
    for entry in sorted(entries, key=_standing):
        last[entry.task_id] = entry
    return [last[task] for task in sorted(last)]


def _standing(entry: Judged) -> tuple[int, bool, bool, float, float]:
    """What orders a task's entries, down to the last number, so that the order of reading never decides."""
    effect = -math.inf if entry.effect is None else entry.effect
    return entry.block, entry.outcome != "none", entry.outcome == "fail", entry.units, effect
