"""Gate 4: repetition inside the set, and text taken from other miners' sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from athena.judge.evidence import Evidence, Rows
from athena.judge.verdicts import failed, passed
from athena.judge.words import SHINGLE_WORDS, ngrams, words
from athena.protocol import Verdict

GATE = "duplicates"
_SEEN_SHARE = 0.8  # a document this much of which came before is a copy: MinHash pairs documents at similarity 0.75


def check(evidence: Evidence) -> Verdict:
    """Share of unique text in the set, then the overlap with each rival's earlier set.

    Two miners of one shard extract the same pages, so equal text there is expected and recorded, byte-equality with
    canonical included; that nobody could read the earlier set before its deadline is what keeps it from being copied.
    Another task's shard has other WARC files, so most rows equal to an earlier set of another task are copies.
    """
    rules = evidence.rules.gates
    share = unique_share(evidence.rows.texts())
    if share < rules.min_unique_share:
        return failed(GATE, "the set repeats itself", unique_share=share)
    mine = _digests(evidence.rows)
    overlaps: dict[str, float] = {}
    for rival in evidence.case.rivals:
        if rival.hotkey == evidence.case.hotkey or rival.commit_block >= evidence.case.commit_block or not mine:
            continue
        overlap = len(mine & _digests(evidence.rival_rows(rival))) / len(mine)
        overlaps[f"{rival.hotkey}/{rival.task_id}"] = overlap
        if rival.task_id != evidence.case.task.id and overlap > rules.max_copied_share:
            return failed(GATE, "rows of an earlier set of another task", rival=rival.hotkey, overlap=overlap)
    return passed(GATE, unique_share=share, overlaps=dict(overlaps))


def unique(texts: Iterable[str]) -> list[bool]:
    """For each text whether it adds something: false once most of its 5-word shingles came in texts before it."""
    seen: set[int] = set()
    result = []
    for text in texts:
        tokens = words(text)
        shingles = set(ngrams(tokens, min(SHINGLE_WORDS, max(1, len(tokens)))))
        result.append(len(shingles - seen) > (1 - _SEEN_SHARE) * len(shingles))
        seen |= shingles
    return result


def unique_share(texts: Iterable[str]) -> float:
    """Characters in unique texts by all characters; 1 for an empty set."""
    sized = list(texts)
    total = sum(map(len, sized))
    kept = sum(len(text) for text, new in zip(sized, unique(sized), strict=True) if new)
    return kept / total if total else 1.0


def _digests(rows: Rows) -> set[bytes]:
    return {hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in rows.texts()}
