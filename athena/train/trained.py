"""What a finished run hands on to a release. No torch here: releases are cut, verified and compared without it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from athena.durable import write_file
from athena.errors import BadInput, NotFound
from athena.evaluation import Evaluation
from athena.protocol import LineageEntry, Noun

TRAINED = "trained.json"
CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Trained:
    """`model`: a checkpoint's folder; `documents`: a Parquet file of athena.train.tokens.LINEAGE_SCHEMA, which
    `lineage` sums up; `before`: the evaluation of the first weights; `calibration`: what
    athena.train.calibrate found, where there were miners to compare."""

    model: Path
    tokenizer: Path
    documents: Path
    lineage: tuple[LineageEntry, ...]
    parameters: int
    training_tokens: int
    before: Evaluation
    after: Evaluation
    calibration: Path | None = None


class TrainedRecord(Noun):
    """trained.json, written once a run is done. Paths are relative to the run's folder: of a branch, some lie in its
    trunk's."""

    format: Literal["athena-trained/1"] = "athena-trained/1"
    model: str
    tokenizer: str
    documents: str
    lineage: tuple[LineageEntry, ...]
    parameters: Annotated[int, Field(ge=1)]
    training_tokens: Annotated[int, Field(ge=1)]
    before: Evaluation
    after: Evaluation
    calibration: str | None = None


def save_trained(trained: Trained, folder: Path) -> None:
    """Leaves trained.json in the run's folder, from which `read_trained` finds the same files."""

    def relative(path: Path) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    record = TrainedRecord(
        model=relative(trained.model),
        tokenizer=relative(trained.tokenizer),
        documents=relative(trained.documents),
        lineage=trained.lineage,
        parameters=trained.parameters,
        training_tokens=trained.training_tokens,
        before=trained.before,
        after=trained.after,
        calibration=None if trained.calibration is None else relative(trained.calibration),
    )
    write_file(folder / TRAINED, record.canonical())


def read_trained(folder: Path) -> Trained:
    """What the run in `folder` came to. Raises NotFound while it is not done, BadInput for a damaged record."""
    file = folder / TRAINED
    if not file.is_file():
        raise NotFound(f"no finished run in {folder}", remedy="give the folder of a run that is done")
    try:
        record = TrainedRecord.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} is damaged: {error.errors()[0]['msg']}", remedy="let the run end again") from error
    return Trained(
        model=folder / record.model,
        tokenizer=folder / record.tokenizer,
        documents=folder / record.documents,
        lineage=record.lineage,
        parameters=record.parameters,
        training_tokens=record.training_tokens,
        before=record.before,
        after=record.after,
        calibration=None if record.calibration is None else folder / record.calibration,
    )
