"""Does the model find the right one of several ways a text may go on? Items are the pack's.

The first number to look at is the right choice's bits per byte: it moves long before accuracy does.
"""

from __future__ import annotations

import math

from athena.evalpack import EVALUATION_SEED
from athena.evaluation import SuiteResult, measured
from athena.evaluations.likelihood import nats
from athena.evaluations.subject import Subject, material


def cloze(subject: Subject) -> SuiteResult:
    """answer_bits_per_byte, and accuracy by the likelihood of a byte."""
    items = subject.pack.draw_cloze(EVALUATION_SEED, subject.per_domain)
    asked = material("cloze/1", subject.pack.hash, subject.per_domain)
    if not items:
        return SuiteResult(material=asked, not_run="the evaluation pack has no cloze items")
    pairs = [(item.context, choice) for item in items for choice in item.choices]
    found = iter(nats(subject, pairs))
    right_bits, right_bytes, hits = [], [], []
    for item in items:
        bits = [next(found) / math.log(2) for _ in item.choices]
        sizes = [len(choice.encode()) for choice in item.choices]
        per_byte = [b / size for b, size in zip(bits, sizes, strict=True)]
        right_bits.append(bits[item.answer])
        right_bytes.append(float(sizes[item.answer]))
        hits.append(float(min(per_byte) == per_byte[item.answer]))
    return SuiteResult(
        material=asked,
        metrics={
            "answer bits per byte": measured(right_bits, better="lower", unit="bits/byte", weights=right_bytes),
            "accuracy": measured(hits, better="higher", unit="share"),
        },
    )
