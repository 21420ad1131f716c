"""What was measured of a model: bits per byte by domain, and the suites beside the ruler. The schema of every result.

No torch here: releases are verified and compared without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from athena.errors import BadInput, NotFound, TooLarge
from athena.protocol import Hex64, Noun

MAX_EVALUATION_BYTES = 32 * 2**20
MAX_ITEMS = 2**18
"""Of all metrics together: the gate draws ten thousand times from each."""
CHEAP_SUITES = ("cloze", "bias")
"""Seconds on one core for a small model: measured at the end of every run."""
SUITES = (*CHEAP_SUITES, "generation", "toxicity", "memorisation", "speed", "lm-eval", "standard")
RULER = "bits_per_byte"
RESAMPLES_SHOWN = 2_000
"""For an interval of 95 %, to three digits."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Items = Annotated[tuple[Finite, ...], Field(max_length=MAX_ITEMS)]
Better = Literal["lower", "higher", "zero"]
"""`zero`: the nearer to zero the better, as of a bias that may go either way."""
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,/ -]{0,254}$")]


class Metric(Noun):
    """One number, with a 95 % interval over the items that it is of.

    With `items`, it is their sum over the sum of `weights`, or over their count where there are none: two evaluations
    of the same material are then compared item by item. Without, it only informs.
    """

    value: Finite
    low: Finite | None = None
    high: Finite | None = None
    unit: Annotated[str, Field(max_length=40)] = ""
    better: Better | None = None
    items: Items = ()
    weights: Items = ()

    @model_validator(mode="after")
    def _items_make_the_value(self) -> Self:
        if self.weights and (len(self.weights) != len(self.items) or min(self.weights) <= 0):
            raise ValueError("every item is to have one positive weight")
        if self.items and not math.isclose(self.value, _quotient(self.items, self.weights), rel_tol=1e-4, abs_tol=1e-4):
            raise ValueError("the value is not that of the items")
        return self


class SuiteResult(Noun):
    """What a suite found, or why it did not run.

    `material` is the digest of all that was asked: prompts, pairs, options. Results of other material do not compare.
    """

    material: Hex64
    not_run: Annotated[str, Field(max_length=500)] | None = None
    metrics: dict[MetricName, Metric] = Field(default={}, max_length=1024)


class DomainScore(Noun):
    """Bits per byte of a domain's documents together; by document in the order in which the pack draws them, bits
    rounded to a ten-thousandth."""

    documents: int
    bytes: int
    tokens: int
    bits_per_byte: Finite
    document_bits: Items = ()
    document_bytes: Items = ()

    @model_validator(mode="after")
    def _documents_make_the_score(self) -> Self:
        if not self.document_bits and not self.document_bytes:
            return self
        if not len(self.document_bits) == len(self.document_bytes) == self.documents or min(self.document_bytes) <= 0:
            raise ValueError("every document is to have its bits and bytes")
        together = math.fsum(self.document_bits) / math.fsum(self.document_bytes)
        if not math.isclose(self.bits_per_byte, together, rel_tol=1e-4, abs_tol=1e-4):
            raise ValueError("bits per byte are not those of the documents")
        return self


class Evaluation(Noun):
    """What was measured of one model.

    Two are comparable when pack, drawn documents (`seed`, `per_domain`) and window agree. `model` is the digest of the
    model's files, where they were at hand.
    """

    format: Literal["athena-evaluation/2"] = "athena-evaluation/2"
    model: Hex64 | None = None
    eval_pack: Hex64
    seed: str
    per_domain: Annotated[int, Field(ge=1)]
    window: Annotated[int, Field(ge=2)]
    domains: dict[str, DomainScore]
    suites: dict[str, SuiteResult] = Field(default={}, max_length=64)

    @model_validator(mode="after")
    def _not_too_many_items(self) -> Self:
        if sum(len(metric.items) for metric in self.metrics.values()) > MAX_ITEMS:
            raise ValueError(f"over {MAX_ITEMS} items")
        return self

    @property
    def bits_per_byte(self) -> dict[str, float]:
        return {domain: score.bits_per_byte for domain, score in self.domains.items()}

    @property
    def metrics(self) -> dict[str, Metric]:
        """Every number there is by its full name, the ruler's first: bits_per_byte/<domain>, <suite>/<metric>.

        Domains come without their intervals, which `domain_metric` draws.
        """
        ruler = {f"{RULER}/{domain}": _without_interval(score) for domain, score in self.domains.items()}
        others = {f"{suite}/{name}": m for suite, result in self.suites.items() for name, m in result.metrics.items()}
        return ruler | others

    def with_suites(self, results: Mapping[str, SuiteResult]) -> Self:
        """The same with these results in place of earlier ones, in the order of SUITES."""
        merged = {**self.suites, **results}
        order = sorted(merged, key=lambda name: SUITES.index(name) if name in SUITES else len(SUITES))
        return self.model_copy(update={"suites": {name: merged[name] for name in order}})


