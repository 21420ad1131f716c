"""A 5-gram language model: what a set teaches about evaluation text, in a second per megabyte and without a seed.

Interpolated absolute discounting (Ney, Essen and Kneser 1994) with the discount 0.75 for all orders, over token ids.
Counts are exact: an n-gram is known by the number of its first n - 1 tokens, itself an n-gram, and its last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from athena.judge.proxy.texts import tokenize
from athena.refine.text.bpe import END_OF_TEXT_ID, VOCABULARY_SIZE

ORDER = 5
_DISCOUNT = 0.75

Ids = NDArray[np.int64]


def stream_of(texts: Sequence[str]) -> Ids:
    """Token ids of all texts in the whole shared vocabulary, END_OF_TEXT_ID before each."""
    parts = [part for ids in tokenize(texts, VOCABULARY_SIZE) for part in (_END, ids.astype(np.int64))]
    return np.concatenate([*parts, _NO_IDS])


_END: Ids = np.array([END_OF_TEXT_ID], dtype=np.int64)
_NO_IDS: Ids = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Order:
    """N-grams of one size: sorted keys, how often each comes, and by context the continuations, all and distinct."""

    keys: Ids
    counts: Ids
    continuations: Ids
    distinct: Ids


class NgramModel:
    """Trained on a stream of token ids; about a million tokens a second on one core."""

    def __init__(self, stream: Ids) -> None:
        self._orders: list[_Order] = []
        grams, contexts = np.zeros(len(stream) + 1, dtype=np.int64), 1  # of no tokens there is one, before each token
        for size in range(1, ORDER + 1):
            keys = grams[: max(0, len(stream) - size + 1)] * VOCABULARY_SIZE + stream[size - 1 :]
            unique, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
            context_of = unique // VOCABULARY_SIZE
            self._orders.append(
                _Order(
                    keys=unique,
                    counts=counts,
                    continuations=np.bincount(context_of, weights=counts, minlength=contexts).astype(np.int64),
                    distinct=np.bincount(context_of, minlength=contexts),
                )
            )
            grams, contexts = numbers, len(unique)

    def bits(self, stream: Ids) -> NDArray[np.float64]:
        """float64[tokens]: bits of each token after those before it, the log of the interpolated probability."""
        likely = np.full(len(stream), 1 / VOCABULARY_SIZE)
        contexts = np.zeros(len(stream), dtype=np.int64)
        for order in self._orders:
            known = np.flatnonzero(contexts >= 0)
            known = known[order.continuations[contexts[known]] > 0]
            context = contexts[known]
            gram = _place(order.keys, context * VOCABULARY_SIZE + stream[known])
            count = np.where(gram >= 0, order.counts[gram], 0)
            total, rest = order.continuations[context], _DISCOUNT * order.distinct[context]
            likely[known] = (np.maximum(count - _DISCOUNT, 0) + rest * likely[known]) / total
            contexts = np.full(len(stream), -1, dtype=np.int64)
            followed = known[known + 1 < len(stream)]
            contexts[followed + 1] = gram[: len(followed)]
        bits: NDArray[np.float64] = -np.log2(likely)
        return bits


def bits_per_byte(model: NgramModel, texts: Sequence[str]) -> float:
    """Mean bits that a model needs for a byte of the texts; of texts with at least one byte."""
    stream = stream_of(texts)
    bits = model.bits(stream)[stream != END_OF_TEXT_ID]
    return float(bits.sum()) / sum(len(text.encode("utf-8", "replace")) for text in texts)


def _place(keys: Ids, wanted: Ids) -> Ids:
    """Place of each wanted key in the sorted keys; -1 where it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: Ids = np.where(keys[places] == wanted, places, -1)
    return found
