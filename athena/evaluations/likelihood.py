"""How likely a model finds a text after another one: what cloze items, pairs and canaries are decided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from athena.evaluate import start_token
from athena.evaluations.subject import Subject

LOGITS_AT_A_TIME = 2**25
"""Of float32, so 128 MiB and as much again for their logarithms."""
MAX_ROWS = 64


@dataclass(frozen=True)
class _Row:
    """Of `ids`, the last `scored` are predicted from those before them."""

    index: int
    ids: list[int]
    scored: int


@torch.no_grad()
def nats(subject: Subject, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Each continuation's negative log-likelihood after its context, the pairs' second after their first, in nats.

    Both are tokenized as one text, and the tokens behind as many as the context has alone count, as lm-eval does it.
    A context may be empty; one too long for the window loses its beginning. Rows of like length go through together,
    padded on the right, which earlier positions of a causal model do not see.
    """
    model = subject.model
    was_training = model.training
    model.eval()
    found = [0.0] * len(pairs)
    rows = sorted((_row(subject, i, *pair) for i, pair in enumerate(pairs)), key=lambda row: (len(row.ids), row.index))
    widest = max((len(row.ids) for row in rows), default=1)
    per_batch = min(MAX_ROWS, max(1, LOGITS_AT_A_TIME // (widest * len(subject.tokenizer))))
    waiting = iter(rows)
    while batch := list(islice(waiting, per_batch)):
        longest = len(batch[-1].ids)
        ids = torch.tensor([row.ids + [row.ids[0]] * (longest - len(row.ids)) for row in batch], device=model.device)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        for number, row in enumerate(batch):
            last = len(row.ids) - 1
            scored = slice(last - row.scored, last)
            log_probability = torch.log_softmax(logits[number, scored].float(), dim=-1)
            labels = ids[number, 1:][scored, None]
            found[row.index] = -float(log_probability.gather(-1, labels).double().sum())
    model.train(was_training)
    return found


def encode(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text; one that spells a special token out is plain text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


def _row(subject: Subject, index: int, context: str, continuation: str) -> _Row:
    whole = encode(subject.tokenizer, context + continuation)
    behind = min(len(encode(subject.tokenizer, context)) if context else 0, len(whole) - 1)
    scored = min(len(whole) - behind, subject.window)
    return _Row(index, [start_token(subject.tokenizer), *whole][-(subject.window + 1) :], scored)
