"""What a local network stands on, made on this machine: a crawl to refine and a pool of texts to evaluate on.

Both come from real prose of installed packages, from different ones, and no 13 words in a row are in both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from athena.crawl import write_listing
from athena.crawl_paths import listing_path
from athena.durable import write_file
from athena.errors import Misconfigured
from athena.evalpack import EvalDocument, EvalPack, write_pack
from athena.events import EventLog
from athena.judge.words import overlap_ngrams
from athena.localnet.articles import articles_of
from athena.localnet.capture import capture, serving
from athena.localnet.dice import Dice
from athena.localnet.pages import KINDS, Kind, make_pages
from athena.localnet.prose import Section, installed_prose
from athena.localnet.sources import CRAWLED, HELD_OUT
from athena.packs.cloze import cloze_items

TRUTH_FILE = "truth.json"
MAX_DOCUMENTS_PER_DOMAIN = 64
MIN_DOMAINS = 8
DOCUMENT_WORDS = (150, 450)


@dataclass(frozen=True)
class LocalCrawl:
    """A crawl below `root` for `open_crawl(root.as_uri())`, and the kind of every page in it, by URL."""

    root: Path
    crawl_id: str
    warc_paths: tuple[str, ...]
    kinds: dict[str, Kind]

    def count(self, kind: Kind) -> int:
        return sum(found == kind for found in self.kinds.values())


def build_crawl(
    root: Path,
    *,
    seed: int = 0,
    pages: int = 520,
    warcs: int = 2,
    prose: tuple[Section, ...] | None = None,
    events: EventLog | None = None,
) -> LocalCrawl:
    """Makes `pages` web pages, serves them on loopback and captures them into `warcs` WARC files of the same size.

    The pages hold `prose`, by default that of the installed packages in CRAWLED. Equal arguments over equal versions
    of those give equal records; the compressed bytes also depend on the machine's zlib. The truth goes into
    truth.json next to the listing, which is written last. Raises Misconfigured where the arguments ask for too much.
    """
    if not 1 <= warcs <= pages:
        raise Misconfigured(f"{pages} pages cannot fill {warcs} WARC files", remedy="ask for more pages")
    crawl_id = f"LOCAL-seed{seed}-{pages}-pages-{warcs}-warcs"
    listing, folder = root / listing_path(crawl_id), f"crawl-data/{crawl_id}"
    made = make_pages(seed, pages, installed_prose(CRAWLED) if prose is None else prose)
    paths = tuple(f"{folder}/warc/{crawl_id}-{number:05d}.warc.gz" for number in range(warcs))
    with serving(made) as port:
        for number, path in enumerate(paths):
            capture(made[number::warcs], port, root / path)
    crawl = LocalCrawl(root, crawl_id, paths, {page.url: page.kind for page in made})
    write_file(root / folder / TRUTH_FILE, json.dumps(crawl.kinds, indent=1).encode())
    write_listing(listing, paths)
    if events is not None:
        events.emit("crawl.built", crawl=crawl_id, warcs=warcs, pages={kind: crawl.count(kind) for kind in KINDS})
    return crawl


def build_pack(folder: Path, *, seed: int = 0) -> EvalPack:
    """Writes the evaluation pack that goes with the local crawls. `seed` draws how the texts are cut and chosen, and
    the cloze items that are made of them.

    Raises Misconfigured where too few of the packages in HELD_OUT are installed.
    """
    documents = eval_documents(seed)
    return write_pack(folder, f"localnet-{seed}", documents, cloze_items(documents, str(seed).encode()))


def eval_documents(seed: int = 0) -> list[EvalDocument]:
    """At most 64 documents in each domain of HELD_OUT, none of which shares 13 words in a row with a local crawl.

    They are checked against everything that a crawl may draw from, so one pool serves the crawls of all seeds.
    """
    candidates = [
        EvalDocument(id=f"{domain}/{number:04d}-{article.package}", domain=domain, text="\n\n".join(article.paragraphs))
        for domain, packages in HELD_OUT.items()
        for number, article in enumerate(
            articles_of(installed_prose(packages), Dice(seed, "pool", domain), *DOCUMENT_WORDS)
        )
    ]
    pool = list(without_overlap(candidates, installed_prose(CRAWLED)))
    kept = [
        document
        for domain in HELD_OUT
        for document in [document for document in pool if document.domain == domain][:MAX_DOCUMENTS_PER_DOMAIN]
    ]
    if len({document.domain for document in kept}) < MIN_DOMAINS:
        raise Misconfigured(
            "too few of the packages with evaluation texts are installed", remedy="install athena-network[demo] in full"
        )
    return kept


def without_overlap(documents: Iterable[EvalDocument], crawled: Iterable[Section]) -> Iterator[EvalDocument]:
    """The documents that share no 13 words in a row, whatever the case and punctuation, with the crawled prose."""
    documents = list(documents)
    grams_of = [set(overlap_ngrams(document.text)) for document in documents]
    pool = frozenset[int]().union(*grams_of)
    shared = {gram for section in crawled for gram in overlap_ngrams(" ".join(section.paragraphs)) if gram in pool}
    for document, grams in zip(documents, grams_of, strict=True):
        if grams.isdisjoint(shared):
            yield document
