"""What happened to the records of a refinement, for people: counts by reason, and a few examples of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXAMPLES_PER_REASON = 3


@dataclass(frozen=True)
class Example:
    """A rejected document: its URL, or other source URI, and the beginning of its text as far as there was any."""

    url: str
    excerpt: str


@dataclass(frozen=True)
class Flow:
    """Rejected records by reason, and of each reason at most the first EXAMPLES_PER_REASON, in order of the input.

    Reasons that the reader gives (`not-html`, `truncated`) and near-duplicates have counts without examples.
    """

    counts: dict[str, int]
    examples: dict[str, tuple[Example, ...]]


def joined(flows: Iterable[Flow]) -> Flow:
    """One flow of several in order."""
    counts: dict[str, int] = {}
    examples: dict[str, tuple[Example, ...]] = {}
    for flow in flows:
        for reason, count in flow.counts.items():
            counts[reason] = counts.get(reason, 0) + count
        for reason, found in flow.examples.items():
            examples[reason] = (examples.get(reason, ()) + found)[:EXAMPLES_PER_REASON]
    return Flow(dict(sorted(counts.items())), dict(sorted(examples.items())))
