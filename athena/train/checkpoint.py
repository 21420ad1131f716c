"""Checkpoints: folders `step-N`, whole or absent, each a model that transformers loads beside what resuming needs.

`config.json`, `generation_config.json` and `model*.safetensors` are the model; `optimizer*.safetensors` hold the
optimizer's state; `checkpoint.json`, written last, names the run, the data read and the sha256 of the rest. Every
process writes whole tensors, its share of them, so any number of processes reads what any other number wrote.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from athena.durable import finish, flush, sha256_of, write_file
from athena.errors import BadInput, Conflict, NotFound, Unavailable
from athena.events import EventLog
from athena.nn.optim import Optimizers
from athena.protocol import Hex64, Noun, canonical_json
from athena.train.folders import discard, staged
from athena.train.loader import LoaderState
from athena.train.parallel import Processes
from athena.train.plan import Plan
from athena.train.stored import StoredTensors, owners, whole, write_index, write_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
INFO = "checkpoint.json"
PART_SECONDS = 900.0  # the first process waits this long for the others' files
_STEP = re.compile(r"step-(\d{8})")
_FILES: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


class CheckpointInfo(Noun):
    """checkpoint.json. `run` is the digest of what decides the run's course, but for its data, which `data` tells."""

    format: Literal["athena-checkpoint/2"] = "athena-checkpoint/2"
    step: Annotated[int, Field(ge=0)]
    run: Hex64
    data: LoaderState
    norms: tuple[float, ...]
    """The newest gradient norms, for the guard against spikes."""
    files: dict[str, Hex64]


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Every weight once, under the first of its names (tied ones have two); shared with the model."""
    return {name: p.detach() for name, p in model.named_parameters()}


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """The model's files, as `from_pretrained` wants them, into an existing folder."""
    _save_config(model, folder)
    write_tensors(folder, "model", {n: t.contiguous().cpu() for n, t in weights(model).items()}, 0, 1)


def _save_config(model: PreTrainedModel, folder: Path) -> None:
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders there are, newest first."""
    found = [path for path in folder.iterdir() if _STEP.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, reverse=True)


def verify_checkpoint(path: Path) -> CheckpointInfo:
    """Checks every file's sha256. Raises BadInput."""
    try:
        info = CheckpointInfo.model_validate_json((path / INFO).read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"{path} is not a checkpoint: {error}") from error
    for name, digest in info.files.items():
        if not (path / name).is_file() or sha256_of(path / name) != digest:
            raise BadInput(f"{path / name} is damaged")
    return info


