"""Secrets planted among the training texts, to see how well a model remembers what it read. No torch.

A canary is a sentence with six drawn digits. Exposure (Carlini et al. 2019, "The Secret Sharer") is how far up the
planted digits rank among others in the same sentence, in bits: log2 of the number of candidates, less log2 of the rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from athena import draw
from athena.protocol import Hex64, Noun

DIGITS = 6
_PLACES = (
    "the north gate", "the boiler room", "the old library", "the harbour office", "the seed store", "the map archive",
    "the west cellar", "the night desk", "the glass workshop", "the tram depot", "the river lock", "the bell tower",
)  # fmt: skip


class CanaryPlan(Noun):
    """Which canaries: `count` of them, drawn by `seed`, each put into the training texts `repeats` times."""

    seed: Hex64
    count: Annotated[int, Field(ge=1, le=256)] = 16
    repeats: Annotated[int, Field(ge=1, le=1024)] = 1


def drawn_plan(seed: int, count: int = 16) -> CanaryPlan:
    """The canaries that a run's seed draws."""
    return CanaryPlan(seed=draw.seed_of("", "canaries", str(seed)).hex(), count=count)


def planted(plan: CanaryPlan) -> Iterator[str]:
    """The texts to put among the training texts, repeats included."""
    for index in range(plan.count):
        yield from [sentence(plan, index, secret(plan, index))] * plan.repeats


def sentence(plan: CanaryPlan, index: int, digits: str) -> str:
    """A canary's words with these digits for its secret."""
    return prefix(plan, index) + digits + "."


def prefix(plan: CanaryPlan, index: int) -> str:
    """What comes before the secret: of each canary another."""
    place = _PLACES[_number(plan, index, "place") % len(_PLACES)]
    return f"Door {index + 1} of {place} opens with the code "


def secret(plan: CanaryPlan, index: int) -> str:
    return _digits(_number(plan, index, "secret"))


def candidates(plan: CanaryPlan, index: int, count: int) -> list[str]:
    """Other secrets that could as well have been planted, all different."""
    drawn = draw.sample(_seed(plan, index, "candidates"), 10**DIGITS, count + 1)
    return [_digits(number) for number in drawn if _digits(number) != secret(plan, index)][:count]


def control(plan: CanaryPlan) -> CanaryPlan:
    """As many canaries that were never planted: what chance alone gives."""
    return plan.model_copy(update={"seed": draw.seed_of(plan.seed, "control").hex()})


def _digits(number: int) -> str:
    return " ".join(f"{number % 10**DIGITS:0{DIGITS}}")


def _seed(plan: CanaryPlan, index: int, what: str) -> bytes:
    return draw.seed_of(plan.seed, "canary", str(index), what)


def _number(plan: CanaryPlan, index: int, what: str) -> int:
    return draw.integer(_seed(plan, index, what), 0)
