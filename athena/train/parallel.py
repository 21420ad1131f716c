"""One run on one process or many: who there is, how a model is cut over them, and how its first weights come about.

The same command runs on one process and, started by torchrun or `accelerate launch`, on many: fully_shard (FSDP2) cuts
parameters, gradients and optimizer state evenly. A GPU is sharded over even if it is alone: that is what computes in
bfloat16 from float32 weights there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from athena.train.learner import Learner
from athena.train.plan import Plan
from athena.train.stored import StoredTensors, copy_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Value = TypeVar("Value")
log = logging.getLogger(__name__)
_COMPILERS = ("g++", "clang++")
_BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them."""

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    def current(cls) -> Processes:
        """As the process group says; one process where there is none."""
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        if not dist.is_initialized():
            return cls(0, 1, device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def share(self, value: Value) -> Value:
        """The first process's value, on all."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def process_group() -> Iterator[Processes]:
    """For the block, the processes that torchrun or `accelerate launch` started together; alone where nobody did."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    if world > 1:
        dist.init_process_group(backend)
    elif on_gpu:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield Processes.current()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def compute_dtype(plan: Plan, device: torch.device) -> torch.dtype:
    """The type that matrices are multiplied in."""
    if plan.precision != "auto":
        return torch.bfloat16 if plan.precision == "bfloat16" else torch.float32
    features = torch.cpu.get_capabilities()
    fast = device.type == "cuda" or any(features.get(feature, False) for feature in _BFLOAT16_FEATURES)
    return torch.bfloat16 if fast else torch.float32


def place(learner: Learner, plan: Plan, processes: Processes, initial: Path | None) -> AbstractContextManager[Any]:
    """Compiles and cuts the learner, on the processes' devices; the context in which its forward pass is computed.

    A model on the meta device gets its first weights here, from the folder `initial`, or drawn from the plan's seed.
    """
    dtype = compute_dtype(plan, processes.device)
    on_meta = any(p.is_meta for p in learner.parameters())
    if not on_meta:
        learner.to(processes.device)
    if plan.compile and _has_compiler():
        learner.compile_parts(sharded=dist.is_initialized())
    if dist.is_initialized():
        _shard(learner, dtype, processes)
    if on_meta:
        learner.to_empty(device=processes.device)
        learner.model.tie_weights()  # to_empty parted them
        _first_weights(learner.model, plan.seed, initial)
    if dist.is_initialized() or dtype is torch.float32:
        return nullcontext()
    return torch.autocast(processes.device.type, dtype)


def _has_compiler() -> bool:
    """Whether there is what torch.compile hands its code to; a run is the same without, and slower."""
    if any(shutil.which(name) for name in (os.environ.get("CXX", ""), *_COMPILERS) if name):
        return True
    log.warning("no C++ compiler here, so the model is not compiled; install one of %s", ", ".join(_COMPILERS))
    return False


def _shard(learner: Learner, dtype: torch.dtype, processes: Processes) -> None:
    mesh = init_device_mesh(processes.device.type, (processes.world_size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    if dtype is torch.float32:
        policy = MixedPrecisionPolicy()
    for layer in learner.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=processes.world_size > 1)
    fully_shard(learner, mesh=mesh, mp_policy=policy)


def _first_weights(model: PreTrainedModel, seed: int, initial: Path | None) -> None:
    model.tie_weights()  # to_empty made a tensor for each of the names of a shared one
    rotary = model.base_model.rotary_emb
    model.base_model.rotary_emb = type(rotary)(config=model.config).to(rotary.inv_freq.device)  # to_empty emptied it
    if initial is not None and any(initial.glob("model*.safetensors")):
        StoredTensors(initial, "model").load(dict(model.named_parameters()))
        return
    for name, p in model.named_parameters():
        copy_rows(p, drawn_weight(name, p.shape, seed, model.config.initializer_range))


def drawn_weight(name: str, shape: torch.Size, seed: int, std: float) -> Tensor:
    """First values of a parameter, float32: ones for vectors (norms), else normal."""
    if len(shape) == 1:
        return torch.ones(shape)
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=7).digest()
    return torch.empty(shape).normal_(std=std, generator=torch.Generator().manual_seed(int.from_bytes(digest, "big")))