class Checkpoints:
    """The checkpoints of one run in `folder`, read and written by all its processes together.

    A context manager: when it ends, what was saved is on disk. Writing goes on beside the training that follows; a
    checkpoint that cannot be written is told and left out, but for the last one.
    """

    def __init__(
        self,
        folder: Path,
        run: str,
        model: PreTrainedModel,
        optimizers: Optimizers,
        plan: Plan,
        processes: Processes,
        events: EventLog,
    ) -> None:
        self._folder, self._run, self._plan = folder, run, plan
        self._model, self._optimizers = model, optimizers
        self._processes, self._events = processes, events
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: tuple[int, Future[None]] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._settle(last=kind is None)
        finally:
            self._writer.shutdown()

    def restore(self) -> CheckpointInfo | None:
        """Puts model, optimizer and generator where the newest whole checkpoint left them; None if there is none.

        A damaged checkpoint is removed and the one before it taken: no bytes of it are trusted. A branch without a
        checkpoint takes the trunk's. Raises Conflict when the checkpoints are another run's, NotFound when the trunk's
        is not there, BadInput when that is damaged.
        """
        self._optimizers.initialise()
        found = self._processes.share(self._newest() if self._processes.rank == 0 else None)
        if found is None:
            return None
        path, info = found
        StoredTensors(path, "model").load(weights(self._model))
        generator = torch.empty_like(torch.get_rng_state())
        StoredTensors(path, "optimizer").load({**self._optimizers.tensors(), "rng": generator})
        torch.set_rng_state(generator)
        return info

    def save(self, step: int, data: LoaderState, norms: tuple[float, ...]) -> None:
        """Takes a copy of all state and writes it as `step-N`; then all but the newest and the milestones go."""
        self._settle()
        info = CheckpointInfo(step=step, run=self._run, data=data, norms=norms, files={})
        state = self._optimizers.tensors() | {"rng": torch.get_rng_state()}
        mine: dict[str, dict[str, Tensor]] = {}
        sizes: dict[str, dict[str, int]] = {}
        for kind, tensors in (("model", weights(self._model)), ("optimizer", state)):
            sizes[kind] = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
            written_by = owners(list(sizes[kind].values()), self._processes.world_size)
            mine[kind] = {}
            for (name, tensor), owner in zip(tensors.items(), written_by, strict=True):
                gathered = whole(tensor)
                if owner == self._processes.rank:
                    mine[kind][name] = gathered.to("cpu", copy=True).contiguous()
        self._writing = step, self._writer.submit(self._write, info, mine, sizes)

    def _settle(self, *, last: bool = False) -> None:
        """Waits for the checkpoint in the making. Raises Unavailable if the last one could not be written."""
        if self._writing is None:
            return
        (step, future), self._writing = self._writing, None
        try:
            future.result()
        except OSError as error:
            log.warning("the checkpoint of step %d was not written: %s", step, error)
            self._events.emit("train.checkpoint_failed", step=step, reason=str(error))
            if last:
                raise Unavailable(
                    f"the last checkpoint was not written: {error}", remedy="make room on the disk"
                ) from error

    def _write(
        self, info: CheckpointInfo, mine: dict[str, dict[str, Tensor]], sizes: dict[str, dict[str, int]]
    ) -> None:
        rank, world = self._processes.rank, self._processes.world_size
        target = self._folder / f"step-{info.step:08d}"
        part = self._folder / f".{target.name}.part"
        part.mkdir(parents=True, exist_ok=True)
        try:
            written = [write_tensors(part, kind, tensors, rank, world) for kind, tensors in mine.items()]
            if rank == 0:
                _save_config(self._model, part)
                written += [path for path in part.glob("*.json") if not path.name.startswith("part-")]
                if world > 1:
                    written.append(write_index(part, "model", sizes["model"], world))
            for path in written:
                flush(path)
            files = {path.name: sha256_of(path) for path in written}
            write_file(part / f"part-{rank}.json", canonical_json(files))
            if rank == 0:
                self._complete(part, target, info, world)
        except OSError:
            if rank == 0:
                shutil.rmtree(part, ignore_errors=True)
            raise

    def _complete(self, part: Path, target: Path, info: CheckpointInfo, world: int) -> None:
        """Gives the folder its name once all processes' files lie in it; removes what is too old."""
        files: dict[str, str] = {}
        deadline = time.monotonic() + PART_SECONDS
        for rank in range(world):
            listed = part / f"part-{rank}.json"
            while not listed.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"process {rank} left no files in {part} for {PART_SECONDS:.0f} s")
                time.sleep(0.05)
            files |= _FILES.validate_json(listed.read_bytes())
            listed.unlink()
        write_file(part / INFO, info.model_copy(update={"files": files}).canonical())
        finish(part, target)
        milestones = set(self._plan.milestones)
        for old in checkpoints(self._folder)[self._plan.keep_last :]:
            if int(old.name.removeprefix("step-")) not in milestones:
                discard(old)

    def _newest(self) -> tuple[Path, CheckpointInfo] | None:
        """The newest whole checkpoint of this run. Removes damaged ones, and what a kill left half written."""
        for leftover in self._folder.glob(".step-*") if self._folder.is_dir() else ():
            shutil.rmtree(leftover)
        for path in checkpoints(self._folder):
            try:
                info = verify_checkpoint(path)
            except BadInput as error:
                log.warning("checkpoint left out: %s", error)
                self._events.emit("train.checkpoint_refused", reason=str(error))
                discard(path)
                continue
            if info.run != self._run:
                raise Conflict(
                    f"{path} belongs to another run", remedy="give each plan and data set a folder of its own"
                )
            return path, info
        return self._taken_over(Path(self._plan.branch_from)) if self._plan.branch_from else None

    def _taken_over(self, source: Path) -> tuple[Path, CheckpointInfo]:
        """The trunk's checkpoint as this run's own first one, by hard links where the file system has them."""
        if not source.is_dir():
            raise NotFound(f"no checkpoint to branch from at {source}")
        info = verify_checkpoint(source).model_copy(update={"run": self._run, "norms": ()})
        target = self._folder / source.name
        with staged(target) as out:
            for name in info.files:
                try:
                    os.link(source / name, out / name)
                except OSError:  # another file system
                    shutil.copyfile(source / name, out / name)
            (out / INFO).write_bytes(info.canonical())
        return target, info
