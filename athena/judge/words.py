"""Text as the gates compare it: lower-cased words, so that markup, spacing and punctuation do not matter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import xxhash

SHINGLE_WORDS = 5
OVERLAP_WORDS = 13  # contamination, as in GPT-3, appendix C
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], size: int) -> Iterator[int]:
    """64-bit hashes of all runs of `size` words."""
    for i in range(len(tokens) - size + 1):
        yield xxhash.xxh3_64_intdigest(" ".join(tokens[i : i + size]).encode("utf-8", "replace"))


def overlap_ngrams(text: str) -> Iterator[int]:
    """The n-grams of 13 words by which texts are found to quote each other."""
    return ngrams(words(text), OVERLAP_WORDS)
