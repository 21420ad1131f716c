"""Cheap screens of the text as a whole. They stop a set or let it through; they never reward it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from athena.judge.evidence import Evidence, Rows
from athena.judge.gates.ngram_model import Ids, NgramModel, bits_per_byte, stream_of
from athena.judge.verdicts import failed, passed
from athena.judge.words import SHINGLE_WORDS, ngram_hashes, words
from athena.protocol import Verdict
from athena.refine.text.bpe import VOCABULARY_SIZE

GATE = "screens"
_MAX_NGRAMS = 2_000_000
_MAX_ROWS = 50_000
_EVAL_DOCUMENTS = 8  # of each domain
_EVAL_CHARS = 4_000  # of each document
_BUCKETS = 10_000  # as many as DSIR hashes to
_MULTIPLIER = 2_654_435_761  # Knuth's, for multiplicative hashing


def check(evidence: Evidence) -> Verdict:
    """Repetition inside the set, then what its drawn WARC file teaches about evaluation text.

    Tiny proxies forgive repetition that a large model would suffer from. The rows of the drawn WARC file are compared
    with canonical work on it, as much text of each: how far its uni- and bigrams lie from those of evaluation text,
    and how well a 5-gram model trained on it predicts that. Only what is worse by more than any honest recipe fails;
    what is merely worse is for the proxy to price.
    """
    rules = evidence.rules.gates
    distinct = distinct_ngram_share(evidence.rows)
    if distinct < rules.min_distinct_ngram_share:
        return failed(GATE, "the text repeats itself", distinct_ngram_share=distinct)
    budget = min(rules.screen_chars, *(_chars(rows) for rows in (evidence.drawn, evidence.canonical)))
    if budget < rules.min_screen_chars or not evidence.pack.documents:
        return passed(GATE, distinct_ngram_share=distinct, compared_chars=0)
    drawn = evidence.pack.draw(evidence.case.seed("screens"), _EVAL_DOCUMENTS)
    target = [document.text[:_EVAL_CHARS] for document in drawn]
    mine, canonical = (
        _teaches(_sample(rows, seed, budget), target)
        for rows, seed in (
            (evidence.drawn, evidence.seed("screens")),
            (evidence.canonical, evidence.case.seed("screens")),
        )
    )
    found = {
        "distinct_ngram_share": distinct,
        "compared_chars": budget,
        "divergence": mine[0],
        "canonical_divergence": canonical[0],
        "ngram_bits_per_byte": mine[1],
        "canonical_ngram_bits_per_byte": canonical[1],
    }
    if mine[0] - canonical[0] > rules.max_excess_divergence:
        return failed(GATE, "its words are not those of evaluation text", **found)
    if mine[1] - canonical[1] > rules.max_excess_ngram_bits:
        return failed(GATE, "a 5-gram model learns next to nothing from it", **found)
    return passed(GATE, **found)


def distinct_ngram_share(rows: Rows) -> float:
    """Distinct word 5-grams by all of them, of the first two million; 1 for a set that has none."""
    found, total = [np.empty(0, dtype=np.uint64)], 0
    for text in rows.texts():
        found.append(ngram_hashes(words(text), SHINGLE_WORDS))
        total += len(found[-1])
        if total >= _MAX_NGRAMS:
            break
    return len(np.unique(np.concatenate(found))) / total if total else 1.0


def divergence(target: Ids, stream: Ids) -> float:
    """KL(target || stream) of hashed uni- and bigrams of tokens, in bits: DSIR's features (Xie et al. 2023)."""
    wanted, given = _features(target), _features(stream)
    return float(np.sum(wanted * np.log2(wanted / given)))


def _features(stream: Ids) -> NDArray[np.float64]:
    bigrams = (stream[:-1] + 1) * VOCABULARY_SIZE + stream[1:]
    mixed = np.concatenate([stream, bigrams]).astype(np.uint64) * np.uint64(_MULTIPLIER)
    counts = np.bincount(((mixed >> np.uint64(16)) % np.uint64(_BUCKETS)).astype(np.int64), minlength=_BUCKETS) + 1.0
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _teaches(texts: Sequence[str], target: Sequence[str]) -> tuple[float, float]:
    """Divergence of evaluation text from the texts, and bits per byte on it of a model that they trained."""
    stream = stream_of(texts)
    return divergence(stream_of(target), stream), bits_per_byte(NgramModel(stream), target)


def _chars(rows: Rows) -> int:
    return int(pc.sum(pc.utf8_length(rows.table["text"])).as_py() or 0)


def _sample(rows: Rows, seed: bytes, chars: int) -> list[str]:
    """Drawn rows of together so many characters, the last of them cut; of fewer where 50,000 rows have fewer."""
    texts: list[str] = []
    for text in rows.drawn_texts(seed, _MAX_ROWS):
        texts.append(text[:chars])
        chars -= len(texts[-1])
        if not chars:
            break
    return texts
