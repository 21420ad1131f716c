"""What a finished run hands on to a release. No torch here: releases are cut, verified and compared without it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from athena.evaluation import Evaluation
from athena.protocol import LineageEntry


@dataclass(frozen=True)
class Trained:
    """`model`: a checkpoint's folder; `documents`: a Parquet file of athena.train.tokens.LINEAGE_SCHEMA, which
    `lineage` sums up; `before`: the evaluation of the first weights."""

    model: Path
    tokenizer: Path
    documents: Path
    lineage: tuple[LineageEntry, ...]
    parameters: int
    training_tokens: int
    before: Evaluation
    after: Evaluation
