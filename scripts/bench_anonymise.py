"""Precision and recall of `Anonymise` on labelled texts, and its cost beside datatrove's PIIFormatter.

    python scripts/bench_anonymise.py [--show]

A find counts where it covers the labelled characters, no fewer and no more. Prints the table of docs/recipes.md, with
--show what was missed and what was taken by mistake, and last a line of JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datatrove.pipeline.formatters import PIIFormatter
from personal_texts import FILLER, HOME, Labelled, labelled_texts

from athena.refine.recipe import Page
from athena.refine.records import Record
from athena.refine.steps.anonymise import ALL, Anonymise, ReplacePii, spans

PROSE_DOCUMENTS = 200
PROSE_SENTENCES = 60
RECORD = Record("a", 0, 1, "<urn:uuid:1>", "http://a.example/", "2026-01-01T00:00:00Z", "sha1:A", None, b"")


@dataclass(frozen=True)
class Score:
    """Of one kind: labels, finds, and finds that are labels."""

    labels: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.labels if self.labels else 1.0


def scores(texts: Sequence[Labelled]) -> dict[str, Score]:
    labels = dict.fromkeys(ALL, 0)
    found, right = dict(labels), dict(labels)
    for item in texts:
        for span in item.spans:
            labels[span.kind] += 1
        for span in spans(item.text, ALL, HOME):
            found[span.kind] += 1
            right[span.kind] += span in item.spans
    return {kind: Score(labels[kind], found[kind], right[kind]) for kind in ALL}


def table(found: dict[str, Score]) -> str:
    rows = [f"| {kind} | {s.labels} | {s.precision:.3f} | {s.recall:.3f} |" for kind, s in found.items()]
    return "\n".join(["| kind | labels | precision | recall |", "|---|---|---|---|", *rows])


def show_faults(texts: Sequence[Labelled]) -> None:
    for item in texts:
        found = spans(item.text, ALL, HOME)
        for word, wrong in (("missed", set(item.spans) - set(found)), ("mistaken", set(found) - set(item.spans))):
            for span in wrong:
                print(word, span.kind, repr(item.text[span.start : span.end]), "in", repr(item.text))


def seconds_per_million_characters(work: Callable[[str], object], texts: Sequence[str]) -> float:
    start = time.process_time()
    for text in texts:
        work(text)
    return (time.process_time() - start) / sum(map(len, texts)) * 1e6


def prose(labelled: Sequence[Labelled]) -> list[str]:
    """Documents of which every tenth holds one labelled text, about as often as pages do."""
    draw = random.Random(1)
    documents = []
    for index in range(PROSE_DOCUMENTS):
        sentences = [draw.choice(FILLER) for _ in range(PROSE_SENTENCES)]
        documents.append("".join([*sentences, draw.choice(labelled).text if index % 10 == 0 else ""]))
    return documents


def main() -> None:
    texts = labelled_texts()
    found = scores(texts)
    print(table(found))
    if "--show" in sys.argv[1:]:
        show_faults(texts)
    documents = prose(texts)
    stock = PIIFormatter(email_replacement="email@example.com", ip_replacement="22.214.171.124")
    steps = {"pii": ReplacePii(), "anonymise": Anonymise()}
    base = seconds_per_million_characters(stock.format, documents)
    times = {
        name: seconds_per_million_characters(lambda text, step=step: step.apply(Page(RECORD, "", text)), documents)
        for name, step in steps.items()
    }
    result = {kind: {"precision": round(s.precision, 4), "recall": round(s.recall, 4)} for kind, s in found.items()}
    speed = {f"{name}_times_stock_speed": round(base / seconds, 1) for name, seconds in times.items()}
    print(json.dumps({**result, **speed}))


if __name__ == "__main__":
    main()
