"""Measures pages per second per core of the canonical recipe, against datatrove's own blocks, on real pages.

    python scripts/bench_refine.py [--quick] [--data FOLDER] [--stock FOLDER]

Three processes: `ours` runs the recipe, `published` runs unmodified datatrove blocks with FineWeb's settings, and
`canonical` runs them with the settings of fineweb-1, without a clock. The pages are cut into small WARC files, and the
processes take turns, one file and one process at a time, so that what else the machine does meets all of them. Each has
warmed up with the last file before. Seconds are processor seconds of one thread, children included.

A page is English if its labelled main content is, to fastText with more than 0.65, FineWeb's threshold: so the set
depends on no extractor; the English set is those of WCXB's development set. The mixed set is trafilatura's evaluation,
whose pages are in many languages, German most of all. `all_ratio` counts all pages of both, other WCXB pages too. With
--quick one file of each group stands for all pages of the group.

`identical` says that ours and the canonical blocks kept the same record ids with the same sha256 of the text, before
the search for duplicates across pages. Prints JSON lines; the last one holds what the targets are about.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_data import add_data_option
from bench_refine_arms import ARMS
from fastwarc.warc import ArchiveIterator, WarcRecordType

from athena.refine.text.language import identify

ROOT = Path(__file__).parents[1]
SETS = ("wcxb-dev", "trafilatura")
ENGLISH, OTHER, MIXED = "english (wcxb-dev)", "other (wcxb-dev)", "mixed (trafilatura)"
ENGLISH_THRESHOLD = 0.65
PAGES_PER_FILE = 48


@dataclass(frozen=True)
class Chunk:
    """A WARC file of few pages of one group."""

    path: Path
    group: str
    num_pages: int


@dataclass
class Arm:
    """A process that refines, and what it has told so far."""

    name: str
    process: subprocess.Popen[str]
    seconds: Counter[str] = field(default_factory=Counter)
    by_step: Counter[str] = field(default_factory=Counter)
    kept: dict[str, str] = field(default_factory=dict)
    peak_mib: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, recipe: str, stock: Path) -> Arm:
        script = ROOT / "scripts" / "bench_refine_arms.py"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
        if name != "ours":
            environment |= {"PYTHONPATH": str(stock), "HF_ASSETS_CACHE": str(stock / "assets")}
        command = [sys.executable, str(script), name, "--recipe", recipe]
        return cls(name, subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True))

    def refine(self, chunk: Chunk, *, counts: bool) -> None:
        """Raises RuntimeError if the process has died; it has said why."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(chunk.path, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} ended at {chunk.path}")
        answer = json.loads(line)
        self.parameters, self.peak_mib = answer["parameters"], answer["peak_mib"]
        if counts:
            self.seconds[chunk.group] += answer["cpu_seconds"]
            self.by_step.update(answer["by_step"])
            self.kept |= answer["kept"]

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--stock", type=Path, default=ROOT / "build" / "stock", help="packages of the stock blocks")
    parser.add_argument("--recipe", default="fineweb-1", help="what ours runs")
    parser.add_argument("--quick", action="store_true", help="one file of each group")
    options = parser.parse_args()
    sources = {name: options.data / "extraction" / name for name in SETS}
    for needed in (*(source / "pages.warc.gz" for source in sources.values()), options.stock / "fasttext"):
        if not needed.exists():
            parser.error(f"{needed} is not there; see --data and --stock, and run `make bench-refine` for the latter")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="athena-bench-", dir="/var/tmp")))
        chunks = cut(sources, folder)
        warm_up = chunks[-1]
        whole = sizes(chunks)
        if options.quick:
            chunks = list({chunk.group: chunk for chunk in reversed(chunks)}.values())
        arms = {name: Arm.start(name, options.recipe, options.stock) for name in ARMS}
        for arm in arms.values():
            stack.callback(arm.stop)
            arm.refine(warm_up, counts=False)
        for number, chunk in enumerate(chunks):
            say(f"file {number + 1} of {len(chunks)}: {chunk.num_pages} pages, {chunk.group}")
            for turn in range(len(ARMS)):
                arms[ARMS[(number + turn) % len(ARMS)]].refine(chunk, counts=True)
        for line in report(arms, chunks, whole):
            print(json.dumps(line), flush=True)


