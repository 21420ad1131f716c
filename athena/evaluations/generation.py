"""Does the model write what the text goes on with? BLEU and F1 of words on the second halves of documents, and of
right choices of cloze items.

Small models score low; what counts is the difference between two models on the same prompts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from athena.evalpack import EVALUATION_SEED
from athena.evaluation import Metric, SuiteResult, measured
from athena.evaluations.generating import go_on
from athena.evaluations.subject import Subject, material

PROMPT_WORDS, ANSWER_WORDS = 40, 24
NEW_TOKENS = 40
MAX_PER_DOMAIN = 16
"""Generating costs far more than reading; sixteen prompts of eight domains are 128."""
_WORD = re.compile(r"\w+")


def generation(subject: Subject) -> SuiteResult:
    """BLEU and F1 of continuations by the likeliest tokens."""
    per_domain = min(subject.per_domain, MAX_PER_DOMAIN)
    asked = material("generation/1", subject.pack.hash, per_domain, PROMPT_WORDS, ANSWER_WORDS, NEW_TOKENS)
    pieces = [document.text.split() for document in subject.pack.draw(EVALUATION_SEED, per_domain)]
    texts = [
        (" ".join(words[:PROMPT_WORDS]), " ".join(words[PROMPT_WORDS : PROMPT_WORDS + ANSWER_WORDS]))
        for words in pieces
        if len(words) >= PROMPT_WORDS + ANSWER_WORDS
    ]
    items = [
        (item.context, item.choices[item.answer].strip())
        for item in subject.pack.draw_cloze(EVALUATION_SEED, per_domain)
    ]
    if not texts:
        return SuiteResult(material=asked, not_run="the evaluation pack has no document that is long enough")
    metrics = {f"documents, {name}": metric for name, metric in _scores(subject, texts).items()}
    metrics |= {f"cloze, {name}": metric for name, metric in (_scores(subject, items) if items else {}).items()}
    return SuiteResult(material=asked, metrics=metrics)


def _scores(subject: Subject, pairs: Sequence[tuple[str, str]]) -> dict[str, Metric]:
    """BLEU of all answers together (it has no item of its own, so it only informs), and the mean F1 of words."""
    from sacrebleu.metrics.bleu import BLEU

    written = go_on(subject, [prompt for prompt, _ in pairs], NEW_TOKENS)
    answers = [
        " ".join(text.split()[: len(reference.split())]) for text, (_, reference) in zip(written, pairs, strict=True)
    ]
    references = [reference for _, reference in pairs]
    bleu = BLEU().corpus_score(answers, [references]).score
    f1 = [word_f1(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    return {
        "BLEU": Metric(value=round(bleu, 4), unit="of 100", better="higher"),
        "F1": measured(f1, better="higher", unit="share"),
    }


def word_f1(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall of words, each counted as often as it is there; 0 to 1."""
    given, wanted = (Counter(_WORD.findall(text.lower())) for text in (answer, reference))
    common = sum((given & wanted).values())
    return 2 * common / (sum(given.values()) + sum(wanted.values())) if common else 0.0
