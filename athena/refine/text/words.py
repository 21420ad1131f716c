"""Words as the quality filters count them: spaCy's rules, each distinct string of characters split once."""

from __future__ import annotations

import contextlib
import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any

from datatrove.utils.word_tokenizers import SpaCyTokenizer

from athena.errors import Misconfigured

_MAX_REMEMBERED = 1 << 18
_MAX_CHUNK_CHARS = 256  # spaCy's affix rules take quadratic time
# To spaCy a single space parts two words, and any other white space is a token of its own.
_CHUNK_OR_SPACE_TOKEN = re.compile(r"\S+|^\s+|\s{2,}|[^\S ]")
# What spaCy's rules cut in one way only, save for listed words such as "cannot": letters or digits, and one mark.
_PLAIN = re.compile(r"([A-Za-z]+)([,;:!?])?")
_SIMPLE = {
    "en": re.compile(r"([A-Za-z]+|[0-9]+)([,;:!?]|(?<=[a-z0-9])\.|['’]s)?"),
    "de": _PLAIN,
    "es": _PLAIN,
    "fr": _PLAIN,
}


class Words(SpaCyTokenizer):  # type: ignore[misc]
    """A datatrove tokenizer with the tokens of its own one for the language, about ten times faster.

    spaCy splits text at white space first and then each chunk by itself, so the chunks' tokens are remembered, and so
    are the words of the last text, which several filters ask for. Two differences, in 3 of 600 real pages and none of
    them English prose: chunks of more than 256 characters stay whole, and spaCy's emoticon rules now and then look
    across chunks.
    """

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self._remembered: dict[str, tuple[str, ...]] = {}
        self._last: tuple[str, list[str]] = ("", [])

    @cached_property
    def tokenizer(self) -> Any:
        with _torch_hidden():
            import spacy
            from spacy.tokenizer import Tokenizer
        try:
            pipeline = spacy.blank(self.language)
        except ImportError as error:  # of the language, or of the library that it asks for
            raise Misconfigured(f"spaCy has no words for the language {self.language!r}: {error}") from error
        if type(pipeline.tokenizer) is not Tokenizer:
            raise Misconfigured(
                f"spaCy has no rules for words of the language {self.language!r}",
                remedy="name a language that writes spaces between words",
            )
        pipeline.add_pipe("sentencizer")
        return pipeline

    def word_tokenize(self, text: str) -> list[str]:
        """The words in order. The list is shared: callers do not change it."""
        last, words = self._last
        if text != last:
            words = [word for chunk in self.by_chunk(text.split()) for word in chunk]
            self._last = (text, words)
        return words

    def by_chunk(self, chunks: list[str]) -> list[tuple[str, ...]]:
        """The words of each chunk; none of one that is white space, as no other chunk holds any."""
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered = {}
        remembered = self._remembered
        new = set(chunks).difference(remembered)
        if new:
            with self.tokenizer.memory_zone():  # frees the strings that spaCy would keep for ever
                remembered.update({chunk: self._split(chunk) for chunk in new})
        return [remembered[chunk] for chunk in chunks]

    def count_sentences(self, line: str) -> int:
        """As many as spaCy's sentencizer finds: one begins after a full stop or the like and its punctuation."""
        chunks = _CHUNK_OR_SPACE_TOKEN.findall(line)
        sentences, ended = 1, False
        for chunk, words in zip(chunks, self.by_chunk(chunks), strict=True):
            for word in words or (chunk,):
                if word in self._sentence_ends:
                    ended = True
                elif ended and not _is_punctuation(word):
                    sentences, ended = sentences + 1, False
        return sentences

    @cached_property
    def _sentence_ends(self) -> frozenset[str]:
        return frozenset(self.tokenizer.get_pipe("sentencizer").punct_chars)

    def _split(self, chunk: str) -> tuple[str, ...]:
        rules = self.tokenizer.tokenizer.rules
        simple = _SIMPLE[self.language].fullmatch(chunk) if self.language in _SIMPLE else None
        if simple and chunk not in rules and simple[1] not in rules:
            return (simple[1], simple[2]) if simple[2] else (chunk,)
        if len(chunk) > _MAX_CHUNK_CHARS:
            return (chunk,)
        try:
            tokens = self.tokenizer.tokenizer(chunk)
        except AssertionError:  # spaCy mistakes a few strings, such as x-IS_ALPHA, for its own attributes
            return (chunk,)
        return tuple(word for token in tokens if (word := token.text.strip()))


def _is_punctuation(word: str) -> bool:
    return not word.isalnum() and all(unicodedata.category(character).startswith("P") for character in word)


@lru_cache(maxsize=8)
def words_of(language: str) -> Words:
    """The words of a language, by its ISO 639-1 code. Raises Misconfigured at the first text if spaCy has no rules."""
    return Words(language)


@contextlib.contextmanager
def _torch_hidden() -> Iterator[None]:
    """spaCy imports torch wherever it is installed, and needs it for nothing here: 1.6 s and 200 MB per miner."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
