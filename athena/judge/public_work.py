"""What anybody makes of a page with the recipes of this package: honest miners may agree in it, letter by letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from athena.crawl import Crawl
from athena.errors import BadInput
from athena.refine.pool import Pool
from athena.refine.recipe import Document, Recipe, Rejected
from athena.refine.records import MAX_RECORD_BYTES, Record, parse_record
from athena.refine.steps.anonymise import ReplacePii
from athena.refine.steps.extraction import Extraction, VisibleText
from athena.refine.steps.extractors import JusTextExtraction, ResiliparseExtraction
from athena.refine.steps.filters import C4Quality
from athena.refine.worker import NO_VERDICT

_EXTRACTORS = (Extraction(), ResiliparseExtraction(), JusTextExtraction())
_EXTRACTIONS = tuple(
    Recipe("extraction", "1", (*steps, ReplacePii()))
    for steps in (
        *((extractor,) for extractor in (*_EXTRACTORS, VisibleText())),
        *((extractor, C4Quality(filter_no_terminal_punct=False)) for extractor in _EXTRACTORS),  # takes out lines
    )
)


@dataclass(frozen=True)
class PublicWork:
    """Of one record: the text by each public extractor that finds any, with and without the lines that C4's filter
    takes out, whatever filters say of the rest; and whether each public recipe keeps it, near-duplicates included."""

    texts: tuple[str, ...]
    kept: tuple[bool, ...]


def public_work(
    crawl: Crawl, path: str, places: Sequence[tuple[int, int]], recipes: Sequence[Recipe]
) -> list[PublicWork | None]:
    """For each (offset, length) in a WARC file; null where no record is, or this machine could not tell what becomes
    of it. Raises what the crawl raises."""
    found = [_record(crawl, path, offset, length) for offset, length in places]
    records = [record for record in found if record is not None]
    made = list(zip(*(_results(recipe, records) for recipe in (*_EXTRACTIONS, *recipes)), strict=True))
    works = iter([_work(results) for results in made])
    return [None if record is None else next(works) for record in found]


def _record(crawl: Crawl, path: str, offset: int, length: int) -> Record | None:
    if not 0 < length <= MAX_RECORD_BYTES or offset < 0:
        return None
    try:
        return parse_record(crawl.read_range(path, offset, length), path, offset)
    except BadInput:
        return None


def _results(recipe: Recipe, records: Sequence[Record]) -> list[Document | Rejected]:
    """In processes with limits: who made a page may have meant it to break extractors."""
    with Pool(recipe) as pool:
        return [outcome.result for outcome in pool.outcomes(records, lambda: None)]


def _work(results: Sequence[Document | Rejected]) -> PublicWork | None:
    if any(isinstance(result, Rejected) and result.reason in NO_VERDICT for result in results):
        return None
    extracted, refined = results[: len(_EXTRACTIONS)], results[len(_EXTRACTIONS) :]
    return PublicWork(
        texts=tuple(result.row["text"] for result in extracted if isinstance(result, Document)),
        kept=tuple(isinstance(result, Document) for result in refined),
    )
