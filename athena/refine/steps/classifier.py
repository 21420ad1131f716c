"""A quality classifier of fastText's kind: a linear model over hashed words and word pairs (arXiv 1607.01759).

A text is its words, its punctuation marks and its line breaks, and each pair of neighbours among them, in letters as
they are; each is hashed into one of 2^18 buckets and weighs 1 + ln(count), and the whole vector has length 1. The
installed fastText can only predict, so `athena recipe train-classifier` fits the weights by logistic regression. The
model is a safetensors file of plain arrays: reading one runs nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import platformdirs
import safetensors.numpy
import xxhash
from safetensors import SafetensorError

from athena.durable import write_file
from athena.errors import BadInput, Misconfigured, TooLarge
from athena.refine.recipe import Page, Rejected

NUM_BUCKETS = 1 << 18
MAX_TEXT_CHARS = 100_000  # what follows in a longer text does not count: bounds time and memory of one page
MAX_MODEL_BYTES = 8 << 20  # a model takes 1 MiB
DEFAULT_MODEL = platformdirs.user_data_path("athena") / "quality.safetensors"
_TOKEN = re.compile(r"\n|\w+|[^\w\s]")

Buckets = npt.NDArray[np.int32]
Values = npt.NDArray[np.float64]
Features: TypeAlias = tuple[Buckets, Values]


def features(text: str) -> Features:
    """(buckets, values): sorted distinct int32[k] and float64[k] of length 1; both empty for a text without words."""
    tokens = _TOKEN.findall(text[:MAX_TEXT_CHARS])
    grams = [*tokens, *(f"{first} {second}" for first, second in pairwise(tokens))]
    hashes = np.fromiter((_bucket(gram) for gram in grams), dtype=np.int32, count=len(grams))
    buckets, counts = np.unique(hashes, return_counts=True)
    values = np.array([1.0 + math.log(count) for count in counts.tolist()])
    return buckets, values / max(1.0, math.sqrt(math.fsum(values * values)))


def _bucket(gram: str) -> int:
    return xxhash.xxh64_intdigest(gram.encode("utf-8", "replace")) % NUM_BUCKETS


@dataclass(frozen=True, eq=False)
class QualityModel:
    """`weights` is float32[NUM_BUCKETS]. All are finite."""

    weights: npt.NDArray[np.float32]
    bias: float

    def probability(self, text: str) -> float:
        """That people call the text good, if they call half of all texts so; rounded to 4 digits."""
        return self.probability_of(features(text))

    def probability_of(self, text: Features) -> float:
        """The products are summed exactly and the result is rounded, so that machines agree."""
        buckets, values = text
        logit = math.fsum([*(self.weights[buckets] * values).tolist(), self.bias])
        return round(0.5 * (1.0 + math.tanh(0.5 * logit)), 4)


def save_model(model: QualityModel, path: Path) -> None:
    """The same model gives the same bytes."""
    tensors = {"weights": model.weights.astype(np.float32), "bias": np.array([model.bias])}
    write_file(path, safetensors.numpy.save(tensors))


def load_model(path: Path) -> QualityModel:
    """Raises Misconfigured where there is no file, TooLarge, and BadInput if it is not a model of this form."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise Misconfigured(
            f"no quality classifier at {path}: {error.strerror}",
            remedy=f"train one: athena recipe train-classifier LABELLED.jsonl --out {path}",
        ) from error
    if len(raw) > MAX_MODEL_BYTES:
        raise TooLarge(f"{path} has more than the {MAX_MODEL_BYTES:,} bytes of a quality classifier")
    try:
        tensors = safetensors.numpy.load(raw)
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is not a safetensors file: {error}") from error
    if {name: (array.dtype.str, array.shape) for name, array in tensors.items()} != {
        "weights": ("<f4", (NUM_BUCKETS,)),
        "bias": ("<f8", (1,)),
    } or not all(np.isfinite(array).all() for array in tensors.values()):
        raise BadInput(f"{path} is not a quality classifier", remedy="athena recipe train-classifier writes one")
    return QualityModel(tensors["weights"], float(tensors["bias"][0]))


@dataclass(frozen=True)
class QualityClassifier:
    """Keeps a text that the model finds good enough. The recipe's hash covers the model by its content."""

    name: ClassVar[str] = "quality-classifier"
    model: Path = DEFAULT_MODEL
    threshold: float = 0.5

    def apply(self, page: Page) -> Page | Rejected:
        return page if self._model.probability(page.text) >= self.threshold else Rejected(self.name)

    @cached_property
    def _model(self) -> QualityModel:
        return load_model(self.model)
