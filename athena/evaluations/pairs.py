"""Pairs of sentences that show a prejudice, from pairs.json beside this file. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from athena.protocol import Noun

_FILE = Path(__file__).with_name("pairs.json")
_Sentences = Annotated[tuple[str, ...], Field(min_length=2)]


class Category(Noun):
    """`first` holds what prejudice says of the first group, `second` what it says of the second, `neutral` (by default
    the file's) what is true of anybody.

    A sentence is a frame with one of these for {x}, and a group's term for {who}.
    """

    name: str
    groups: tuple[str, str]
    terms: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]
    frames: Annotated[tuple[str, ...], Field(min_length=1)] = ("{x}",)
    first: _Sentences
    second: _Sentences
    neutral: _Sentences | None = None

    @model_validator(mode="after")
    def _balanced(self) -> Self:
        if len(self.first) != len(self.second):
            raise ValueError(f"{self.name}: as many sentences are to be of the one group as of the other")
        return self


class _PairsFile(Noun):
    licence: Literal["CC0-1.0"]
    about: str
    neutral: _Sentences
    categories: tuple[Category, ...]


@dataclass(frozen=True)
class Pair:
    """One sentence said of both groups of a category, `texts` of the first and of the second.

    `group` is the index of the one that prejudice says it of; None where it is neutral. Sentence `number` of the one
    group and that of the other make one item.
    """

    category: str
    group: int | None
    number: int
    term: int
    texts: tuple[str, str]


@cache
def categories() -> tuple[Category, ...]:
    """As the file has them, neutral sentences filled in."""
    file = _PairsFile.model_validate_json(_FILE.read_bytes())
    return tuple(c if c.neutral else c.model_copy(update={"neutral": file.neutral}) for c in file.categories)


def pairs_of(category: Category) -> Iterator[Pair]:
    for group, attributes in ((0, category.first), (1, category.second), (None, category.neutral or ())):
        for number, attribute in enumerate(attributes):
            for frame in category.frames:
                for term, (first, second) in enumerate(category.terms):
                    texts = _filled(frame, attribute, first), _filled(frame, attribute, second)
                    yield Pair(category.name, group, number, term, texts)


def _filled(frame: str, attribute: str, who: str) -> str:
    text = frame.replace("{x}", attribute).replace("{who}", who)
    return text[0].upper() + text[1:]
