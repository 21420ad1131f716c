"""Documents to windows of equal length: best-fit decreasing, nothing dropped, no token attends across a document.

A document longer than a window is cut into full windows and a rest; rests and short documents fill windows by best fit
(Ding et al. 2024, "Fewer Truncations Improve Language Modeling"), so that only padding at the windows' ends is wasted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from athena.durable import finish, flush, write_file
from athena.errors import BadInput
from athena.protocol import Hex64, Noun

Indices = NDArray[np.int64]
INFO = "packing.json"


class PackingInfo(Noun):
    """packing.json, written last: how the tokens whose digest is `tokens_digest` fill windows of `length`."""

    format: Literal["athena-packing/1"] = "athena-packing/1"
    tokens_digest: Hex64
    length: Annotated[int, Field(ge=1)]
    windows: Annotated[int, Field(ge=0)]
    pieces: Annotated[int, Field(ge=0)]
    documents_cut: Annotated[int, Field(ge=0)]
    """Documents that do not lie whole in one window."""
    waste: Annotated[float, Field(ge=0, lt=1)]
    """Share of the windows that is padding."""


@dataclass(frozen=True)
class Packing:
    """Which piece of the stream lies in which window.

    Window w holds, in order, the pieces from `windows[w]` up to `windows[w + 1]`; piece p is the `sizes[p]` tokens of
    the stream from `starts[p]` on, all of one document. int64, of lengths pieces, pieces and windows + 1.
    """

    starts: Indices
    sizes: Indices
    windows: Indices

    @property
    def num_windows(self) -> int:
        return len(self.windows) - 1

    def save(self, folder: Path, info: PackingInfo) -> None:
        """Leaves `folder`, which several processes may make at a time: they make the same."""
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name in ("starts", "sizes", "windows"):
            np.save(temporary / f"{name}.npy", getattr(self, name))
            flush(temporary / f"{name}.npy")
        write_file(temporary / INFO, info.canonical())
        try:
            finish(temporary, folder)
        except OSError:  # another process was first
            if not (folder / INFO).exists():
                raise
            shutil.rmtree(temporary)

    @classmethod
    def load(cls, folder: Path, tokens_digest: str) -> tuple[Self, PackingInfo]:
        """What `save` left, memory-mapped. Raises BadInput where it is damaged, or of other tokens."""
        try:
            info = PackingInfo.model_validate_json((folder / INFO).read_bytes())
            packing = cls(*(np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("starts", "sizes", "windows")))
        except (OSError, ValueError, ValidationError) as error:
            raise BadInput(f"{folder} is damaged: {error}", remedy="remove it: it is made again") from error
        if info.tokens_digest != tokens_digest or (packing.num_windows, len(packing.sizes)) != (
            info.windows,
            info.pieces,
        ):
            raise BadInput(f"{folder} is of other tokens", remedy="remove it: it is made again")
        return packing, info


def pack_documents(document_tokens: Indices, length: int) -> Packing:
    """Packs documents that follow each other in a stream, each at least one token long, into windows of `length`.

    The outcome depends on the arguments alone.
    """
    starts, sizes = _pieces(document_tokens, length)
    order = np.argsort(-sizes, kind="stable")
    window_of = best_fit(sizes[order], length)
    by_window = np.argsort(window_of, kind="stable")
    num_windows = int(window_of[by_window[-1]]) + 1 if len(window_of) else 0
    bounds = np.searchsorted(window_of[by_window], np.arange(num_windows + 1))
    placed = order[by_window]
    return Packing(starts[placed], sizes[placed], bounds.astype(np.int64))


def joined(parts: list[Packing]) -> Packing:
    """The windows of all parts, one after the other."""
    pieces = np.cumsum([0, *(len(part.sizes) for part in parts)])
    bounds = [part.windows[:-1] + first for part, first in zip(parts, pieces, strict=False)]
    return Packing(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([*bounds, pieces[-1:]]),
    )


def _pieces(document_tokens: Indices, length: int) -> tuple[Indices, Indices]:
    """Where the pieces of no more than `length` tokens begin, and how long they are, in the order of the stream."""
    ends = np.cumsum(document_tokens)
    counts = -(-document_tokens // length)
    first = np.cumsum(counts) - counts
    within = np.arange(int(counts.sum())) - np.repeat(first, counts)
    starts = np.repeat(ends - document_tokens, counts) + within * length
    return starts, np.minimum(length, np.repeat(ends, counts) - starts)


def best_fit(sizes: Indices, length: int) -> Indices:
    """The window of each piece, int64[pieces]; `sizes` fall, from `length` at most to 1.

    Each piece goes into the window with the least room that it fits in, of equals into the one that was there first, or
    opens one. Pieces of one size are placed together: the work grows with the number of distinct sizes.
    """
    rooms = _Rooms(length)
    window_of = np.empty(len(sizes), dtype=np.int64)
    distinct, counts = np.unique(-sizes, return_counts=True)
    place = 0
    for size, count in zip(-distinct, counts, strict=True):
        last = place + int(count)
        for windows, each in rooms.take(int(size), int(count)):
            filled = np.repeat(windows, each)[: last - place]
            window_of[place : place + len(filled)] = filled
            place += len(filled)
    return window_of


class _Rooms:
    """The open windows by how many tokens they still have room for."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._windows: list[list[Indices]] = [[] for _ in range(length + 1)]
        self._open = np.zeros(length + 1, dtype=bool)
        self._opened = 0

    def take(self, size: int, pieces: int) -> Iterator[tuple[Indices, int]]:
        """Windows for `pieces` pieces of `size` tokens, and how many each of them takes; the last may take fewer."""
        while pieces:
            fitting = int(np.argmax(self._open[size:])) + size
            room = fitting if self._open[fitting] else self._length
            each = room // size
            needed = -(-pieces // each)
            windows = self._opened_or_new(room, needed)
            needed = min(needed, len(windows))
            taken, rest = windows[:needed], windows[needed:]
            last_takes = min(each, pieces - (needed - 1) * each)
            self._put(room, rest)
            self._put(room - each * size, taken[:-1])
            self._put(room - last_takes * size, taken[-1:])
            yield taken, each
            pieces -= (needed - 1) * each + last_takes

    def _opened_or_new(self, room: int, needed: int) -> Indices:
        if self._open[room]:
            windows = np.concatenate(self._windows[room])
            self._windows[room].clear()
            self._open[room] = False
            return windows
        self._opened += needed
        return np.arange(self._opened - needed, self._opened)

    def _put(self, room: int, windows: Indices) -> None:
        if room and len(windows):
            self._windows[room].append(windows)
            self._open[room] = True
