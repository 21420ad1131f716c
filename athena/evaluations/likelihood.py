"""How likely a model finds a text after another one: what cloze items, pairs and canaries are decided by."""

from __future__ import annotations

from collections.abc import Sequence

from athena.evaluate import Window, start_token, summed_nats, token_ids
from athena.evaluations.subject import Subject

LOGITS_AT_A_TIME = 2**25
"""Of float32, so 128 MiB and as much again for their logarithms."""
MAX_ROWS = 64


def nats(subject: Subject, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Each continuation's negative log-likelihood after its context, the pairs' second after their first, in nats.

    Both are tokenized as one text, and the tokens behind as many as the context has alone count, as lm-eval does it.
    A context may be empty; one too long for the window loses its beginning.
    """
    rows = [_row(subject, index, *pair) for index, pair in enumerate(pairs)]
    widest = max((len(row.ids) for row in rows), default=1)
    per_batch = min(MAX_ROWS, max(1, LOGITS_AT_A_TIME // (widest * len(subject.tokenizer))))
    return summed_nats(subject.model, rows, len(rows), per_batch)


def _row(subject: Subject, index: int, context: str, continuation: str) -> Window:
    whole = token_ids(subject.tokenizer, context + continuation)
    behind = min(len(token_ids(subject.tokenizer, context)) if context else 0, len(whole) - 1)
    scored = min(len(whole) - behind, subject.window)
    return Window(index, [start_token(subject.tokenizer), *whole][-(subject.window + 1) :], scored)
