"""Tensors of a model or an optimizer in safetensors files: one, or one from each process that wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from athena.errors import BadInput


def file_name(kind: str, rank: int, world_size: int) -> str:
    """`model.safetensors`, or a process's part of it, named as transformers names parts."""
    return f"{kind}.safetensors" if world_size == 1 else f"{kind}-{rank + 1:05d}-of-{world_size:05d}.safetensors"


def owners(sizes: Sequence[int], world_size: int) -> list[int]:
    """Which process writes each tensor: the one that has the fewest bytes so far, the first of them."""
    loads = [0] * world_size
    found = []
    for size in sizes:
        rank = loads.index(min(loads))
        loads[rank] += size
        found.append(rank)
    return found


def write_tensors(folder: Path, kind: str, tensors: Mapping[str, Tensor], rank: int, world_size: int) -> Path:
    """Raises OSError if the disk does not take them."""
    path = folder / file_name(kind, rank, world_size)
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:  # what the library makes of a full disk
        raise OSError(f"{path}: {error}") from error
    return path


def write_index(folder: Path, kind: str, sizes: Mapping[str, int], world_size: int) -> Path:
    """Tells transformers which part holds which tensor; `sizes` in bytes, in the order that `owners` got."""
    written_by = dict(zip(sizes, owners(list(sizes.values()), world_size), strict=True))
    index = {
        "metadata": {"total_size": sum(sizes.values())},
        "weight_map": {name: file_name(kind, rank, world_size) for name, rank in written_by.items()},
    }
    path = folder / f"{kind}.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")
    return path


class StoredTensors:
    """What `write_tensors` left in a folder, by however many processes."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._files = sorted(folder.glob(f"{kind}*.safetensors"))

    def load(self, targets: Mapping[str, Tensor]) -> None:
        """Fills every target, sharded ones with their rows alone. Raises BadInput if one is not there or of another
        shape."""
        with ExitStack() as stack:
            files = [stack.enter_context(safe_open(path, "pt")) for path in self._files]
            found = {name: file for file in files for name in file.keys()}  # noqa: SIM118  (no mapping)
            for name, target in targets.items():
                if name not in found:
                    raise BadInput(f"{self._folder} holds no {name}")
                stored = found[name].get_slice(name)
                if tuple(stored.get_shape()) != tuple(target.shape):
                    raise BadInput(f"{name} in {self._folder} has another shape than {tuple(target.shape)}")
                copy_rows(target, stored if target.shape else found[name].get_tensor(name))


@torch.no_grad()
def copy_rows(target: Tensor, source: Any) -> None:
    """Copies `source`, a whole tensor or a slice of a safetensors file, into `target`: only the rows that it holds."""
    if not isinstance(target, DTensor):
        target.copy_(source[:] if target.shape else source)
        return
    (count, *_), (first, *_) = compute_local_shape_and_global_offset(
        target.shape, target.device_mesh, target.placements
    )
    if count:
        target.to_local().copy_(source[first : first + count])


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its rows; all processes call it together. Shares memory where nothing had to be gathered."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
