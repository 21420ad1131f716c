"""Checkpoints: folders `step-N`, whole or absent, each a model that transformers loads beside what resuming needs.

`step-N/config.json, generation_config.json, model.safetensors` is the model; `optimizer.safetensors` holds the
optimizer's state; `checkpoint.json`, written last, names the run it belongs to and the sha256 of the rest.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from athena.durable import sha256_of
from athena.errors import BadInput, Conflict
from athena.nn.optim import Optimizers
from athena.protocol import Hex64, Noun
from athena.train.folders import discard, staged

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
_STEP = re.compile(r"step-(\d{8})")


class CheckpointInfo(Noun):
    """checkpoint.json. `run` is the digest of everything that decides the run's course: plan, data, first weights."""

    format: Literal["athena-checkpoint/1"] = "athena-checkpoint/1"
    step: Annotated[int, Field(ge=0)]
    run: Hex64
    files: dict[str, Hex64]


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Every weight once, under the first of its names (tied ones have two); shared with the model."""
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        unique.setdefault(tensor.data_ptr(), (name, tensor))
    return dict(unique.values())


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """The model's files, as `from_pretrained` wants them, into an existing folder."""
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tensors = {name: tensor.detach().contiguous() for name, tensor in weights(model).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def save_checkpoint(
    folder: Path, step: int, run: str, model: PreTrainedModel, optimizers: Optimizers, *, keep_last: int
) -> Path:
    """Leaves `folder/step-N`, then removes all but the newest `keep_last`."""
    target = folder / f"step-{step:08d}"
    with staged(target) as out:
        save_model(model, out)
        state = {name: tensor.contiguous() for name, tensor in optimizers.tensors().items()}
        save_file({**state, "rng": torch.get_rng_state()}, out / "optimizer.safetensors")
        files = {path.name: sha256_of(path) for path in sorted(out.iterdir())}
        (out / "checkpoint.json").write_bytes(CheckpointInfo(step=step, run=run, files=files).canonical())
    for old in checkpoints(folder)[keep_last:]:
        discard(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders there are, newest first."""
    found = [path for path in folder.iterdir() if _STEP.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, reverse=True)


def restore(folder: Path, run: str, model: PreTrainedModel, optimizers: Optimizers) -> int:
    """Puts model, optimizer and generator where the newest whole checkpoint left them; its step, 0 if there is none.

    A damaged checkpoint is removed and the one before it taken: no bytes of it are trusted. Raises Conflict when the
    checkpoints are another run's.
    """
    for path in checkpoints(folder):
        try:
            info = verify_checkpoint(path)
        except BadInput as error:
            log.warning("checkpoint left out: %s", error)
            discard(path)
            continue
        if info.run != run:
            raise Conflict(f"{path} belongs to another run", remedy="give each plan and data set a folder of its own")
        _load_weights(model, path)
        state = load_file(path / "optimizer.safetensors")
        torch.set_rng_state(state.pop("rng"))
        optimizers.load_tensors(state)
        return info.step
    return 0


def verify_checkpoint(path: Path) -> CheckpointInfo:
    """Checks every file's sha256. Raises BadInput."""
    try:
        info = CheckpointInfo.model_validate_json((path / "checkpoint.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"{path} is not a checkpoint: {error}") from error
    for name, digest in info.files.items():
        if not (path / name).is_file() or sha256_of(path / name) != digest:
            raise BadInput(f"{path / name} is damaged")
    return info


def _load_weights(model: PreTrainedModel, path: Path) -> None:
    stored = load_file(path / "model.safetensors")
    with torch.no_grad():
        for name, tensor in weights(model).items():
            tensor.copy_(stored[name])
