"""Articles: what one genuine page of the local crawl says, before any HTML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from athena.localnet.dice import Dice
from athena.localnet.prose import Section

_TITLES = (
    "{}", "Notes on {}", "Understanding {}", "{} in practice", "A closer look at {}", "What to know about {}",
    "{} explained", "Working with {}",
)  # fmt: skip


@dataclass(frozen=True)
class Article:
    """A title and headed parts; a part is a heading and its paragraphs."""

    package: str
    title: str
    parts: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def paragraphs(self) -> list[str]:
        return [paragraph for _, paragraphs in self.parts for paragraph in paragraphs]


def articles_of(sections: Iterable[Section], dice: Dice, min_words: int, max_words: int) -> list[Article]:
    """Every section's prose once, joined or cut to articles of `min_words` to about `max_words` words, shuffled.

    An article stays within one package; what is left over at a package's end is dropped when it is shorter.
    """
    articles: list[Article] = []
    parts: list[tuple[str, list[str]]] = []
    package, words, target = "", 0, 0
    for section in sections:
        if section.package != package:
            package, parts, words = section.package, [], 0
        for number, paragraph in enumerate(section.paragraphs):
            if words == 0:
                target = dice.between(min_words, max_words)
            if number == 0 or not parts:
                parts.append((section.title, []))
            parts[-1][1].append(paragraph)
            words += paragraph.count(" ") + 1
            if words >= target:
                articles.append(_article(package, parts, dice))
                parts, words = [], 0
    return dice.shuffled(articles)


def _article(package: str, parts: list[tuple[str, list[str]]], dice: Dice) -> Article:
    longest = max(parts, key=lambda part: sum(map(len, part[1])))
    title = dice.choice(_TITLES).format(f"{package} {longest[0]}")
    return Article(
        package,
        title[:1].upper() + title[1:],
        tuple((heading[:1].upper() + heading[1:], tuple(paragraphs)) for heading, paragraphs in parts),
    )
