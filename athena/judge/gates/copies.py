"""Rows taken from another miner's dataset that lay open before this one was committed to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from athena import draw
from athena.judge.agreement import Agreement, Page, agreement, shingles
from athena.judge.evidence import Evidence, Rival, Rows
from athena.judge.public_work import PublicWork
from athena.judge.rules import GateRules
from athena.judge.verdicts import failed, passed
from athena.protocol import Verdict

GATE = "copies"
_REPEATED = 0.5  # of a row's shingles: about where the search for near-duplicates begins to drop rows


def check(evidence: Evidence) -> Verdict:
    """Whether the set agrees with an earlier one in what public work does not explain.

    `Case.rivals` are the sets that lay open before this one was committed to: what was still sealed cannot have been
    copied. Honest miners of one WARC file agree on most rows, for they extract the same pages, and on all of them
    where both run one public recipe; so equal rows prove nothing. What does, in records drawn from the drawn file:

    - of texts that are like no public extractor's, over `max_copied_texts` are the rival's;
    - decisions (to keep what a public recipe drops, or the reverse) agree with the rival's by more than
      `max_copied_decisions`, beyond chance, whichever public recipe both are held against.

    A copy with some rows or lines less shows as well. Raises Unavailable where the crawl does not answer.
    """
    found: dict[str, dict[str, float]] = {}
    for rival in _readable(evidence):
        theirs = evidence.rival_rows(rival).of_warc(evidence.warc)
        if not theirs.count or not evidence.drawn.count:
            continue
        shares = _agreement(evidence, rival, theirs)
        found[f"{rival.hotkey}/{rival.task_id}"] = named = {
            "equal_rows": shares.equal_rows, "texts": shares.texts, "decisions": shares.decisions,
        }  # fmt: skip
        if _is_copy(shares, evidence.rules.gates):
            return failed(GATE, "what no public recipe explains is an earlier set's", rival=rival.hotkey, **named)
    return passed(GATE, rivals=dict(found))


def _readable(evidence: Evidence) -> Iterator[Rival]:
    case = evidence.case
    return (r for r in case.rivals if r.hotkey != case.hotkey and r.commit_block < case.commit_block)


def _is_copy(shares: Agreement, rules: GateRules) -> bool:
    return shares.texts > rules.max_copied_texts or shares.decisions > rules.max_copied_decisions


def _agreement(evidence: Evidence, rival: Rival, theirs: Rows) -> Agreement:
    """Canonical work explains most honest sets. What other public recipes make is looked at where it does not."""
    rules = evidence.rules.gates
    pages = _drawn_pages(evidence, rival, theirs)
    at_least = max(rules.min_departing_rows, math.ceil(rules.min_departing_share * len(pages)))
    found = agreement([(page, PublicWork((), ())) for page in pages], at_least)
    if not found.texts and not _is_copy(found, rules):
        return found
    repeats = _repeats_of_earlier_files(evidence, pages)
    told = [page for page in pages if page.offset not in repeats]
    works = evidence.public_work(evidence.warc, [(page.offset, page.length) for page in told])
    decided = [(page, work) for page, work in zip(told, works, strict=True) if work is not None]
    return agreement(decided, at_least)


def _drawn_pages(evidence: Evidence, rival: Rival, theirs: Rows) -> list[Page]:
    """Drawn from the records that the set, its rival or canonical work has a row of, without those that this validator
    could not decide."""
    sides = (evidence.drawn, theirs, evidence.canonical)
    places = [dict(zip(rows.offsets, range(rows.count), strict=True)) for rows in sides]
    offsets = sorted(set().union(*places) - evidence.canonical.undecided)
    chosen = draw.sample(evidence.seed("copies", rival.hotkey), len(offsets), evidence.rules.gates.compared_rows)
    pages = []
    for offset in (offsets[index] for index in chosen):
        own, other, canonical = (_row(side, at.get(offset)) for side, at in zip(sides, places, strict=True))
        length = (canonical or own or other)["warc_length"]
        pages.append(Page(offset, length, own.get("text"), other.get("text"), canonical.get("text")))
    return pages


def _row(rows: Rows, index: int | None) -> dict[str, Any]:
    """Empty where there is none."""
    return {} if index is None else next(rows.at([index]))


def _repeats_of_earlier_files(evidence: Evidence, pages: Sequence[Page]) -> set[int]:
    """Rows of canonical work that neither set has, most of whose text the set has in files before.

    Recipes drop near-duplicates over the whole shard, and this validator runs them on one file: that both sets lack
    such rows is the recipe's doing.
    """
    missing = {
        page.offset: shingles(page.canonical)
        for page in pages
        if page.canonical is not None and page.mine is None and page.theirs is None
    }
    if not missing:
        return set()
    wanted = np.unique(np.concatenate(list(missing.values())))
    seen = np.zeros(len(wanted), dtype=bool)
    for path in itertools.takewhile(lambda path: path != evidence.warc, evidence.case.task.shard.warc_paths):
        for text in evidence.rows.of_warc(path).texts():
            seen |= np.isin(wanted, shingles(text), assume_unique=True)
    shares = {offset: seen[np.searchsorted(wanted, hashes)] for offset, hashes in missing.items()}
    return {offset for offset, found in shares.items() if len(found) and found.mean() >= _REPEATED}
