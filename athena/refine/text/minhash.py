"""Near-duplicates: MinHash of word 5-grams, 14 buckets of 8 hashes, with datatrove's signatures.

Two documents whose 5-grams have Jaccard similarity s share a bucket with probability 1 - (1 - s^8)^14: 0.92 at 0.8.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from datatrove.utils.text import simplify_text

from athena.refine.text.words import words_of

SHINGLE_WORDS = 5
NUM_BUCKETS = 14
HASHES_PER_BUCKET = 8
NUM_HASHES = NUM_BUCKETS * HASHES_PER_BUCKET
_SEED = 1
_MERSENNE_PRIME = np.uint64((1 << 61) - 1)
_MAX_REMEMBERED = 1 << 18
_BLOCK_SHINGLES = 256  # bounds the temporary matrix to 256 × 112 × 8 bytes, which a core's cache holds

# The legacy generator: its stream is frozen by numpy's compatibility policy, and it is the one that datatrove uses.
_generator = np.random.RandomState(_SEED)
_SCALE = _generator.randint(1, _MERSENNE_PRIME, dtype=np.uint64, size=(1, NUM_HASHES))
_SHIFT = _generator.randint(0, _MERSENNE_PRIME, dtype=np.uint64, size=(1, NUM_HASHES))

_SHA1 = np.dtype([("first", "<u8"), ("rest", "V12")])

Signature = npt.NDArray[np.uint64]


def signature(text: str, language: str = "en") -> Signature | None:
    """uint64[112] of a text; None if it has fewer than five words, and so no 5-gram to compare."""
    shingles = _shingle_hashes(text, language).reshape(-1, 1)
    if not shingles.size:
        return None
    smallest = np.full(NUM_HASHES, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(shingles), _BLOCK_SHINGLES):
        block = shingles[start : start + _BLOCK_SHINGLES] * _SCALE
        block += _SHIFT
        np.minimum(smallest, _folded(block).min(axis=0), out=smallest)
    return smallest


def _folded(values: Signature) -> Signature:
    """The values modulo the prime 2^61 - 1, without a division: 2^61 is 1 modulo that prime."""
    high = values >> np.uint64(61)
    values &= _MERSENNE_PRIME
    values += high
    below: Signature = np.minimum(values, values - _MERSENNE_PRIME)  # what is below the prime wraps around to more
    return below


def _shingle_hashes(text: str, language: str) -> Signature:
    """uint64[5-grams]: the first eight bytes of the sha1 of each, in order."""
    words = _simplified_words(language).encoded(text)
    joined = b" ".join(words)
    ends = list(itertools.accumulate(len(word) + 1 for word in words))
    digests = [
        hashlib.sha1(joined[start : end - 1]).digest()
        for start, end in zip([0, *ends], ends[SHINGLE_WORDS - 1 :], strict=False)
    ]
    hashes: Signature = np.frombuffer(b"".join(digests), dtype=_SHA1)["first"]
    return hashes


class _SimplifiedWords:
    """The words of datatrove's simplified text. Each string between white space simplifies by itself, and only once."""

    def __init__(self, language: str) -> None:
        self._words = words_of(language)
        self._remembered: dict[str, tuple[bytes, ...]] = {}

    def encoded(self, text: str) -> list[bytes]:
        chunks = text.split()
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered = {}
        remembered = self._remembered
        for chunk in set(chunks).difference(remembered):
            plain = chunk.isascii() and chunk.isalpha()
            parts = (chunk.lower() if plain else simplify_text(chunk)).split()
            remembered[chunk] = tuple(word.encode() for words in self._words.by_chunk(parts) for word in words)
        return [word for chunk in chunks for word in remembered[chunk]]


@lru_cache(maxsize=8)
def _simplified_words(language: str) -> _SimplifiedWords:
    return _SimplifiedWords(language)


def buckets(signature: npt.ArrayLike) -> Signature:
    """uint64[14, 8] of a signature: where a row of it equals another document's, the two are linked."""
    return np.asarray(signature, dtype=np.uint64).reshape(NUM_BUCKETS, HASHES_PER_BUCKET)


def first_of_each(signatures: Iterable[Signature | None]) -> list[bool]:
    """Which documents to keep: of all that are linked by shared buckets, the first. None is never a duplicate.

    The result depends on the order only through who is first, so callers sort by (path index, offset).
    """
    parents: list[int] = []
    owners: list[dict[bytes, int]] = [{} for _ in range(NUM_BUCKETS)]
    for index, document in enumerate(signatures):
        parents.append(index)
        if document is None:
            continue
        for owner, bucket in zip(owners, buckets(document), strict=True):
            other = _root(parents, owner.setdefault(bucket.tobytes(), index))
            mine = _root(parents, index)
            parents[max(other, mine)] = min(other, mine)
    return [parent == index for index, parent in enumerate(parents)]


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index
