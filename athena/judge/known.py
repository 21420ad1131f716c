"""Filters that know a public release's documents: a few gigabytes instead of terabytes, and never a document missed.

A filter is a file: one line of canonical JSON (`KnownInfo`), then the bits of a Bloom filter (Bloom 1970). Its items
are hashes of whole documents, and of runs of 13 words that are chosen by their hash: a document that was trimmed, or
extracted by other means, still has most of the runs.
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, ValidationError

from athena.errors import BadInput, NotFound, TooLarge
from athena.judge.sketch import mixed, thinned, whole_hash
from athena.judge.words import OVERLAP_WORDS, Hashes, ngram_hashes, words
from athena.protocol import Hex64, Noun

MAX_FILTER_BYTES = 16 << 30
MAX_HASHES_PER_ITEM = 32
_MAX_HEADER_BYTES = 1 << 16
_MIN_RUNS = 4  # of a document that is judged by its runs: fewer say too little
_KNOWN_SHARE = 0.5  # of a document's runs


class KnownInfo(Noun):
    """What a filter knows. One run of words in 2^`halvings` is an item; `sha256` is that of the bits."""

    format: Literal["athena-known-release/1"] = "athena-known-release/1"
    name: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    revision: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    documents: Annotated[int, Field(ge=1)]
    items: Annotated[int, Field(ge=1)]
    halvings: Annotated[int, Field(ge=0, le=16)]
    bits: Annotated[int, Field(ge=64, le=8 * MAX_FILTER_BYTES, multiple_of=64)]
    hashes: Annotated[int, Field(ge=1, le=MAX_HASHES_PER_ITEM)]
    sha256: Hex64


class KnownRelease:
    """A filter, its bits (uint8[bits / 8]) in memory or mapped from a file."""

    def __init__(self, info: KnownInfo, bits: NDArray[np.uint8]) -> None:
        self.info = info
        self._bits = bits

    def holds(self, items: Hashes) -> NDArray[np.bool_]:
        """bool[items]: true for every item that was put in, and for few others."""
        held = np.ones(len(items), dtype=bool)
        for places in _places(items, self.info.bits, self.info.hashes):
            found = self._bits[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8)
            held &= (found & np.uint8(1)).astype(bool)
        return held

    def knows(self, text: str) -> bool:
        """Whether the release holds this very text, but for case, spacing and punctuation, or most of its words."""
        held = self.holds(items_of(text, self.info.halvings))
        return bool(len(held)) and bool(held[0] or (len(held) > _MIN_RUNS and held[1:].mean() >= _KNOWN_SHARE))


def items_of(text: str, halvings: int) -> Hashes:
    """The whole document's hash, then those of its chosen runs of words, each once; nothing of a text of no words."""
    tokens = words(text)
    if not tokens:
        return np.empty(0, dtype=np.uint64)
    whole = mixed(np.array([whole_hash(tokens)], dtype=np.uint64))
    runs = thinned(mixed(ngram_hashes(tokens, OVERLAP_WORDS)), halvings)
    return np.concatenate([whole, np.unique(runs)])


def size_of(items: int, false_positives: float) -> tuple[int, int]:
    """Bits and hashes per item of the smallest filter that takes a strange item for known with this probability."""
    hashes = max(1, min(MAX_HASHES_PER_ITEM, round(-math.log2(false_positives))))
    bits = math.ceil(-hashes * items / math.log(1 - false_positives ** (1 / hashes)))
    return 64 * math.ceil(bits / 64), hashes


def put(bits: NDArray[np.uint8], items: Hashes, hashes: int) -> None:
    """Puts items into a filter's bits."""
    for places in _places(items, 8 * len(bits), hashes):
        masks = np.left_shift(np.uint8(1), (places & np.uint64(7)).astype(np.uint8))
        np.bitwise_or.at(bits, places >> np.uint64(3), masks)


def _places(items: Hashes, bits: int, hashes: int) -> Iterator[Hashes]:
    """uint64[items] for each hash: two hashes make all (Kirsch and Mitzenmacher 2006)."""
    places, step = items.copy(), mixed(items) | np.uint64(1)
    for _ in range(hashes):
        yield places % np.uint64(bits)
        places += step


def open_known(path: Path) -> KnownRelease:
    """The filter in a file, its bits checked and mapped. Raises NotFound, TooLarge, and BadInput for anything else."""
    info, start = _header(path)
    with path.open("rb") as file:
        file.seek(start)
        if hashlib.file_digest(file, "sha256").hexdigest() != info.sha256:
            raise BadInput(f"the bits of {path} have another sha256 than its header says", remedy="fetch it again")
    return KnownRelease(info, np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=(info.bits // 8,)))


def _header(path: Path) -> tuple[KnownInfo, int]:
    """What the file says of itself, and where the bits begin."""
    if not path.exists():
        raise NotFound(f"no filter {path}", remedy="make one: athena judge known-release build")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path} is not a regular file")
    if status.st_size > MAX_FILTER_BYTES + _MAX_HEADER_BYTES:
        raise TooLarge(f"{path} has {status.st_size} bytes, over {MAX_FILTER_BYTES}")
    with path.open("rb") as file:
        line = file.readline(_MAX_HEADER_BYTES)
    try:
        info = KnownInfo.model_validate_json(line, strict=True)
    except ValidationError as error:
        raise BadInput(f"{path} is not a filter of a known release: {error.error_count()} faults") from error
    if not line.endswith(b"\n") or status.st_size != len(line) + info.bits // 8:
        raise BadInput(f"{path} has another size than its header says", remedy="fetch it again")
    return info, len(line)