def cut(sources: Mapping[str, Path], folder: Path) -> list[Chunk]:
    """All pages, with the records that belong to them, in files of one group each."""
    chunks = []
    for name, source in sources.items():
        english = english_urls(source / "labels.json.gz") if name == "wcxb-dev" else frozenset()
        groups: dict[str, list[bytes]] = {}
        for url, records in pages(source / "pages.warc.gz"):
            group = MIXED if name == "trafilatura" else ENGLISH if url in english else OTHER
            groups.setdefault(group, []).append(records)
        for group, members in groups.items():
            for start in range(0, len(members), PAGES_PER_FILE):
                part = members[start : start + PAGES_PER_FILE]
                path = folder / f"{len(chunks):03}.warc.gz"
                path.write_bytes(b"".join(part))
                chunks.append(Chunk(path, group, len(part)))
    return chunks


def english_urls(labels: Path) -> frozenset[str]:
    with gzip.open(labels, "rt", encoding="utf-8") as file:
        contents = {url: label["main_content"] or "" for url, label in json.load(file).items()}
    return frozenset(url for url, text in contents.items() if identify(text).get("en", 0.0) > ENGLISH_THRESHOLD)


def pages(path: Path) -> Iterator[tuple[str, bytes]]:
    """URL, and the compressed bytes of request, response and metadata, of each page."""
    raw = path.read_bytes()
    starts: list[tuple[int, str]] = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file, parse_http=False):
            if record.record_type == WarcRecordType.request:
                starts.append((record.stream_pos, record.headers["WARC-Target-URI"]))
    for (start, url), (end, _) in zip(starts, [*starts[1:], (len(raw), "")], strict=True):
        yield url, raw[start:end]


def inflate_seconds(chunks: Sequence[Chunk]) -> float:
    """Processor seconds to unpack the files by zlib, which no reader can go below."""
    start = time.process_time()
    for chunk in chunks:
        rest = chunk.path.read_bytes()
        while rest:
            member = zlib.decompressobj(wbits=31)
            member.decompress(rest)
            rest = member.unused_data
    return time.process_time() - start


def sizes(chunks: Sequence[Chunk]) -> Counter[str]:
    """Pages by group."""
    found = Counter[str]()
    for chunk in chunks:
        found[chunk.group] += chunk.num_pages
    return found


def report(arms: Mapping[str, Arm], chunks: Sequence[Chunk], whole: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Lines to print. `whole` has the pages by group of all sets, of which the chunks may be a sample."""
    measured = sizes(chunks)
    seconds = {
        name: {group: whole[group] * arm.seconds[group] / measured[group] for group in whole}
        for name, arm in arms.items()
    }
    limit = measured.total() / inflate_seconds(chunks)
    yield {"pages": dict(whole), "measured": dict(measured), "inflate_only_pages_per_second": round(limit, 1)}
    for name, arm in arms.items():
        by_group = {group: round(whole[group] / seconds[name][group], 2) for group in whole}
        everything = round(sum(whole.values()) / sum(seconds[name].values()), 2)
        told = {"kept": len(arm.kept), "peak_mib": arm.peak_mib, "parameters": arm.parameters}
        yield {"arm": name, "pages_per_second": {"all": everything, **by_group}, **told}
    ours, canonical = arms["ours"], arms["canonical"]
    yield {"time_by_step": shares(ours.by_step, ours.seconds.total())}
    yield {"canonical": {**ratios(seconds["canonical"], seconds["ours"]), **different(ours.kept, canonical.kept)}}
    published = ratios(seconds["published"], seconds["ours"])
    yield {"published": published}
    yield {
        "mixed_ratio": published["mixed_ratio"],
        "english_ratio": published["english_ratio"],
        "identical": identical(ours.kept, canonical.kept),
        "peak_mib_per_worker": ours.peak_mib,
    }


def shares(by_step: Mapping[str, float], total: float) -> dict[str, float]:
    """Of all processor time; what no step accounts for is reading."""
    found = {step: round(seconds / total, 4) for step, seconds in by_step.items()}
    return {"read": round(1 - sum(by_step.values()) / total, 4), **found}


def ratios(slow: Mapping[str, float], fast: Mapping[str, float]) -> dict[str, float]:
    """How many times more pages per second, of seconds by group."""
    return {
        "mixed_ratio": round(slow[MIXED] / fast[MIXED], 3),
        "english_ratio": round(slow[ENGLISH] / fast[ENGLISH], 3),
        "all_ratio": round(sum(slow.values()) / sum(fast.values()), 3),
    }


def identical(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """The same record ids with the same digests of their texts, and at least one."""
    return bool(first) and first == second


def different(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, list[str]]:
    """Record ids that only one kept, or that both kept with different texts."""
    return {
        "only_ours": sorted(first.keys() - second.keys()),
        "only_canonical": sorted(second.keys() - first.keys()),
        "text": sorted(id_ for id_ in first.keys() & second.keys() if first[id_] != second[id_]),
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
