"""Samples of n-gram hashes that stay small: what two texts share still shows in a thousandth of their n-grams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from athena.judge.words import Hashes

MAX_HASHES = 1 << 24
"""Of one sketch: 200 MB with their owners. A shard of four WARC files gives about eight million."""
_HASH_BITS = 64


def whole_hash(tokens: Sequence[str]) -> int:
    """One 64-bit hash of a text's words in order."""
    return xxhash.xxh3_64_intdigest(" ".join(tokens).encode("utf-8", "replace"))


def mixed(hashes: Hashes) -> Hashes:
    """A bijection after which every bit depends on all bits (the finalizer of splitmix64), so that any can select."""
    found = hashes ^ (hashes >> np.uint64(30))
    found *= np.uint64(0xBF58476D1CE4E5B9)
    found ^= found >> np.uint64(27)
    found *= np.uint64(0x94D049BB133111EB)
    found ^= found >> np.uint64(31)
    return found


def thinned(hashes: Hashes, halvings: int) -> Hashes:
    """One in 2^halvings of mixed hashes, chosen by their values: a text and its copy keep the same ones."""
    return hashes[_stays(hashes, halvings)]


def _stays(hashes: Hashes, halvings: int) -> NDArray[np.bool_]:
    if halvings == 0:
        return np.ones(len(hashes), dtype=bool)
    if halvings >= _HASH_BITS:
        return np.zeros(len(hashes), dtype=bool)
    stays: NDArray[np.bool_] = hashes >> np.uint64(_HASH_BITS - halvings) == 0
    return stays


class Sketch:
    """Mixed hashes with the number of the document that each belongs to, at most `limit` of them.

    All hashes, as long as they fit; then every other one by value, then every fourth (Broder 1997, section 4): shares
    of hashes stay unbiased.
    """

    def __init__(self, limit: int = MAX_HASHES) -> None:
        self._limit, self._size = limit, 0
        self._hashes = np.empty(limit, dtype=np.uint64)  # takes memory page by page, once it is written to
        self._owners = np.empty(limit, dtype=np.int32)
        self.halvings = 0

    def add(self, owner: int, hashes: Hashes) -> None:
        """Takes the distinct ones of a document's hashes."""
        fresh = np.unique(thinned(hashes, self.halvings))
        while self._size + len(fresh) > self._limit:
            self.thin(self.halvings + 1)
            fresh = thinned(fresh, self.halvings)
        end = self._size + len(fresh)
        self._hashes[self._size : end], self._owners[self._size : end] = fresh, owner
        self._size = end

    def thin(self, halvings: int) -> None:
        """Leaves out what a sketch of so many halvings would: sketches are compared at the same number."""
        stays = _stays(self.hashes, halvings)
        size = int(np.count_nonzero(stays))
        self._hashes[:size], self._owners[:size] = self.hashes[stays], self.owners[stays]
        self._size, self.halvings = size, max(halvings, self.halvings)

    @property
    def hashes(self) -> Hashes:
        """uint64[n], document by document, each hash once in a document."""
        return self._hashes[: self._size]

    @property
    def owners(self) -> NDArray[np.int32]:
        """int32[n]."""
        return self._owners[: self._size]
