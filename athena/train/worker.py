"""One process of a run: `python -m athena.train.worker --run FOLDER`, alone or started by torchrun or accelerate.

FOLDER holds `job.json` and `plan.json`; checkpoints and metrics go to `FOLDER/checkpoints`. The model is made without
memory first, so that no process ever holds more than its share and one tensor. Exit codes are those of
athena.errors; 65 says that the run diverged.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Annotated, TypeVar

import torch
from pydantic import Field, ValidationError

from athena.errors import AthenaError, BadInput, NotFound
from athena.events import EventLog
from athena.nn.memory import keep_freed_memory
from athena.protocol import Noun
from athena.train.loader import Loader
from athena.train.loop import train
from athena.train.parallel import process_group
from athena.train.plan import Plan
from athena.train.tokens import TokenStream
from athena.train.trackers import TrackerName, open_tracker

log = logging.getLogger("athena.train.worker")
JOB, PLAN, CHECKPOINTS = "job.json", "plan.json", "checkpoints"
NounType = TypeVar("NounType", bound=Noun)


class Stage(Noun):
    """From `first_step` on the run reads the tokens in a folder."""

    first_step: Annotated[int, Field(ge=0)]
    tokens: str


class Job(Noun):
    """job.json: what a run trains and on what. Paths are relative to the run's folder."""

    model: str = "initial"
    """A folder with config.json; without weights beside it they are drawn from the plan's seed."""
    length: Annotated[int, Field(ge=1)]
    """Tokens of a window."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    tracker: TrackerName = "none"
    project: str = "athena"
    """Where the tracker shows the run, under its folder's name."""


def work(folder: Path, events: EventLog) -> Path:
    """Trains the run in `folder` with all processes that were started together; its last checkpoint."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig  # seconds of import

    job, plan = _read(folder / JOB, Job), _read(folder / PLAN, Plan)
    initial = folder / job.model
    torch.set_num_threads(1)  # bit-equal reruns, and threads that wait for each other cost 5x on a shared machine
    with process_group() as processes:
        config = AutoConfig.from_pretrained(initial, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if (initial / "generation_config.json").exists():
            model.generation_config = GenerationConfig.from_pretrained(initial, local_files_only=True)
        stages = [(stage.first_step, TokenStream(folder / stage.tokens, job.length)) for stage in job.stages]
        loader = Loader(stages, plan.seed, plan.windows_of, processes.rank, processes.world_size)
        name = job.tracker if processes.rank == 0 else "none"
        tracker = open_tracker(name, project=job.project, run=folder.name, config=plan.model_dump(mode="json"))
        try:
            return train(model, loader, plan, folder / CHECKPOINTS, events, initial=initial, tracker=tracker)
        finally:
            tracker.close()


def mixtures_of(run: Path) -> list[Path]:
    """The mixtures that a run reads: its tokens were encoded beside them. Raises NotFound, BadInput."""
    found = [run / stage.tokens / ".." / "mixture" for stage in _read(run / JOB, Job).stages]
    for mixture in found:
        if not mixture.is_dir():
            raise NotFound(f"there is no mixture beside {mixture.parent}", remedy="name it with --mixture")
    return found


def _read(file: Path, kind: type[NounType]) -> NounType:
    if not file.exists():
        raise NotFound(f"there is no {file}", remedy="give the folder of a run")
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} is damaged: {error}") from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m athena.train.worker", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--events", type=Path, help="file that takes one JSON line an event")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    keep_freed_memory()
    try:
        log.info("done: %s", work(arguments.run, EventLog(arguments.events)))
    except AthenaError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
