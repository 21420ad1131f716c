"""Text as the gates compare it: lower-cased words, so that markup, spacing and punctuation do not matter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

SHINGLE_WORDS = 5
OVERLAP_WORDS = 13  # contamination, as in GPT-3, appendix C
_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a word's hash is lost

Hashes = NDArray[np.uint64]


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def ngram_hashes(tokens: Sequence[str], size: int) -> Hashes:
    """uint64[max(0, words - size + 1)]: hashes of all runs of `size` words, in order."""
    count = len(tokens) - size + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    hashed = (xxhash.xxh3_64_intdigest(token.encode("utf-8", "replace")) for token in tokens)
    each = np.fromiter(hashed, dtype=np.uint64, count=len(tokens))
    runs = each[:count].copy()
    for place in range(1, size):
        runs *= _MULTIPLIER
        runs += each[place : place + count]
    return runs


def ngrams(tokens: Sequence[str], size: int) -> Iterator[int]:
    """64-bit hashes of all runs of `size` words."""
    yield from ngram_hashes(tokens, size).tolist()


def overlap_ngrams(text: str) -> Iterator[int]:
    """The n-grams of 13 words by which texts are found to quote each other."""
    return ngrams(words(text), OVERLAP_WORDS)
