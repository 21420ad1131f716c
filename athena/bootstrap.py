"""Bootstrap intervals over documents, drawn so that every machine draws alike. Pure: values in, values out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Enough for intervals of 99.9 % and more."""
_INDICES_AT_A_TIME = 2**21
Numbers: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Numbers], Numbers]
"""From sums of the columns, [resamples, columns], to one number each, [resamples]."""


def deviations(
    columns: Sequence[Sequence[float]], statistic: Statistic, seed: bytes, resamples: int = RESAMPLES
) -> Numbers | None:
    """How far a statistic of the columns' sums lies from its value when the rows are drawn with replacement.

    [resamples], widened by √(n / (n − 1)): resamples of few rows vary too little (Hesterberg 2015, section 3.2). None
    for fewer than two rows, of which nothing can be told.
    """
    table = np.array(columns, dtype=np.float64).T
    rows = len(table)
    if rows < 2:
        return None
    chunk = max(1, _INDICES_AT_A_TIME // rows)
    bounds = [*range(0, resamples, chunk), resamples]
    sums = np.concatenate([table[_indices(seed, start, end, rows)].sum(axis=1) for start, end in pairwise(bounds)])
    centre = statistic(table.sum(axis=0)[None])[0]
    widened: Numbers = (statistic(sums) - centre) * np.sqrt(rows / (rows - 1))
    return widened


def interval(value: float, spread: Numbers, level: float) -> tuple[float, float]:
    """The percentile interval around `value` that holds `level` of the deviations."""
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    return value + float(low), value + float(high)


def ratio(sums: Numbers) -> Numbers:
    """The statistic of two columns, items and weights: the sum of the one over that of the other."""
    quotient: Numbers = sums[:, 0] / sums[:, 1]
    return quotient


def _indices(seed: bytes, start: int, end: int, rows: int) -> NDArray[np.intp]:
    """Row numbers of the resamples from `start` on and before `end`. A hash draws them: numpy's generators do not
    promise a stable stream across versions."""
    label = start.to_bytes(8, "big") + rows.to_bytes(8, "big")
    stream = hashlib.shake_128(seed + label).digest(4 * (end - start) * rows)
    drawn = np.frombuffer(stream, dtype="<u4").astype(np.uint64).reshape(end - start, rows)
    return (drawn * np.uint64(rows) >> np.uint64(32)).astype(np.intp)
