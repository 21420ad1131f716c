"""Deterministic draws from block hashes: whoever knows the chain can recompute every random choice.

hashlib only: numpy's generators do not promise a stable stream across versions.
"""

from __future__ import annotations

import hashlib


def seed_of(block_hash: str, *labels: str) -> bytes:
    """32 bytes drawn from a block hash (hex, with or without 0x) and what the draw is for."""
    digest = hashlib.blake2b(bytes.fromhex(block_hash.removeprefix("0x")), digest_size=32)
    for label in labels:
        raw = label.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.digest()


def integer(seed: bytes, index: int) -> int:
    """The `index`-th unsigned 64-bit integer of the stream that `seed` opens."""
    return int.from_bytes(hashlib.blake2b(seed + index.to_bytes(8, "big"), digest_size=8).digest(), "big")


def sample(seed: bytes, population: int, count: int) -> list[int]:
    """`count` distinct indices below `population` in drawn order (all of them, shuffled, if `count` is larger).

    A sparse Fisher-Yates shuffle: exact, O(count) memory for any population.
    """
    count = min(count, population)
    moved: dict[int, int] = {}
    drawn: list[int] = []
    for i in range(count):
        j = i + integer(seed, i) % (population - i)
        drawn.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return drawn


def permuted(seed: str, population: int, index: int) -> int:
    """Where `index` goes in the permutation of range(population) that `seed` draws.

    A four-round Feistel network over the next even number of bits, walked until it falls inside the population: no
    table, so a data set of any size needs no memory.
    """
    half_bits = max(1, ((population - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for turn in range(4):
            digest = hashlib.blake2b(f"{seed}:{turn}:{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
        index = left << half_bits | right
        if index < population:
            return index
