"""How many human-labelled texts of the web each recipe keeps: python scripts/bench_quality.py [--recipe NAME ...]

The 499 texts of Common Crawl that DCLM's annotators labelled good (1) or bad (0) by majority (arXiv 2406.11794, from
mlfoundations/dclm). They hold text, not pages, so a recipe's steps run without its extraction, and without a list of
URLs to match. One JSON line per recipe: texts, texts kept, balanced accuracy = (good kept + bad dropped) / 2 as
shares, and how many good and bad texts each step dropped. A recipe whose model is not on this machine gets null.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench_data import add_data_option

from athena.errors import Misconfigured
from athena.refine.recipe import Document, Recipe, Rejected, load_recipe, recipe_names
from athena.refine.records import Record

LABELLED = "quality/dclm-majority.jsonl"
GOOD, BAD = 1, 0


def labelled(data: Path) -> list[tuple[str, int]]:
    """(text, GOOD or BAD) in the file's order, from the folder of real pages and texts."""
    rows = [json.loads(line) for line in (data / LABELLED).read_text("utf-8").splitlines()]
    return [(row["text"], int(row["label"])) for row in rows]


def keeps(recipe: Recipe, text: str) -> bool:
    """Whether the steps that judge one document by itself let the text pass; of duplicates all pass."""
    return isinstance(judged(recipe, text), Document)


def judged(recipe: Recipe, text: str) -> Document | Rejected:
    body = text.encode("utf-8", "replace")
    digest = hashlib.sha1(body).hexdigest()
    return recipe.process(
        Record(
            warc_path=f"text:{digest}",
            offset=0,
            length=len(body),
            record_id=digest,
            url="https://text.example/",
            date="",
            payload_digest=f"sha1:{digest}",
            charset="utf-8",
            body=body,
            is_text=True,
        )
    )


def balanced_accuracy(kept: Sequence[bool], labels: Sequence[int]) -> float:
    """Mean of the share of good texts kept and the share of bad texts dropped: 0.5 for a coin."""
    outcomes = Counter(zip(labels, kept, strict=True))
    good = outcomes[GOOD, True] / max(1, outcomes[GOOD, True] + outcomes[GOOD, False])
    bad = outcomes[BAD, False] / max(1, outcomes[BAD, True] + outcomes[BAD, False])
    return (good + bad) / 2


def report(recipe: Recipe, texts: Sequence[tuple[str, int]]) -> dict[str, object]:
    results = [(judged(recipe, text), label) for text, label in texts]
    kept = [isinstance(result, Document) for result, _ in results]
    labels = [label for _, label in results]
    dropped: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for result, label in results:
        if isinstance(result, Rejected):
            dropped[result.reason][0 if label == GOOD else 1] += 1
    return {
        "recipe": recipe.name,
        "good": labels.count(GOOD),
        "good_kept": sum(k for k, label in zip(kept, labels, strict=True) if label == GOOD),
        "bad": labels.count(BAD),
        "bad_kept": sum(k for k, label in zip(kept, labels, strict=True) if label == BAD),
        "balanced_accuracy": round(balanced_accuracy(kept, labels), 4),
        "dropped_good_bad": dict(sorted(dropped.items(), key=lambda item: (-sum(item[1]), item[0]))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--recipe", action="append", help="name or .py file; repeatable; all of the package by default")
    options = parser.parse_args()
    texts = labelled(options.data)
    for spec in options.recipe or recipe_names():
        recipe = load_recipe(spec)
        try:
            found = report(recipe, texts)
        except Misconfigured as lacking:
            found = {"recipe": recipe.name, "balanced_accuracy": None, "reason": str(lacking)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
