"""What the suites measure, and with what: a model that is loaded, its texts, and what was planted in its training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from athena.durable import sha256_of
from athena.evalpack import EvalPack
from athena.evaluations.canaries import CanaryPlan
from athena.protocol import canonical_json

_WEIGHTS, _TOKENIZER = ("config.json", "*.safetensors"), ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class ModelFiles:
    """A folder that transformers loads a model from, and the one with its tokenizer, which may be the same."""

    folder: Path
    tokenizer: Path

    @cached_property
    def digest(self) -> str:
        """sha256 over what decides the model's answers: names and sha256 of config, weights and tokenizer."""
        found = {path for pattern in _WEIGHTS for path in self.folder.glob(pattern)}
        found |= {self.tokenizer / name for name in _TOKENIZER if (self.tokenizer / name).is_file()}
        return material(*sorted([path.name, sha256_of(path)] for path in found))


@dataclass(frozen=True)
class TrainingTexts:
    """`read` gives the texts that a model was trained on, anew at every call; `identity` says which they are."""

    identity: str
    read: Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Subject:
    """A transformers causal language model and its tokenizer, measured on `per_domain` documents of each domain of the
    pack, `window` tokens at a time.

    `files`: where it was loaded from, for suites that load it themselves. `canaries` were planted in `training`.
    `limit`: of each of lm-eval's own tasks at most so many items.
    """

    model: Any
    tokenizer: Any
    pack: EvalPack
    per_domain: int
    window: int
    files: ModelFiles | None = None
    training: TrainingTexts | None = None
    canaries: CanaryPlan | None = None
    limit: int = 200

    @property
    def identity(self) -> str:
        """The digest of all that decides what is measured; of two equal ones the results agree."""
        return material(
            self.files.digest if self.files is not None else None,
            self.pack.hash,
            self.per_domain,
            self.window,
            self.training.identity if self.training is not None else None,
            self.canaries.digest() if self.canaries is not None else None,
            self.limit,
        )


def material(*parts: Any) -> str:
    """The digest of what a suite asked: JSON values. 64 hex characters."""
    return hashlib.sha256(canonical_json(list(parts))).hexdigest()
