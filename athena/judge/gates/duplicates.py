"""Repetition inside the set."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from athena.judge.evidence import Evidence
from athena.judge.sketch import MAX_HASHES, Sketch, mixed, whole_hash
from athena.judge.verdicts import failed, passed
from athena.judge.words import SHINGLE_WORDS, ngram_hashes, words
from athena.protocol import Verdict

GATE = "duplicates"
_SEEN_SHARE = 0.8  # a document this much of which came before is a copy: MinHash pairs documents at similarity 0.75


def check(evidence: Evidence) -> Verdict:
    """Share of the set's words in documents that add something to those before them.

    Found in the texts: what a set's own MinHash column says binds nobody.
    """
    share = unique_share(evidence.rows.texts())
    if share < evidence.rules.gates.min_unique_share:
        return failed(GATE, "the set repeats itself", unique_share=share)
    return passed(GATE, unique_share=share)


def unique(texts: Iterable[str]) -> list[bool]:
    """For each text whether it adds something: false for an exact copy, and once most of its 5-word shingles came in
    texts before it."""
    return [bool(new) for new in _survey(texts, MAX_HASHES)[0]]


def unique_share(texts: Iterable[str], max_hashes: int = MAX_HASHES) -> float:
    """Words in unique texts by all words; 1 for an empty set. Of more than `max_hashes` shingles a sample decides."""
    new, num_words = _survey(texts, max_hashes)
    total = int(num_words.sum())
    return int(num_words[new].sum()) / total if total else 1.0


def _survey(texts: Iterable[str], max_hashes: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """bool[texts], whether each adds something, and int64[texts], how many words it has."""
    sketch = Sketch(max_hashes)
    digests: list[int] = []
    lengths: list[int] = []
    for number, text in enumerate(texts):
        tokens = words(text)
        sketch.add(number, mixed(ngram_hashes(tokens, max(1, min(SHINGLE_WORDS, len(tokens))))))
        digests.append(whole_hash(tokens))
        lengths.append(len(tokens))
    num_words = np.array(lengths, dtype=np.int64)
    new = num_words > 0
    new &= _is_first(np.array(digests, dtype=np.uint64))
    added = np.bincount(sketch.owners[_is_first(sketch.hashes)], minlength=len(new))
    distinct = np.bincount(sketch.owners, minlength=len(new))
    new &= (distinct == 0) | (added > (1 - _SEEN_SHARE) * distinct)
    return new, num_words


def _is_first(values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether no equal value comes before each."""
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first
