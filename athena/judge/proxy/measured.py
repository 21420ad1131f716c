"""What one proxy run found: its arm, and the same by document, which intervals are made of. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from athena.protocol import Arm, Noun


class CurvePoint(Noun):
    """How well a run did on what it read since the point before, up to `tokens`: bits per byte of its own text."""

    tokens: int
    bits_per_byte: float


class Measured(Noun):
    """An arm, and what it rests on: bits and UTF-8 bytes of each evaluation document, by domain, in the set's order.

    All arms of a case have the same documents, so equal `document_bytes`. `arm.bits_per_byte` of a domain is the sum of
    its documents' bits over the sum of their bytes. `curve` is for people to look at; nothing is decided by it.
    """

    arm: Arm
    document_bits: dict[str, tuple[float, ...]]
    document_bytes: dict[str, tuple[int, ...]]
    curve: tuple[CurvePoint, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        seed: str,
        tokens: int,
        bits: dict[str, Sequence[float]],
        sizes: dict[str, Sequence[int]],
        curve: tuple[CurvePoint, ...] = (),
    ) -> Self:
        """The arm with its domains' bits per byte worked out of the documents' `bits` and `sizes` in bytes."""
        by_domain = {domain: math.fsum(bits[domain]) / sum(sizes[domain]) for domain in bits}
        return cls(
            arm=Arm(name=name, seed=seed, tokens=tokens, bits_per_byte=by_domain),
            document_bits={domain: tuple(values) for domain, values in bits.items()},
            document_bytes={domain: tuple(values) for domain, values in sizes.items()},
            curve=curve,
        )
