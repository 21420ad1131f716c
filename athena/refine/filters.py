"""Steps that keep or reject a page: datatrove's blocks in deterministic form, with every threshold a field.

Defaults are FineWeb's published values as datatrove 0.10.1 spells them. A block's own reason follows the step's name.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import tldextract
from datatrove.data import Document as Block
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from athena.refine import language, minhash, url_lists
from athena.refine.recipe import Page, Rejected
from athena.refine.words import english_words


@dataclass(frozen=True)
class UrlFilter:
    """FineWeb's block lists: domains, URLs, one banned word, two softly banned ones, or a banned part of a word."""

    name: ClassVar[str] = "url"
    soft_word_threshold: int = 2

    def apply(self, page: Page) -> Page | Rejected:
        reason = self._reason(page.record.url)
        return Rejected(f"{self.name}.{reason}") if reason else page

    def _reason(self, url: str) -> str | None:
        parts = self._split(url)
        domains = url_lists.load("domains")
        if url_lists.contains(domains, parts.top_domain_under_public_suffix):
            return "domain"
        if url_lists.contains(domains, parts.fqdn):
            return "subdomain"
        if url_lists.contains(url_lists.load("urls"), url):
            return "url"
        words = set(url_lists.NOT_ALPHANUMERIC.split(url))
        if words & url_lists.words("banned_words"):
            return "hard_blacklisted"
        if len(words & url_lists.words("soft_banned_words")) >= self.soft_word_threshold:
            return "soft_blacklisted"
        squeezed = url_lists.NOT_ALPHANUMERIC.sub("", url).lower()
        if any(part in squeezed for part in url_lists.words("banned_subwords")):
            return "blacklisted_subword"
        return None

    @cached_property
    def _split(self) -> tldextract.TLDExtract:
        return tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())  # the snapshot in the package, no network


@dataclass(frozen=True)
class Language:
    """fastText over the extracted text; keeps what is likely enough in a wanted language, or labels all if none is."""

    name: ClassVar[str] = "language"
    languages: tuple[str, ...] = ("en",)
    threshold: float = 0.65

    def apply(self, page: Page) -> Page | Rejected:
        scores = language.identify(page.text)
        if self.languages and not any(scores.get(code, 0.0) > self.threshold for code in self.languages):
            return Rejected(self.name)
        best, score = next(iter(scores.items()), ("und", 0.0))
        return dataclasses.replace(page, language=best, language_score=score)


@dataclass(frozen=True)
class GopherRepetition:
    """Repeated lines, paragraphs and n-grams, as shares of the text (Gopher, table A1)."""

    name: ClassVar[str] = "gopher-repetition"
    dup_line_frac: float = 0.3
    dup_para_frac: float = 0.3
    dup_line_char_frac: float = 0.2
    dup_para_char_frac: float = 0.2
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    dup_n_grams: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

    def apply(self, page: Page) -> Page | Rejected:
        return _filtered(self.name, self._block, page)

    @cached_property
    def _block(self) -> Any:
        return GopherRepetitionFilter(**dataclasses.asdict(self), language=english_words())


@dataclass(frozen=True)
class GopherQuality:
    """Length, word length, symbols, bullets, ellipses, letters and stop words (Gopher, appendix A1.1)."""

    name: ClassVar[str] = "gopher-quality"
    min_doc_words: int = 50
    max_doc_words: int = 100_000
    min_avg_word_length: int = 3
    max_avg_word_length: int = 10
    max_symbol_word_ratio: float = 0.1
    max_bullet_lines_ratio: float = 0.9
    max_ellipsis_lines_ratio: float = 0.3
    max_non_alpha_words_ratio: float = 0.8
    min_stop_words: int = 2

    def apply(self, page: Page) -> Page | Rejected:
        return _filtered(self.name, self._block, page)

    @cached_property
    def _block(self) -> Any:
        return GopherQualityFilter(**dataclasses.asdict(self), language=english_words())


@dataclass(frozen=True)
class C4Quality:
    """C4's line rules, which rewrite the text, and its document rules.

    FineWeb keeps lines without terminal punctuation. Sentences are counted only up to the number that is needed.
    """

    name: ClassVar[str] = "c4-quality"
    filter_no_terminal_punct: bool = False
    min_num_sentences: int = 5
    min_words_per_line: int = 3

    def apply(self, page: Page) -> Page | Rejected:
        result = _filtered(self.name, self._block, page)
        if isinstance(result, Rejected) or self._has_sentences(result.text):
            return result
        return Rejected(f"{self.name}.too_few_sentences")

    def _has_sentences(self, text: str) -> bool:
        found = 0
        for line in text.splitlines():
            found += len(english_words().span_tokenize(line))
            if found >= self.min_num_sentences:
                return True
        return False

    @cached_property
    def _block(self) -> Any:
        return C4QualityFilter(
            filter_no_terminal_punct=self.filter_no_terminal_punct,
            min_num_sentences=-1,
            min_words_per_line=self.min_words_per_line,
            language=english_words(),
        )


@dataclass(frozen=True)
class FineWebQuality:
    """FineWeb's own rules: punctuation, short lines, duplicated lines, line breaks per word.

    The blog post names 0.1 for `char_duplicates_ratio`; the published data was made with the code's 0.01, as the
    notes on FineWeb-2, which moved to 0.1, confirm.
    """

    name: ClassVar[str] = "fineweb-quality"
    line_punct_thr: float = 0.12
    short_line_thr: float = 0.67
    short_line_length: int = 30
    char_duplicates_ratio: float = 0.01
    new_line_ratio: float = 0.3

    def apply(self, page: Page) -> Page | Rejected:
        return _filtered(self.name, self._block, page)

    @cached_property
    def _block(self) -> Any:
        return FineWebQualityFilter(**dataclasses.asdict(self), language=english_words())


@dataclass(frozen=True)
class MinHash:
    """Signs the text; the run drops all but the first of near-duplicates in the shard, by (path index, offset)."""

    name: ClassVar[str] = "minhash"
    shingle_words: int = minhash.SHINGLE_WORDS
    num_buckets: int = minhash.NUM_BUCKETS
    hashes_per_bucket: int = minhash.HASHES_PER_BUCKET

    def apply(self, page: Page) -> Page | Rejected:
        return dataclasses.replace(page, minhash=minhash.signature(page.text))


def _filtered(name: str, block: Any, page: Page) -> Page | Rejected:
    """The page after a datatrove filter, which may rewrite its text."""
    document = Block(text=page.text, id=page.record.record_id)
    result = block.filter(document)
    if result is True:
        return page if document.text == page.text else dataclasses.replace(page, text=document.text)
    return Rejected(f"{name}.{result[1]}" if isinstance(result, tuple) else name)
