"""Measures how well and how fast extractors find the main text of pages that people have labelled.

    python scripts/bench_extract.py [--all] [--quick] [--data FOLDER]

`ours` is the extraction step of fineweb-1, `fineweb` the setting that FineWeb was published with (trafilatura with
`favor_precision` and `deduplicate`, its cache emptied before each page so that the order does not count). --all adds
other settings and extractors. F1 is the overlap of words, each as often as it occurs, in lower case, mean over pages.
The extractors take turns on each page; seconds are processor seconds, `speed` is relative to `fineweb`.

Prints JSON lines; the last one is {set: {"ours": F1, "fineweb": F1}}.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trafilatura
from bench_data import add_data_option
from resiliparse.extract.html2text import extract_plain_text
from trafilatura.deduplication import LRUCache

from athena.errors import BadInput
from athena.refine.records import decoded, read_records
from athena.refine.steps.extraction import EXTRACTION_FAULTS
from athena.refine.text.html import visible_text
from athena.refine.text.main_text import main_text

SETS = ("scrapinghub", "wcxb-dev", "readability")
QUICK_PAGES = 40
WORD = re.compile(r"\w+")
Extractor = Callable[[str], str | None]


def fineweb(html: str) -> str | None:
    cache = LRUCache(maxsize=4096)
    text: str | None = trafilatura.extract(html, favor_precision=True, include_comments=False, deduplicate=cache)
    return text


def stock(**setting: Any) -> Extractor:
    return lambda html: trafilatura.extract(html, include_comments=False, **setting)


REQUIRED: dict[str, Extractor] = {"ours": main_text, "fineweb": fineweb}
OTHERS: dict[str, Extractor] = {
    "trafilatura default": stock(),
    "trafilatura fast": stock(fast=True),
    "trafilatura precision": stock(favor_precision=True),
    "trafilatura recall": stock(favor_recall=True),
    "resiliparse main content": lambda html: str(extract_plain_text(html, main_content=True, alt_texts=False)),
}


def labelled(folder: Path, quick: bool) -> Iterator[tuple[str, str]]:
    """(page, its main text as labelled), in the order of the file; with `quick`, few of them, evenly spaced."""
    labels = json.loads(gzip.decompress((folder / "labels.json.gz").read_bytes()))
    step = max(1, len(labels) // QUICK_PAGES) if quick else 1
    with (folder / "pages.warc.gz").open("rb") as file:
        for number, record in enumerate(read_records(file, folder.name)):
            if number % step or record.url not in labels:
                continue
            try:
                page = decoded(record)
            except BadInput:
                page = ""
            yield page, label_text(labels[record.url])


def label_text(label: str | dict[str, Any]) -> str:
    """The three sets label with a text, with a field of text among others, or with HTML."""
    if isinstance(label, str):
        return label
    return str(label["main_content"]) if "main_content" in label else visible_text(label["expected_html"])


def f1(found: str, wanted: str) -> float:
    """Of two bags of words; 1 if both are empty."""
    words, expected = Counter(WORD.findall(found.lower())), Counter(WORD.findall(wanted.lower()))
    if not words and not expected:
        return 1.0
    return 2 * (words & expected).total() / (words.total() + expected.total())


def measure(folder: Path, extractors: dict[str, Extractor], quick: bool) -> dict[str, dict[str, float]]:
    """F1 and processor seconds of each extractor over the pages of a set; where one fails, its text counts as empty."""
    for extract in extractors.values():
        extract("<html><body><p>What loads at the first page does not count.</body></html>")
    scores, seconds = dict.fromkeys(extractors, 0.0), dict.fromkeys(extractors, 0.0)
    num_pages = 0
    for page, wanted in labelled(folder, quick):
        num_pages += 1
        for name, extract in extractors.items():
            start = time.process_time()
            try:
                found = extract(page) or ""
            except EXTRACTION_FAULTS:
                found = ""
            seconds[name] += time.process_time() - start
            scores[name] += f1(found, wanted)
    results = {name: {"f1": scores[name] / num_pages, "seconds": seconds[name]} for name in extractors}
    for name, result in results.items():
        speed = seconds["fineweb"] / seconds[name]
        line = {"set": folder.name, "extractor": name, "pages": num_pages, "f1": round(result["f1"], 4)}
        print(json.dumps({**line, "pages_per_second": round(num_pages / seconds[name], 1), "speed": round(speed, 2)}))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="other settings and extractors too")
    parser.add_argument("--quick", action="store_true", help=f"about {QUICK_PAGES} pages of each set")
    add_data_option(parser)
    options = parser.parse_args()
    folders = [options.data / "extraction" / name for name in SETS]
    for folder in folders:
        if not (folder / "labels.json.gz").is_file():
            parser.error(f"{folder} has no labels.json.gz; see --data")
    logging.disable(logging.CRITICAL)  # trafilatura reports each page without text
    extractors = REQUIRED | (OTHERS if options.all else {})
    results = {folder.name: measure(folder, extractors, options.quick) for folder in folders}
    print(json.dumps({name: {arm: round(found[arm]["f1"], 4) for arm in REQUIRED} for name, found in results.items()}))


if __name__ == "__main__":
    main()
