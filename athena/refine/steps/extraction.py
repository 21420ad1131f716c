"""Steps that make text of a page's markup, and the guess that spares most of them.

Records of sources that hold text have nothing to extract and pass as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from lxml.etree import LxmlError
from resiliparse.extract.html2text import extract_plain_text

from athena.errors import BadInput
from athena.refine.recipe import Page, Rejected
from athena.refine.text import html, language
from athena.refine.text.main_text import main_text

# What extraction libraries raise on broken markup. Memory running out is this machine's fault and is not caught.
EXTRACTION_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, LxmlError, RecursionError, TypeError, ValueError,
)  # fmt: skip


_GUESS_CHARS = 10_000  # of rough text
_SAMPLE_HTML_CHARS = 40_000  # from the middle of the page, where its text is
_SAMPLE_CHARS = 2_000
_SURE = 0.5


@dataclass(frozen=True)
class LanguageGuess:
    """Drops a page before the costly extraction if no wanted language is at all likely in its rough text.

    Of 2,496 real pages this drops 355, and none of them would pass the later filters. A sample is looked at first: it
    can only let a page pass, and does so for seven of eight English ones.
    """

    name: ClassVar[str] = "language-guess"
    languages: tuple[str, ...] = ("en",)
    threshold: float = 0.05

    def apply(self, page: Page) -> Page | Rejected:
        if page.record.is_text:
            return page
        if page.is_overloaded:
            return Rejected("extraction.overloaded")
        middle = len(page.html) // 2
        sample = page.html[middle : middle + _SAMPLE_HTML_CHARS]
        try:
            likely = self._is_likely(sample, _SAMPLE_CHARS, max(_SURE, self.threshold)) or self._is_likely(
                page.html, _GUESS_CHARS, self.threshold
            )
        except EXTRACTION_FAULTS:
            return Rejected("extraction.failed")
        return page if likely else Rejected(self.name)

    def _is_likely(self, html: str, num_chars: int, threshold: float) -> bool:
        scores = language.identify(extract_plain_text(html)[:num_chars])
        return any(scores.get(code, 0.0) >= threshold for code in self.languages)


@dataclass(frozen=True)
class Extraction:
    """The main text, by trafilatura in its default setting, without memory of other pages and without a clock.

    docs/recipes.md compares it with FineWeb's setting and with other extractors.
    """

    name: ClassVar[str] = "extraction"

    def apply(self, page: Page) -> Page | Rejected:
        return extracted(self.name, main_text, page)


@dataclass(frozen=True)
class VisibleText:
    """All visible text of the page: menus, footers and hidden parts included."""

    name: ClassVar[str] = "visible-text"

    def apply(self, page: Page) -> Page | Rejected:
        if page.record.is_text:
            return page
        try:
            text = html.visible_text(page.html)
        except BadInput:  # of overloaded markup
            return Rejected("extraction.overloaded")
        return dataclasses.replace(page, text=storable(text))


def extracted(name: str, extract: Callable[[str], str | None], page: Page) -> Page | Rejected:
    """The page with the text that `extract` makes of its markup, rejected under the step's `name` if there is none."""
    if page.record.is_text:
        return page
    if page.is_overloaded:
        return Rejected(f"{name}.overloaded")
    try:
        text = extract(page.html)
    except EXTRACTION_FAULTS:
        return Rejected(f"{name}.failed")
    return dataclasses.replace(page, text=storable(text)) if text and text.strip() else Rejected(f"{name}.empty")


def storable(text: str) -> str:
    """Half a surrogate pair, which a page can write as a character reference, has no UTF-8 form."""
    return text.encode("utf-8", "replace").decode()