def measured(items: Sequence[float], *, better: Better | None, unit: str = "", weights: Sequence[float] = ()) -> Metric:
    """A metric of these items with its interval. Items are rounded to six decimals, and the value is of those.

    Raises BadInput where an item is no finite number: of such a model nothing can be told.
    """
    from athena.bootstrap import deviations, interval, ratio  # numpy

    if not items or not all(map(math.isfinite, items)):
        raise BadInput("the model gave no finite number", remedy="look for NaN in its weights")
    rounded = tuple(round(float(item), 6) for item in items)
    heavy = tuple(map(float, weights))
    value = _quotient(rounded, heavy)
    columns = rounded, heavy or (1.0,) * len(rounded)
    spread = deviations(columns, ratio, b"athena-evaluation", RESAMPLES_SHOWN)
    if spread is None or not spread.any():  # items that are all alike do not tell how far others may lie
        return Metric(value=value, unit=unit, better=better, items=rounded, weights=heavy)
    low, high = interval(value, spread, 0.95)
    return Metric(value=value, low=low, high=high, unit=unit, better=better, items=rounded, weights=heavy)


def known_suites(names: Iterable[str]) -> tuple[str, ...]:
    """These suites in the order of SUITES. Raises BadInput for one that there is not."""
    asked = set(names)
    if strangers := sorted(asked - set(SUITES)):
        raise BadInput(f"no suite {strangers[0]!r}", remedy=f"choose of {', '.join(SUITES)}")
    return tuple(name for name in SUITES if name in asked)


def domain_metric(score: DomainScore) -> Metric:
    """A domain's bits per byte as a metric, its documents as items, with the interval where they are known."""
    bare = _without_interval(score)
    if not bare.items:
        return bare
    found = measured(bare.items, better=bare.better, weights=bare.weights)
    return bare.model_copy(update={"low": found.low, "high": found.high})


def _without_interval(score: DomainScore) -> Metric:
    return Metric(
        value=score.bits_per_byte,
        unit="bits/byte",
        better="lower",
        items=score.document_bits,
        weights=score.document_bytes,
    )


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation from a file, or from evaluation.json of a folder; of a release's two that after training.

    Raises NotFound, TooLarge, BadInput.
    """
    file = path / "evaluation.json" if path.is_dir() else path
    if not file.is_file():
        raise NotFound(f"no evaluation at {file}", remedy="make one with athena eval")
    if file.stat().st_size > MAX_EVALUATION_BYTES:
        raise TooLarge(f"{file} is over {MAX_EVALUATION_BYTES} bytes")
    try:
        found = _STORED.validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(
            f"{file} is not an evaluation: {error.errors()[0]['msg']}", remedy="measure the model again: athena eval"
        ) from error
    return found if isinstance(found, Evaluation) else found.after


class _OfRelease(Noun):
    """evaluation.json of a release: of the first weights, and of those that are released."""

    before: Evaluation
    after: Evaluation


_STORED: TypeAdapter[Evaluation | _OfRelease] = TypeAdapter(Evaluation | _OfRelease)


def _quotient(items: Sequence[float], weights: Sequence[float]) -> float:
    return math.fsum(items) / (math.fsum(weights) if weights else len(items))
