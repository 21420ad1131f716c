"""Fits a quality classifier to texts that people labelled, and says how it does on texts that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

from athena.errors import BadInput, TooLarge
from athena.refine.steps.classifier import NUM_BUCKETS, Buckets, Features, QualityModel, features

MAX_LINE_BYTES = 16 << 20
MIN_TEXTS_PER_LABEL = 10
HELD_OUT_SHARE = 0.2
FOLDS = 5
# Inverse strengths of the L2 penalty to choose from. On the texts of DCLM's annotators 100 does no better than 10.
STRENGTHS = (1.0, 10.0)

Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOut:
    """Of held-out texts: how many there were, and the share of good and of bad ones that a threshold of 0.5 keeps."""

    texts: int
    good_kept: float
    bad_kept: float

    @property
    def balanced_accuracy(self) -> float:
        return (self.good_kept + 1.0 - self.bad_kept) / 2


def read_labelled(path: Path) -> Iterator[tuple[str, bool]]:
    """(text, whether it is good) of each line {"text": …, "label": 0 or 1}. Raises BadInput or TooLarge of a line."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise TooLarge(f"{path}:{number}: more than {MAX_LINE_BYTES:,} bytes in a line")
            try:
                row = json.loads(line)
                text, label = row["text"], row["label"]
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise _no_label(path, number) from error
            if not isinstance(text, str) or isinstance(label, float) or label not in (0, 1):
                raise _no_label(path, number)
            yield text, bool(label)


def _no_label(path: Path, number: int) -> BadInput:
    return BadInput(f"{path}:{number}: no labelled text", remedy='write {"text": "…", "label": 0 or 1}, one per line')


def fit(texts: Sequence[Features], labels: Labels, seed: int) -> QualityModel:
    """The model of these texts alone; cross-validation among them chooses the strength of the penalty.

    Both labels weigh alike, however many texts have them. The same texts and seed give the same model. Raises BadInput
    if a label has fewer than MIN_TEXTS_PER_LABEL texts.
    """
    _check(labels)
    search = GridSearchCV(
        LogisticRegression(class_weight="balanced", solver="liblinear"),
        {"C": STRENGTHS},
        scoring="balanced_accuracy",
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
    )
    matrix, buckets = _matrix(texts)
    search.fit(matrix, labels)
    best = search.best_estimator_
    weights = np.zeros(NUM_BUCKETS, dtype=np.float32)
    weights[buckets] = best.coef_[0]
    return QualityModel(weights, float(best.intercept_[0]))


def train(texts: Sequence[Features], labels: Labels, seed: int) -> tuple[QualityModel, HeldOut]:
    """The model of all texts, and how well the one of four fifths of them judges the rest."""
    _check(labels)
    seen, unseen = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT_SHARE, random_state=seed, stratify=labels
    )
    trial = fit([texts[i] for i in seen], labels[seen], seed)
    kept = np.array([trial.probability_of(texts[i]) >= 0.5 for i in unseen])
    good = labels[unseen]
    held_out = HeldOut(len(unseen), float(kept[good].mean()), float(kept[~good].mean()))
    return fit(texts, labels, seed), held_out


def labelled_features(path: Path) -> Iterator[tuple[Features, bool]]:
    """The features of each text of the file, 12 bytes for each distinct word or pair, and whether it is good."""
    return ((features(text), good) for text, good in read_labelled(path))


def _check(labels: Labels) -> None:
    fewest = min(int(labels.sum()), int((~labels).sum()))
    if fewest < MIN_TEXTS_PER_LABEL:
        raise BadInput(
            f"only {fewest} texts with one of the two labels",
            remedy=f"label at least {MIN_TEXTS_PER_LABEL} good and {MIN_TEXTS_PER_LABEL} bad texts",
        )


def _matrix(texts: Sequence[Features]) -> tuple[csr_matrix, Buckets]:
    """float64[texts, k] and the int32[k] buckets that the texts use: liblinear's time grows with the columns."""
    ends = np.cumsum([0, *(len(buckets) for buckets, _ in texts)])
    used, columns = np.unique(np.concatenate([buckets for buckets, _ in texts]), return_inverse=True)
    values = np.concatenate([values for _, values in texts])
    return csr_matrix((values, columns, ends), shape=(len(texts), len(used))), used
