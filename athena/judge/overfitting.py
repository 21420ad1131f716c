"""The alarm of the sealed half: who gains on the published texts, and not on texts that nobody could see. Pure.

Data that teaches helps on both halves alike, since passages went to them at random. Data chosen to resemble the
published half helps there alone, and then the pack has lost its worth and is to be retired.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from athena.errors import BadInput
from athena.judge.rules import PayRules
from athena.protocol import ScoreSheet

MIN_PAIRS = 3
"""Datasets of one hotkey, or hotkeys, before anything is said of them."""
EVERYBODY = "*"
_LEVEL = 0.05


@dataclass(frozen=True)
class Gain:
    """The effect of one dataset on each half, in bits per byte."""

    hotkey: str
    public: float
    sealed: float


@dataclass(frozen=True)
class Excess:
    """How much more one hotkey, or EVERYBODY, gains on the public half: bits per byte, with its lower bound."""

    hotkey: str
    pairs: int
    mean: float
    low: float

    def __str__(self) -> str:
        who = "everybody" if self.hotkey == EVERYBODY else self.hotkey
        return f"{who} gains {self.mean:.4f} bits per byte more on its public half, at least {self.low:.4f}"

    def overfits(self, rules: PayRules) -> bool:
        """More than chance and the halves' own difference explain. That is below a tenth of the effect that earns the
        whole bonus: four standard errors of a mean over 4,000 documents whose effects spread by 0.03."""
        return self.low > rules.scale / 10


def paired(public: Iterable[ScoreSheet], sealed: Iterable[ScoreSheet]) -> list[Gain]:
    """The effects of the datasets that have a sheet with one on each half; of several sheets, their mean.

    All sheets of a half are to be of one pack. Raises BadInput where they are not.
    """
    first, second = _effects(public), _effects(sealed)
    return [Gain(key[0], first[key], second[key]) for key in sorted(first.keys() & second.keys())]


def _effects(sheets: Iterable[ScoreSheet]) -> dict[tuple[str, str, str], float]:
    effects: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    packs = set()
    for sheet in sheets:
        packs.add(sheet.eval_pack)
        if sheet.effect is not None:
            effects[sheet.hotkey, sheet.task_id, sheet.dataset.root].append(sheet.effect.mean)
    if len(packs) > 1:
        raise BadInput(f"sheets of {len(packs)} evaluation packs are mixed", remedy="give those of one pack")
    return {key: math.fsum(values) / len(values) for key, values in effects.items()}


def watched(gains: Sequence[Gain]) -> list[Excess]:
    """The `excesses` of gains that keep coming, in the order in which they came, as of the last look.

    There is one whenever their number has doubled, from 8 on. Whoever looks often finds something in the end: the k-th
    look has 1 / (k (k + 1)) of the level, all of them together the whole.
    """
    look = len(gains).bit_length() - 3
    return excesses(gains[: 4 << look], _LEVEL / (look * (look + 1))) if look > 0 else []


def excesses(gains: Iterable[Gain], level: float = _LEVEL) -> list[Excess]:
    """One for EVERYBODY, of the hotkeys' means, and one a hotkey, each where it has MIN_PAIRS.

    Lower bounds are one-sided, Student's, at `level` over all of them (Bonferroni). All gains are to be given, not only
    those that stand out: a difference that was picked for its size is mostly luck.
    """
    by_hotkey: dict[str, list[float]] = defaultdict(list)
    for gain in gains:
        by_hotkey[gain.hotkey].append(gain.public - gain.sealed)
    groups = {EVERYBODY: [math.fsum(values) / len(values) for values in by_hotkey.values()], **by_hotkey}
    told = {hotkey: values for hotkey, values in groups.items() if len(values) >= MIN_PAIRS}
    return [_excess(hotkey, values, level / len(told)) for hotkey, values in sorted(told.items())]


def _excess(hotkey: str, values: Sequence[float], level: float) -> Excess:
    mean = math.fsum(values) / len(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Excess(hotkey, len(values), mean, mean - float(student.ppf(1 - level, len(values) - 1)) * error)
