"""Evaluation text in the set: quoted word for word, or edited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from athena.evalpack import EvalPack
from athena.judge.evidence import Evidence
from athena.judge.verdicts import failed, passed
from athena.judge.words import OVERLAP_WORDS, SHINGLE_WORDS, Hashes, ngram_hashes, words
from athena.protocol import Verdict

GATE = "contamination"
_BLOCK_WORDS = 32
_PASSAGE_BLOCKS = 4
_FEWEST_SHINGLES = 4  # of a text of eight words; what is shorter, the honest web says by chance


@dataclass(frozen=True, eq=False)
class Index:
    """What texts may be recognised by: their n-grams, but for those that two of them share: licences, idioms.

    `overlaps` are runs of 13 words, sorted. `shingles` are runs of 5 words, sorted; of each there is the block of 32
    words that it stands in, and how many shingles its text has. Blocks of two texts lie apart.
    """

    overlaps: Hashes
    shingles: Hashes
    block_of: NDArray[np.int64]
    size_of: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        overlaps, shingles, blocks, owners = [_NO_HASHES], [_NO_HASHES], [_NO_NUMBERS], [_NO_NUMBERS]
        first_block = 0
        for owner, text in enumerate(texts):
            tokens = words(text)
            overlaps.append(np.unique(ngram_hashes(tokens, OVERLAP_WORDS)))
            found, places = np.unique(ngram_hashes(tokens, SHINGLE_WORDS), return_index=True)
            shingles.append(found)
            blocks.append(first_block + places // _BLOCK_WORDS)
            owners.append(np.full(len(found), owner, dtype=np.int64))
            first_block += len(tokens) // _BLOCK_WORDS + 1 + _PASSAGE_BLOCKS
        grams = np.concatenate(overlaps)
        seen, counts = np.unique(grams, return_counts=True)
        every, first, repeats = np.unique(np.concatenate(shingles), return_index=True, return_counts=True)
        own = first[repeats == 1]
        owner_of = np.concatenate(owners)[own]
        return cls(
            overlaps=seen[counts == 1],
            shingles=every[repeats == 1],
            block_of=np.concatenate(blocks)[own],
            size_of=np.bincount(owner_of)[owner_of] if len(owner_of) else _NO_NUMBERS,
        )

    def is_quoted(self, overlaps: Hashes, shingles: Hashes, at_least: int) -> bool:
        """Whether `at_least` of distinct 13-grams are held out, or as many 5-grams of one passage as these would make.

        A passage is four blocks in a row, about 128 words, or a whole text that is shorter. So a copy is found that
        was edited at every seventh word, and in which no run of 13 words is left.
        """
        if len(_found(self.overlaps, overlaps)) >= at_least:
            return True
        places = _found(self.shingles, shingles)
        order = np.argsort(self.block_of[places], kind="stable")
        blocks, sizes = self.block_of[places][order], self.size_of[places][order]
        in_passage = np.searchsorted(blocks, blocks + _PASSAGE_BLOCKS) - np.arange(len(blocks))
        needed = np.minimum(sizes, OVERLAP_WORDS - SHINGLE_WORDS + at_least)
        return bool(np.any((in_passage >= needed) & (sizes >= _FEWEST_SHINGLES)))


_NO_HASHES: Hashes = np.empty(0, dtype=np.uint64)
_NO_NUMBERS: NDArray[np.int64] = np.empty(0, dtype=np.int64)

HeldOut = tuple[Index, ...]


def check(evidence: Evidence) -> Verdict:
    """Share of rows that quote the evaluation pack, documents or cloze items, also in edited form.

    Quotations happen on the honest web: the share may be as high as `max_contaminated_share`, or twice what canonical
    work on the drawn WARC file shows. Rows that quote are left out of the proxy's arms either way.
    """
    rules = evidence.rules.gates
    leaked = held_out(evidence.pack)
    share = _quoting_share(evidence.rows.texts(), leaked, rules.leaked_ngrams)
    if share > rules.max_contaminated_share:
        expected = _quoting_share(evidence.canonical.texts(), leaked, rules.leaked_ngrams)
        if share > 2 * expected:
            return failed(GATE, "rows quote the evaluation pack", share=share, canonical_share=expected)
    return passed(GATE, share=share)


@lru_cache(maxsize=2)
def held_out(pack: EvalPack) -> HeldOut:
    """What submissions may not quote. Cloze items are apart, since they may be made of the very documents."""
    cloze = (item.context + item.choices[item.answer] for item in pack.cloze)
    return Index.of(document.text for document in pack.documents), Index.of(cloze)


def quotes(text: str, leaked: HeldOut, at_least: int) -> bool:
    """Whether a text quotes evaluation text: `at_least` distinct 13-grams, or an edited copy as `Index` finds it."""
    tokens = words(text)
    overlaps, shingles = (np.unique(ngram_hashes(tokens, size)) for size in (OVERLAP_WORDS, SHINGLE_WORDS))
    return any(index.is_quoted(overlaps, shingles, at_least) for index in leaked)


def _found(known: Hashes, wanted: Hashes) -> NDArray[np.int64]:
    """Places in `known`, sorted, of the wanted hashes that it holds."""
    if not len(known):
        return _NO_NUMBERS
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found: NDArray[np.int64] = places[known[places] == wanted]
    return found


def _quoting_share(texts: Iterator[str], leaked: HeldOut, at_least: int) -> float:
    flags = [quotes(text, leaked, at_least) for text in texts]
    return sum(flags) / len(flags) if flags else 0.0
