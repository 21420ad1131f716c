"""How lm-eval reads a cloze item. Copied beside the tasks that name it, so it stands alone.

The first number to look at is `answer_bits_per_byte`: it moves long before accuracies do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def process_results(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """`results` holds each choice's log-likelihood in nats, and whether it is the greedy one."""
    nats = [loglikelihood for loglikelihood, _ in results]
    per_byte = [nat / len(choice.encode()) for nat, choice in zip(nats, doc["choices"], strict=True)]
    answer = doc["answer"]
    return {
        "answer_bits_per_byte": -per_byte[answer] / math.log(2),
        "acc": float(max(nats) == nats[answer]),
        "acc_bytes": float(max(per_byte) == per_byte[answer]),
    }
