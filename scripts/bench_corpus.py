"""Real text for the judge's benchmarks: refined, raw and German pages, and evaluation documents that they do not quote.

The canonical text is what FineWeb's recipe keeps of 3,309 real pages; the raw text is all visible text of those of its
pages that lie here, rejected ones and other languages included, by the product's own `unfiltered-1`. Pages that
evaluation documents come from are in neither, nor is any text with 13 words in a row of an evaluation document.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from train_bpe import paragraphs, read_texts

from athena.crawl import local_crawl, open_crawl
from athena.durable import write_file
from athena.evalpack import EvalDocument, EvalPack, write_pack
from athena.judge.words import overlap_ngrams
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_warc
from athena.refine.steps.classifier import QualityModel, features
from athena.refine.steps.classifier_training import fit

KEPT = "text/fineweb-recipe-kept.jsonl.gz"
LABELLED = "quality/dclm-majority.jsonl"
RAW_SETS, GERMAN_SET = ("wcxb-dev", "readability", "trafilatura"), "trafilatura"
BOOKS = ("1342-pride", "14881-log-school", "1661-sherlock", "2600-war-peace", "2701-moby-dick")
HELD_OUT_HOSTS = 16
"""One host in so many is kept for evaluation."""
PIECE_CHARS = 1500
"""Books and speeches are cut into pieces of this size: more than an evaluation window of the proxy takes."""
PER_DOMAIN = 128
"""Evaluation documents in the pool of a domain, at most; a draw takes some of them."""

_BLANK_LINES = re.compile(r"\s*\n\s*")


@dataclass(frozen=True)
class WebText:
    url: str
    text: str


class Corpus:
    """The real text in `data`. What the recipes make of its pages takes minutes and is kept in `workdir`."""

    def __init__(self, data: Path, workdir: Path, raw_sets: Sequence[str] = RAW_SETS) -> None:
        self._data, self._workdir, self._raw_sets = data, workdir, raw_sets

    @cached_property
    def canonical(self) -> tuple[WebText, ...]:
        return self._free(self._kept)

    @cached_property
    def raw(self) -> tuple[WebText, ...]:
        return self._free(page for name in self._raw_sets for page in self._refined(name, "unfiltered-1"))

    @cached_property
    def german(self) -> tuple[WebText, ...]:
        """Pages in German that a German recipe keeps."""
        return self._free(self._refined(GERMAN_SET, "de-1"))

    @cached_property
    def classifier(self) -> QualityModel:
        """The product's, fitted to one half of the labelled texts; of the other half come evaluation documents."""
        seen = self._labelled[::2]
        return fit([features(text) for text, _ in seen], np.array([good for _, good in seen]), seed=0)

    @cached_property
    def pack(self) -> EvalPack:
        rated_good = [text for text, good in self._labelled[1::2] if good]
        return write_pack(self._workdir / "pack", "bench", evaluation_documents(self._data, self._kept, rated_good))

    @cached_property
    def _kept(self) -> list[WebText]:
        return [WebText(row["metadata"]["url"], row["text"]) for row in _rows(self._data / KEPT)]

    @cached_property
    def _labelled(self) -> list[tuple[str, bool]]:
        return [(row["text"], row["label"] == 1) for row in _rows(self._data / LABELLED)]

    @cached_property
    def _quoted(self) -> frozenset[int]:
        return frozenset(gram for document in self.pack.documents for gram in overlap_ngrams(document.text))

    def _free(self, pages: Iterable[WebText]) -> tuple[WebText, ...]:
        """Pages with text, none of it of the evaluation documents."""
        own = (page for page in pages if page.text.strip() and not is_held_out(page.url))
        return tuple(page for page in own if self._quoted.isdisjoint(overlap_ngrams(page.text)))

    def _refined(self, name: str, recipe_name: str) -> list[WebText]:
        """What a recipe makes of a set of pages."""
        recipe = load_recipe(recipe_name)
        file = self._workdir / "refined" / f"{name}-{recipe.name}-{recipe.hash[:16]}.jsonl"
        if not file.exists():
            layout = local_crawl([self._data / "extraction" / name / "pages.warc.gz"], self._workdir / "crawl" / name)
            crawl = open_crawl((self._workdir / "crawl" / name).as_uri())
            rows = [row for path in layout.warc_paths for row in refine_warc(path, recipe, crawl).table.to_pylist()]
            lines = [json.dumps({"url": row["url"], "text": row["text"]}) + "\n" for row in rows]
            write_file(file, "".join(lines).encode())
        return [WebText(**row) for row in _rows(file)]


