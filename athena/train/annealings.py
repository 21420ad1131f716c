"""What each miner's data does to the model itself: the branch's first steps once more, each time without one miner.

Every rerun begins at the branch's checkpoint and leads the learning rate to zero in a few steps on new tokens: the
documents of all miners, or of all but one. What the ruler then finds worse without a miner is what its documents gave.
All reruns together cost a fraction of the branch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from athena.evaluation import Evaluation
from athena.train.calibrate import MinerEffect
from athena.train.encoder import DOCUMENTS_SCHEMA
from athena.train.gather import DOCUMENTS, load_mixture
from athena.train.mixture import hash_of
from athena.train.tokens import write_tokens

SHARE = 1 / 16
"""Of the branch's decay that each rerun takes."""
LEAST_STEPS = 8
MOST_MINERS = 8
"""The largest suppliers; of the others too little was read to tell."""
SURPLUS = 8
"""Of the mixtures, documents of this many times the tokens that a rerun reads are drawn, so that each has enough."""


@dataclass(frozen=True)
class Rerun:
    """`left_out` is a hotkey, or null for the one with all documents; `folder` takes its tokens and checkpoints."""

    folder: Path
    left_out: str | None

    def write(self, mixtures: Sequence[Path], tokenizer: Path, num_tokens: int) -> Path:
        """Tokens of drawn documents, enough to read so many; where they lie."""
        tokens = self.folder / "tokens"
        share = SURPLUS * num_tokens / sum(load_mixture(mixture).tokens for mixture in mixtures)
        if not tokens.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            documents = self.folder / DOCUMENTS
            with pq.ParquetWriter(documents, DOCUMENTS_SCHEMA, compression="zstd") as writer:
                for mixture in mixtures:
                    for table in _others(mixture, self.left_out, share):
                        writer.write_table(table)
            write_tokens(documents, tokenizer, tokens)
            documents.unlink()
        return tokens


def _others(mixture: Path, left_out: str | None, share: float) -> Iterator[pa.Table]:
    """A drawn share of the miners' documents without one miner's, a row group at a time."""
    with pq.ParquetFile(mixture / DOCUMENTS) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=DOCUMENTS_SCHEMA.names, use_threads=False)
            rows = zip(table["hotkey"].to_pylist(), table["text"].to_pylist(), strict=True)
            table = table.filter(pa.array([h not in ("", left_out) and _is_drawn(text, share) for h, text in rows]))
            if table.num_rows:
                yield table


def _is_drawn(text: str, share: float) -> bool:
    return int.from_bytes(hash_of(text)[:8], "big") < share * 2**64


def miner_effect(
    hotkey: str, share: float, forecast: float | None, without: Evaluation, whole: Evaluation
) -> MinerEffect:
    """How much worse the model is without a miner, mean over domains, with its standard error over documents.

    Both evaluations are of the same documents.
    """
    means, variances = [], []
    for domain, score in whole.domains.items():
        sizes = np.array(score.document_bytes)
        gaps = np.array(without.domains[domain].document_bits) - np.array(score.document_bits)
        mean = gaps.sum() / sizes.sum()
        means.append(mean)
        residuals = (gaps - mean * sizes) / sizes.mean()
        variances.append(residuals.var(ddof=1) / len(sizes) if len(sizes) > 1 else 0.0)
    error = math.sqrt(sum(variances)) / len(means)
    return MinerEffect(hotkey=hotkey, share=share, forecast=forecast, effect=float(np.mean(means)), error=error)
