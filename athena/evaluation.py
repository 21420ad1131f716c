"""What the ruler read: bits per byte by domain. No torch here: releases are verified and compared without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from athena.protocol import Hex64, Noun


class DomainScore(Noun):
    documents: int
    bytes: int
    tokens: int
    bits_per_byte: float


class Evaluation(Noun):
    """What the ruler read. Two are comparable when pack, drawn documents (`seed`, `per_domain`) and window agree."""

    format: Literal["athena-evaluation/1"] = "athena-evaluation/1"
    eval_pack: Hex64
    seed: str
    per_domain: Annotated[int, Field(ge=1)]
    window: Annotated[int, Field(ge=2)]
    domains: dict[str, DomainScore]

    @property
    def bits_per_byte(self) -> dict[str, float]:
        return {domain: score.bits_per_byte for domain, score in self.domains.items()}
