"""Extractors beside the canonical one, and the step that takes the first branch of steps that a page passes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import justext
from resiliparse.extract.html2text import extract_plain_text

from athena.refine.recipe import Page, Rejected, Step
from athena.refine.steps.extraction import extracted


@dataclass(frozen=True)
class ResiliparseExtraction:
    """The main text, by resiliparse: rules on tags and class names, no scoring of text; the extractor of DCLM.

    Alternative texts and list numbers are left out: a page does not show them, so no row could be found there again.
    """

    name: ClassVar[str] = "resiliparse"

    def apply(self, page: Page) -> Page | Rejected:
        return extracted(self.name, _main_content, page)


@dataclass(frozen=True)
class JusTextExtraction:
    """Paragraphs that jusText holds for text, by length, density of English stop words and of links (Pomikálek 2011).

    The thresholds are its own defaults. Headings count as boilerplate unless text follows within 200 characters.
    """

    name: ClassVar[str] = "justext"
    language: str = "English"
    length_low: int = 70
    length_high: int = 200
    stopwords_low: float = 0.3
    stopwords_high: float = 0.32
    max_link_density: float = 0.2
    max_heading_distance: int = 200

    def apply(self, page: Page) -> Page | Rejected:
        return extracted(self.name, self._good_paragraphs, page)

    def _good_paragraphs(self, html: str) -> str:
        thresholds = dataclasses.asdict(self)
        paragraphs = justext.justext(html, _stop_words(thresholds.pop("language")), **thresholds)
        return "\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)


@dataclass(frozen=True)
class FirstPassing:
    """Runs the page through each branch in order and takes the first that keeps it; see arXiv 2602.19548.

    A page that no branch keeps is rejected with the first branch's reason. Branches start from the same page, and
    none sees another's outcome, so adding one at the end changes no row that was there before.
    """

    name: ClassVar[str] = "first-passing"
    branches: tuple[tuple[Step, ...], ...]

    def apply(self, page: Page) -> Page | Rejected:
        first: Rejected | None = None
        for branch in self.branches:
            result = _through(branch, page)
            if isinstance(result, Page):
                return result
            first = first or result
        return first or Rejected(self.name)


def _through(steps: tuple[Step, ...], page: Page) -> Page | Rejected:
    for step in steps:
        result = step.apply(page)
        if isinstance(result, Rejected):
            return dataclasses.replace(result, excerpt=result.excerpt or page.text)
        page = result
    return page


def _main_content(html: str) -> str:
    return str(extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False))


@lru_cache(maxsize=8)
def _stop_words(language: str) -> frozenset[str]:
    return frozenset(justext.get_stoplist(language))
