"""Gate 6: cheap screens. They stop a set or let it through; they never reward it."""

from __future__ import annotations

from athena.judge.evidence import Evidence
from athena.judge.verdicts import failed, passed
from athena.judge.words import SHINGLE_WORDS, ngrams, words
from athena.protocol import Verdict

GATE = "screens"
_MAX_NGRAMS = 2_000_000


def check(evidence: Evidence) -> Verdict:
    """Distinct word 5-grams by all of them: tiny proxies forgive repetition that a large model would suffer from."""
    distinct: set[int] = set()
    total = 0
    for text in evidence.rows.texts():
        for ngram in ngrams(words(text), SHINGLE_WORDS):
            distinct.add(ngram)
            total += 1
        if total >= _MAX_NGRAMS:
            break
    share = len(distinct) / total if total else 1.0
    if share < evidence.rules.gates.min_distinct_ngram_share:
        return failed(GATE, "the text repeats itself", distinct_ngram_share=share)
    return passed(GATE, distinct_ngram_share=share)
