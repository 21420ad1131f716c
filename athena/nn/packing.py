"""Documents to windows of equal length, with nothing dropped but the last partial window.

Every document is opened by the `end` token: it closes the document before it and stands in for "beginning of text", so
one token does both, and every label in the shifted stream is a right one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from athena.errors import BadInput

Ids = NDArray[np.int32]


def pack(documents: Sequence[Sequence[int]], length: int, end: int) -> tuple[Ids, Ids]:
    """Token ids and position ids, both int32 [windows, length].

    A document that does not fit goes on in the next window. Raises BadInput if a document holds `end` itself: it would
    forge a boundary.
    """
    pieces: list[Ids] = []
    opening = np.array([end], dtype=np.int32)
    for index, document in enumerate(documents):
        ids = np.asarray(document, dtype=np.int32)
        if (ids == end).any():
            raise BadInput(f"document {index} holds the end-of-document token {end}")
        pieces += [opening, ids]
    stream = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int32)
    count = stream.size // length
    windows = stream[: count * length].reshape(count, length)
    return windows, positions(windows, end)


def positions(windows: Ids, end: int) -> Ids:
    """Position ids, int32 [..., length]: 0 at every `end` and at every window's start, counting up from there.

    The restarts are the document mask: transformers lets no token attend across one.
    """
    index = np.arange(windows.shape[-1], dtype=np.int32)
    opened = np.maximum.accumulate(np.where(windows == end, index, 0), axis=-1)
    return (index - opened).astype(np.int32)
