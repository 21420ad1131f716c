"""Texts cut to passages of a length that evaluates well, and a filter that lets no passage repeat another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from athena.judge.words import SHINGLE_WORDS, ngrams, overlap_ngrams, words

MIN_WORDS, MAX_WORDS = 50, 600
_FULL_WORDS = 300
"""A passage ends at the first paragraph's end from half of this on, else at the first sentence's end from this on."""
MAX_SEEN_SHARE = 0.25
"""Of a passage's 5-word shingles: a copy with every seventh word changed has 0.28. What is more formulaic than that
makes a poor ruler anyway."""

_SPACES = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_UNIT = re.compile(r"[^\n]+?(?:[.!?][\"')\]\u2019\u201d]*(?:\s+|\Z)|\s*\n\s*|\Z)")
_CONTROL = {code: None for code in range(32) if chr(code) not in "\n\t"}


def passages(text: str) -> Iterator[str]:
    """The text in pieces of about 300 words that end with a sentence or a line; what is over after the last one is a
    piece of its own. White space is made plain, and nothing else changed."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROL)
    text = _BLANK_LINES.sub("\n\n", re.sub(r" ?\n ?", "\n", _SPACES.sub(" ", text))).strip()
    piece, count = "", 0
    for unit in _UNIT.findall(text):
        piece += unit
        count += len(unit.split())
        if count >= _FULL_WORDS or (count >= _FULL_WORDS // 2 and unit.endswith("\n\n")):
            yield piece.strip()
            piece, count = "", 0
    if piece.strip():
        yield piece.strip()


class Fresh:
    """Lets a passage through unless it repeats one that came before."""

    def __init__(self) -> None:
        self._quoted: set[int] = set()
        self._shingles: set[int] = set()

    def refuses(self, passage: str) -> str | None:
        """Why the passage is refused; None where it is not, and then later ones may not repeat it."""
        tokens = words(passage)
        if not MIN_WORDS <= len(tokens) <= MAX_WORDS:
            return "too short" if len(tokens) < MIN_WORDS else "too long"
        quoted, shingles = set(overlap_ngrams(passage)), set(ngrams(tokens, SHINGLE_WORDS))
        if len(shingles & self._shingles) > MAX_SEEN_SHARE * len(shingles):
            return "near duplicate"
        if not quoted.isdisjoint(self._quoted):
            return "shares 13 words in a row"
        self._quoted |= quoted
        self._shingles |= shingles
        return None

    def knows(self, passage: str) -> None:
        """Refuses from now on what repeats this passage, whatever its length."""
        self._quoted.update(overlap_ngrams(passage))
        self._shingles.update(ngrams(words(passage), SHINGLE_WORDS))


def shared_runs(first: Iterable[str], second: Iterable[str]) -> int:
    """How many runs of 13 words are in texts of both."""
    runs = {run for text in first for run in overlap_ngrams(text)}
    return len({run for text in second for run in overlap_ngrams(text) if run in runs})
