"""How much of a text repeats itself, in lines, paragraphs and n-grams of words, as datatrove's Gopher block counts.

Each n-gram length is first bounded from above by hashes; only what the bound cannot decide is counted one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_SHORT_CHARS = 1 << 16  # of a text whose powers are remembered: 1 MiB for both bases

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]


def duplicates(elements: Sequence[str]) -> tuple[int, int]:
    """How many elements occurred before in the sequence, and how many characters they have."""
    once = set(elements)
    return len(elements) - len(once), sum(map(len, elements)) - sum(map(len, once))


class NGrams:
    """The n-grams of a list of words. Characters are those of the words, with a space between them in `top_chars`."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._joined = "".join(words)
        lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        self._offsets: Offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths)))
        self._prefix_hashes = _prefix_hashes(self._joined)
        self._inverse_powers = _powers(_INVERSE, len(self._joined))

    def top_chars(self, n: int) -> int:
        """Characters of the most frequent n-gram, times its count; of equally frequent ones the first; 0 if none."""
        grams = Counter(zip(*(self._words[i:] for i in range(n)), strict=False))
        if not grams:
            return 0
        most = max(grams.values())
        top = next(gram for gram, count in grams.items() if count == most)
        return (sum(map(len, top)) + n - 1) * most

    def duplicate_chars_exceed(self, n: int, limit: float, total: int) -> bool:
        """Whether n-grams that occurred before, not overlapping each other, hold more than `limit` of `total`."""
        if self._duplicate_chars_at_most(n) / total <= limit:
            return False
        return self._duplicate_chars(n) / total > limit

    def _duplicate_chars(self, n: int) -> int:
        """By a walk from left to right that steps over each n-gram it counts."""
        offsets = self._offsets.tolist()
        seen: set[str] = set()
        repeated = index = 0
        while index + n < len(offsets):
            gram = self._joined[offsets[index] : offsets[index + n]]
            if gram in seen:
                repeated += len(gram)
                index += n
            else:
                seen.add(gram)
                index += 1
        return repeated

    def _duplicate_chars_at_most(self, n: int) -> int:
        """With overlaps, and by hashes: equal n-grams have equal hashes, so none is missed."""
        starts, ends = self._offsets[: max(0, len(self._offsets) - n)], self._offsets[n:]
        hashes = (self._prefix_hashes[ends] - self._prefix_hashes[starts]) * self._inverse_powers[starts]
        order = np.argsort(hashes, kind="stable")
        again = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
        return int((ends[again] - starts[again]).sum())


def _prefix_hashes(text: str) -> Hashes:
    """uint64[len + 1]: at i the polynomial hash of the first i characters, modulo 2^64."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    hashes = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(codes * _powers(_BASE, len(codes))[:-1], out=hashes[1:])
    return hashes


def _powers(base: int, highest: int) -> Hashes:
    """uint64[highest + 1]: powers of the base modulo 2^64."""
    if highest < _SHORT_CHARS:
        return _short_powers(base)[: highest + 1]
    return _computed_powers(base, highest + 1)


@lru_cache(maxsize=2)
def _short_powers(base: int) -> Hashes:
    return _computed_powers(base, _SHORT_CHARS)


def _computed_powers(base: int, size: int) -> Hashes:
    factors = np.full(size, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)
