"""The sealed half of a pack, held by this validator: the same models are measured on both halves, for an alarm alone.

What they get on texts that nobody may see stays in this validator's own files: it decides no verdict and no weight, and
no sheet has it. Whose gains are of the published half alone is said to the validator, who can have the pack retired.
"""

from __future__ import annotations

import logging

from athena.errors import AthenaError
from athena.evalpack import PackShelf
from athena.judge import score
from athena.judge.assess import Bench
from athena.judge.evidence import Case
from athena.judge.overfitting import Excess, Gain, watched
from athena.judge.proxy.comparison import Comparison, measured_on
from athena.judge.queue import CaseQueue
from athena.judge.rules import rules_of
from athena.protocol import ScoreSheet

log = logging.getLogger("athena.validator")


def overfitting(queue: CaseQueue) -> list[Excess]:
    """Who gains on the public half of the pack last measured on more than on its sealed half, by what is kept."""
    kept = queue.gains()
    if kept is None:
        return []
    rules = rules_of(kept.rule_version).pay
    return [excess for excess in watched([Gain(*row) for row in kept.effects]) if excess.overfits(rules)]


class SealedHalves:
    """Measures the arms of cases on the sealed halves in `shelf` too, and raises the alarm. Threads may share it."""

    def __init__(self, shelf: PackShelf) -> None:
        self._shelf = shelf
        self._told: tuple[str, ...] = ()

    def hear(self, queue: CaseQueue, case: Case, bench: Bench, sheet: ScoreSheet, found: Comparison) -> None:
        """Keeps the gain of a case that passed, on both halves, and tells whoever looks where it is not the first one.

        A case of a pack whose sealed half is not here says nothing, nor does one that cannot be measured now: the
        alarm never keeps a verdict waiting.
        """
        if sheet.outcome != "pass" or sheet.effect is None or bench.workers is None:
            return
        try:
            sealed = self._shelf.sealed_half_of(bench.pack)
            if sealed is None:
                return
            rules, folder = bench.rules, bench.made / "arms"
            measured = measured_on(sealed, found, case, rules.proxy, bench.workers, folder)
        except (AthenaError, OSError) as error:
            log.warning("task %s is not measured on the sealed half: %s", case.task.id[:8], error)
            return
        gained = score.effect(measured, rules.pay, case.seed("bootstrap")).mean
        queue.keep_gain(
            case.key, pack=bench.pack.hash, rule_version=rules.version, hotkey=case.hotkey, public=sheet.effect.mean,
            sealed=gained,
        )  # fmt: skip
        self._tell(queue, bench)

    def _tell(self, queue: CaseQueue, bench: Bench) -> None:
        """Says each change of who overfits once."""
        alarmed = overfitting(queue)
        hotkeys = tuple(excess.hotkey for excess in alarmed)
        if hotkeys == self._told:
            return
        self._told = hotkeys
        bench.events.emit("validator.overfitting", pack=bench.pack.hash, hotkeys=hotkeys)
        for excess in alarmed:
            log.error("evaluation pack %s is to be retired: %s", bench.pack.hash[:16], excess)
