"""How much of a text can be found, in order, in the page that it claims to come from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator

from athena.judge.words import SHINGLE_WORDS, words
from athena.refine.steps.anonymise import PLACEHOLDERS

# About the most pairs of equal shingles in text and page that the longest chain is looked for in: bounds the work on a
# page of one word. A shingle that the page repeats more often is matched at its first places only.
_MAX_PAIRS = 4_000_000
_MIN_PLACES = 64


def containment(text: str, page: str) -> float:
    """Share of the text's 5-word shingles that the page holds in the text's order: 0 to 1; 0 for a text of no words.

    Shingles lie within one line of the text, since extractors join and drop blocks; a shorter line is one shorter
    shingle. A placeholder of the anonymiser matches anything: shingles end before it and begin again behind it. Order
    is the longest common subsequence of shingles, so text left out of the page costs nothing.
    """
    shingles = list(_shingles(text))
    if not shingles:
        return 0.0
    places = _places(words(page), set(shingles))
    found = [places[shingle] for shingle in shingles]
    if _first_chain(found) == len(found):
        return 1.0
    most = max(_MIN_PLACES, _MAX_PAIRS // len(shingles))
    return _longest_chain([positions[:most] for positions in found]) / len(found)


def placeholder_share(text: str) -> float:
    """Placeholders by all words: a text of wildcards would match any page."""
    count = sum(text.count(placeholder) for placeholder in PLACEHOLDERS)
    return count / max(1, len(text.split()))


def _shingles(text: str) -> Iterator[tuple[str, ...]]:
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, "\n")
    for line in text.split("\n"):
        line_words = words(line)
        if line_words:
            for i in range(max(1, len(line_words) - SHINGLE_WORDS + 1)):
                yield tuple(line_words[i : i + SHINGLE_WORDS])


def _places(page: list[str], wanted: set[tuple[str, ...]]) -> dict[tuple[str, ...], list[int]]:
    """Word positions of each wanted shingle in the page, ascending."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for size in {len(shingle) for shingle in wanted}:
        for i in range(len(page) - size + 1):
            shingle = tuple(page[i : i + size])
            if shingle in wanted:
                found[shingle].append(i)
    return found


def _first_chain(places: list[list[int]]) -> int:
    """Shingles matched when each takes its first place behind the one before: all of them, in a text that was cut out
    of its page, however often the page repeats itself."""
    count, last = 0, -1
    for positions in places:
        at = bisect_right(positions, last)
        if at < len(positions):
            count, last = count + 1, positions[at]
    return count


def _longest_chain(places: list[list[int]]) -> int:
    """Most shingles that can be matched at rising positions (Hunt and Szymanski 1977)."""
    ends: list[int] = []
    for positions in places:
        for position in reversed(positions):
            at = bisect_left(ends, position)
            ends[at : at + 1] = [position]
    return len(ends)
