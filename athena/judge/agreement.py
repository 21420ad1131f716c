"""How far two datasets agree in what public recipes do not explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from athena.judge.public_work import PublicWork
from athena.judge.words import SHINGLE_WORDS, Hashes, ngram_hashes, words

_SAME = 0.95  # likeness of texts that differ by a placeholder or a short line
_ALIKE = 0.9
_NEARER = 0.8  # how far a text may be from the rival's, by how far it is from the nearest public one

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Page:
    """One record: its text in a set, in its rival, and in canonical work; null where one of them does not keep it."""

    offset: int
    length: int
    mine: str | None
    theirs: str | None
    canonical: str | None


@dataclass(frozen=True)
class Agreement:
    """With a rival, by shares: of the set's rows, those that are equal; of its texts that public work does not explain,
    those that are the rival's; of decisions, beyond chance, those that are alike."""

    equal_rows: float
    texts: float
    decisions: float


def agreement(works: Sequence[tuple[Page, PublicWork]], at_least: int) -> Agreement:
    """Of pages, each with what public work makes of it. Fewer departures from it than `at_least` say nothing: 0."""
    rows = [page for page, _ in works if page.mine is not None]
    equal = sum(page.mine == page.theirs for page in rows)
    return Agreement(equal / len(rows) if rows else 0.0, _texts(works, at_least), _decisions(works, at_least))


def _texts(works: Sequence[tuple[Page, PublicWork]], at_least: int) -> float:
    """Of the set's texts that are like no public one: the share that is like the rival's, and clearly nearer to it."""
    own = taken = 0
    for page, work in works:
        if page.mine is None:
            continue
        mine = shingles(page.mine)
        public = [shingles(text) for text in (page.canonical, *work.texts) if text is not None]
        nearest = max((likeness(mine, text) for text in public), default=0.0)
        if nearest >= _SAME:
            continue
        own += 1
        rival = likeness(mine, shingles(page.theirs)) if page.theirs is not None else 0.0
        taken += rival >= _ALIKE and 1 - rival <= _NEARER * (1 - nearest)
    return taken / own if own >= at_least else 0.0


def _decisions(works: Sequence[tuple[Page, PublicWork]], at_least: int) -> float:
    """Kappa of where the set and its rival depart from what a recipe keeps: the smallest over canonical and all public
    recipes."""
    mine = np.array([page.mine is not None for page, _ in works], dtype=bool)
    theirs = np.array([page.theirs is not None for page, _ in works], dtype=bool)
    recipes = [tuple(page.canonical is not None for page, _ in works)]
    recipes += zip(*(work.kept for _, work in works), strict=True)
    smallest = 1.0
    for flags in recipes:
        kept = np.array(flags, dtype=bool)
        enough = np.count_nonzero(mine != kept) >= at_least
        smallest = min(smallest, kappa(mine != kept, theirs != kept) if enough else 0.0)
    return smallest


def kappa(first: Flags, second: Flags) -> float:
    """How far two judges agree beyond chance: 1 always, 0 or less no more than by chance (Cohen 1960)."""
    if not len(first):
        return 0.0
    one, two = float(first.mean()), float(second.mean())
    chance = one * two + (1 - one) * (1 - two)
    return (float((first == second).mean()) - chance) / (1 - chance) if chance < 1 else 0.0


def shingles(text: str) -> Hashes:
    """The distinct runs of five words of a text, sorted. A shorter text is one run."""
    tokens = words(text)
    return np.unique(ngram_hashes(tokens, max(1, min(SHINGLE_WORDS, len(tokens)))))


def likeness(first: Hashes, second: Hashes) -> float:
    """Jaccard similarity of the shingles of two texts."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    either = len(first) + len(second) - both
    return both / either if either else 1.0
