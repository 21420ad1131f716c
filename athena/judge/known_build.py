"""Makes the filter of a known release from the release's own files, one source after the other."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from athena.durable import finish
from athena.errors import BadInput, TooLarge
from athena.judge.known import MAX_FILTER_BYTES, KnownInfo, items_of, put, size_of
from athena.judge.words import Hashes
from athena.refine.sources.opening import Source

NOT_TEXT = "not-text"
_BATCH_ITEMS = 1 << 20
_ITEM_BYTES = 8
_ON_THE_HUB = re.compile(r"hf://datasets/[^/@]+/[^/@]+@([0-9a-f]{40})/")

Step = Callable[[int, int | None], None]


@dataclass(frozen=True)
class KnownPlan:
    """`false_positives` is the probability that a strange item is taken for known; one run of words in 2^`halvings`
    becomes an item."""

    name: str
    false_positives: float = 0.01
    halvings: int = 4


def build_known(sources: Sequence[Source], plan: KnownPlan, out: Path, step: Step) -> tuple[KnownInfo, Counter[str]]:
    """Writes the filter of all documents of `sources` to `out`; what it says of itself, and what was passed over.

    The items of each source wait in a folder beside `out`, named `<out>.parts`: interrupted and called again, it goes
    on behind the last whole source, and ends with the same bytes. `step` gets the count of documents so far. Counts
    of what is passed over are of this call alone. Pages are passed over: a release is text.

    Raises BadInput where there are no documents, TooLarge for a filter that is over the limit, and what the sources
    raise.
    """
    folder = out.with_name(f"{out.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    rejected: Counter[str] = Counter()
    parts = [folder / _part_name(source, plan) for source in sources]
    documents = 0
    for source, part in zip(sources, parts, strict=True):
        if not part.exists():
            _write_part(source, part, plan.halvings, rejected, partial(_count_on, step, documents))
        documents += _documents(part)
    if not documents:
        raise BadInput("the sources hold no text", remedy="give the files of a dataset of texts")
    items = sum(part.stat().st_size // _ITEM_BYTES - 1 for part in parts)
    size, hashes = size_of(items, plan.false_positives)
    if size > 8 * MAX_FILTER_BYTES:
        raise TooLarge(
            f"a filter of {size // 8} bytes, over {MAX_FILTER_BYTES}",
            remedy="allow more false positives, take fewer runs of words, or filter a part of the release",
        )
    bits = np.zeros(size // 8, dtype=np.uint8)
    for part in parts:
        for batch in _batches(part):
            put(bits, batch, hashes)
    info = KnownInfo(
        name=plan.name,
        revision=_revision([source.name for source in sources]),
        documents=documents,
        items=items,
        halvings=plan.halvings,
        bits=size,
        hashes=hashes,
        sha256=hashlib.sha256(bits.data).hexdigest(),
    )
    _write(out, info, bits)
    shutil.rmtree(folder)
    return info, rejected


def _count_on(step: Step, before: int, new: int) -> None:
    step(before + new, None)


def _part_name(source: Source, plan: KnownPlan) -> str:
    """Sources of one name have the same records."""
    return hashlib.sha256(f"{plan.halvings} {source.name}".encode()).hexdigest()


def _write_part(source: Source, part: Path, halvings: int, rejected: Counter[str], step: Callable[[int], None]) -> None:
    """The number of documents, then all their items: unsigned 64-bit integers, the lowest byte first."""
    temporary = part.with_name(f".{part.name}.part")
    documents = 0
    with temporary.open("wb") as file:
        file.write(bytes(_ITEM_BYTES))
        for record in source.records(rejected):
            if not record.is_text:
                rejected[NOT_TEXT] += 1
                continue
            items = items_of(record.body.decode("utf-8", "replace"), halvings)
            file.write(items.astype("<u8").tobytes())
            documents += bool(len(items))
            step(documents)
        file.seek(0)
        file.write(documents.to_bytes(_ITEM_BYTES, "little"))
    finish(temporary, part)


def _documents(part: Path) -> int:
    with part.open("rb") as file:
        return int.from_bytes(file.read(_ITEM_BYTES), "little")


def _batches(part: Path) -> Iterator[Hashes]:
    with part.open("rb") as file:
        file.seek(_ITEM_BYTES)
        while chunk := file.read(_BATCH_ITEMS * _ITEM_BYTES):
            yield np.frombuffer(chunk, dtype="<u8").astype(np.uint64)


def _revision(names: Sequence[str]) -> str:
    """The commit where all sources are of one on the hub, else the sha256 of their names, which say their content."""
    commits = {match[1] if match else "" for match in map(_ON_THE_HUB.match, names)}
    if len(commits) == 1 and (commit := commits.pop()):
        return commit
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def _write(out: Path, info: KnownInfo, bits: NDArray[np.uint8]) -> None:
    temporary = out.with_name(f".{out.name}.part")
    with temporary.open("wb") as file:
        file.write(info.canonical() + b"\n")
        bits.tofile(file)
    finish(temporary, out)
