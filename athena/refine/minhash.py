"""Near-duplicates: MinHash of word 5-grams, 14 buckets of 8 hashes, with datatrove's signatures.

Two documents whose 5-grams have Jaccard similarity s share a bucket with probability 1 - (1 - s^8)^14: 0.92 at 0.8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from datatrove.utils.text import simplify_text

from athena.refine.words import english_words

SHINGLE_WORDS = 5
NUM_BUCKETS = 14
HASHES_PER_BUCKET = 8
NUM_HASHES = NUM_BUCKETS * HASHES_PER_BUCKET
_SEED = 1
_MERSENNE_PRIME = np.uint64((1 << 61) - 1)
_BLOCK_SHINGLES = 4096  # bounds the temporary matrix to 4096 × 112 × 8 bytes

# The legacy generator: its stream is frozen by numpy's compatibility policy, and it is the one that datatrove uses.
_generator = np.random.RandomState(_SEED)
_SCALE = _generator.randint(1, _MERSENNE_PRIME, dtype=np.uint64, size=(1, NUM_HASHES))
_SHIFT = _generator.randint(0, _MERSENNE_PRIME, dtype=np.uint64, size=(1, NUM_HASHES))

Signature = npt.NDArray[np.uint64]


def signature(text: str) -> Signature | None:
    """uint64[112] of a text; None if it has fewer than five words, and so no 5-gram to compare."""
    shingles = np.fromiter(_shingle_hashes(text), dtype=np.uint64).reshape(-1, 1)
    if not shingles.size:
        return None
    smallest = np.full(NUM_HASHES, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(shingles), _BLOCK_SHINGLES):
        block = (shingles[start : start + _BLOCK_SHINGLES] * _SCALE + _SHIFT) % _MERSENNE_PRIME
        np.minimum(smallest, block.min(axis=0), out=smallest)
    return smallest


def _shingle_hashes(text: str) -> Iterator[int]:
    words = english_words().word_tokenize(simplify_text(text))
    for i in range(len(words) - SHINGLE_WORDS + 1):
        shingle = " ".join(words[i : i + SHINGLE_WORDS])
        yield int.from_bytes(hashlib.sha1(shingle.encode()).digest()[:8], "little")


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
