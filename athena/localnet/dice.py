"""A stream of choices that one seed and one label open: the same on every machine and Python version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from athena import draw

T = TypeVar("T")


class Dice:
    """Draws in order; another label opens an independent stream, so adding a draw here changes nothing there."""

    def __init__(self, seed: int, *labels: str) -> None:
        self._key = hashlib.blake2b("\0".join([str(seed), *labels]).encode(), digest_size=32).digest()
        self._count = 0

    def below(self, limit: int) -> int:
        """An integer from 0 to `limit` - 1. `limit` is at least 1."""
        self._count += 1
        return draw.integer(self._key, self._count) % limit

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` distinct items (all, if there are fewer) in drawn order."""
        self._count += 1
        key = self._key + self._count.to_bytes(8, "big")
        return [items[index] for index in draw.sample(key, len(items), count)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        return self.sample(items, len(items))