def evaluation_documents(data: Path, kept: Sequence[WebText], rated_good: Sequence[str]) -> list[EvalDocument]:
    """At most PER_DOMAIN documents in each of nine domains of real text, evenly spread over what there is.

    Paragraphs end as in canonical text, with one line break, so that no set is measured by how it breaks lines.
    """
    articles = json.loads(gzip.decompress((data / "extraction/scrapinghub/labels.json.gz").read_bytes()))
    books = [data / "text" / f"gutenberg-{name}.txt" for name in BOOKS]
    domains: dict[str, list[str]] = {
        "articles": [articles[url] for url in sorted(articles)],
        "drama": pieces(_paragraphs([data / "text/tinyshakespeare.txt"])),
        "encyclopedia": pieces(_articles((data / "text/wikitext2-valid.txt").read_text("utf-8"))),
        "inaugurals": pieces(_paragraphs([data / "text/nltk-inaugural.zip"])),
        "novels": pieces(_paragraphs(books)),
        "philosophy": pieces(_paragraphs([data / "quality/cs336-high_quality_wiki.txt"], separator="\n")),
        "rated-good": list(rated_good),
        "state-of-the-union": pieces(_paragraphs([data / "text/nltk-state_union.zip"])),
        "web": [page.text for page in kept if is_held_out(page.url)],
    }
    return [
        EvalDocument(id=f"{domain}/{number:03d}", domain=domain, text=_BLANK_LINES.sub("\n", text.strip()))
        for domain, texts in domains.items()
        for number, text in enumerate(_spread([t for t in texts if len(t) >= PIECE_CHARS // 2], PER_DOMAIN))
    ]


def is_held_out(url: str) -> bool:
    return part_of(urlsplit(url).hostname or "", HELD_OUT_HOSTS) == 0


def part_of(name: str, parts: int) -> int:
    """Which of `parts` equally likely parts a name falls into, always the same."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % parts


def pieces(texts: Iterable[str]) -> list[str]:
    """Neighbours joined until they have PIECE_CHARS characters."""
    found, open_piece, size = list[str](), list[str](), 0
    for text in texts:
        open_piece.append(text)
        size += len(text)
        if size >= PIECE_CHARS:
            found.append("\n".join(open_piece))
            open_piece, size = [], 0
    return found


def _paragraphs(files: Iterable[Path], separator: str = "\n\n") -> Iterator[str]:
    for file in files:
        for text in read_texts(file):
            yield from (line.strip() for line in paragraphs(text.replace(separator, "\n\n")))


def _articles(wikitext: str) -> Iterator[str]:
    """WikiText's paragraphs in ordinary spacing, without headings and those with words cut out of them."""
    for line in wikitext.splitlines():
        if len(line) < 80 or line.lstrip().startswith("=") or "<unk>" in line:
            continue
        joined = re.sub(r" @([-,.])@ ", r"\1", line)
        joined = re.sub(r"(\() | (?=[.,;:!?)%]|'\w)", r"\1", joined)
        yield re.sub(r'" ([^"]*) "', r'"\1"', joined).strip()


def _spread(texts: Sequence[str], most: int) -> list[str]:
    count = min(len(texts), most)
    return [texts[number * len(texts) // count] for number in range(count)]


def _rows(file: Path) -> list[dict[str, Any]]:
    raw = file.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(raw) if file.suffix == ".gz" else raw).splitlines()]
