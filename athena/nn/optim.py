"""Muon for the hidden matrices, AdamW for the rest, and the warmup-stable-decay schedule.

Muon is our own: torch.optim.Muon orthogonalises in bfloat16, one matrix at a time, which on a CPU without bfloat16
instructions costs twice the rest of the step (2.3 s against 0.9 s at 2.4M parameters, AVX2); float32 and one batched
iteration for all matrices of a shape cost a tenth of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

# Quintic Newton-Schulz coefficients that maximise the slope at zero (Jordan 2024, "Muon").
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
EXCHANGE_ELEMENTS = 2**28
"""Of whole matrices that a process iterates on at a time: half a GiB in bfloat16. A larger matrix is alone."""

OptimizerName = Literal["muon", "adamw"]


def orthogonalize(matrices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly (singular values in 0.7..1.2), of [count, rows, columns].

    Iterates in `dtype`, by default float32 on CPU and bfloat16 elsewhere; the result has the input's dtype.
    """
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrices.to(dtype or (torch.float32 if matrices.device.type == "cpu" else torch.bfloat16))
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    if tall:
        x = x.mT
    return x.to(matrices.dtype)


class Muon(Optimizer):
    """Momentum orthogonalised matrix by matrix; the update's RMS matches AdamW's, so both share one learning rate.

    Takes matrices only (ValueError otherwise). Jordan 2024; the 0.2·√max(rows, columns) scale is Liu et al. 2025.
    `dtype` is that of `orthogonalize`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype
        for group in self.param_groups:
            if any(p.ndim != 2 for p in group["params"]):
                raise ValueError("Muon takes matrices only")

    def initialise(self) -> None:
        """Zero momentum for every matrix, so that there is something to load a checkpoint into."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("momentum", torch.zeros_like(p))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; `closure` is part of torch's signature and refused."""
        if closure is not None:
            raise ValueError("Muon evaluates no closure")
        self.initialise()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                updates = self._orthogonalized(params, [self._momentum(p, group["momentum"]) for p in params])
                scale = 0.2 * max(shape) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    part = _local(p)
                    part.mul_(1 - group["lr"] * group["weight_decay"])
                    part.add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, p: Tensor, momentum: float) -> Tensor:
        """This process's rows of the Nesterov look-ahead of the mean gradient, which it moves on by one step."""
        assert p.grad is not None
        grad = _local(p.grad)
        mean = _local(self.state[p]["momentum"]).lerp_(grad, 1 - momentum)
        return grad.lerp(mean, momentum)

    def _orthogonalized(self, params: list[Tensor], momenta: list[Tensor]) -> Iterable[Tensor]:
        """What each process adds to its part of matrices of one shape."""
        first = params[0]
        if not isinstance(first, DTensor):
            return orthogonalize(torch.stack(momenta), self._dtype)
        mesh = first.device_mesh
        at_once = mesh.size() * max(1, EXCHANGE_ELEMENTS // first.numel())
        return [
            update
            for start in range(0, len(momenta), at_once)
            for update in orthogonalize_shards(
                momenta[start : start + at_once], first.shape[0], mesh.get_group(), self._dtype
            )
        ]


def _local(tensor: Tensor) -> Tensor:
    """This process's rows of a sharded tensor, in the same memory; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def orthogonalize_shards(
    shards: list[Tensor], rows: int, group: dist.ProcessGroup, dtype: torch.dtype | None = None
) -> list[Tensor]:
    """`orthogonalize` of matrices of one shape, of which every process of `group` holds some rows, as fully_shard cuts.

    Every matrix is sent whole to one process, which iterates on it alone and sends the rows back: two exchanges for all
    matrices of a shape, where iterating on shards would take two all-reduces for each iteration of each matrix.
    """
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    columns, own = shards[0].shape[1], shards[0].shape[0]
    kind = dtype or (torch.float32 if shards[0].device.type == "cpu" else torch.bfloat16)
    most = -(-rows // world)
    heights = [max(0, min(most, rows - most * r)) for r in range(world)]
    counts = [len(range(r, len(shards), world)) for r in range(world)]  # matrix i goes to process i mod world
    outgoing = torch.cat([shards[i].flatten() for r in range(world) for i in range(r, len(shards), world)]).to(kind)
    sent = [own * columns * count for count in counts]
    received = [height * columns * counts[rank] for height in heights]
    incoming = outgoing.new_empty(sum(received))
    dist.all_to_all_single(incoming, outgoing, received, sent, group)
    if counts[rank]:
        parts = [p.view(counts[rank], -1, columns) for p in torch.split(incoming, received) if p.numel()]
        whole = orthogonalize(torch.cat(parts, dim=1), kind)
        incoming = torch.cat([part.flatten() for part in torch.split(whole, [h for h in heights if h], dim=1)])
    dist.all_to_all_single(outgoing, incoming, sent, received, group)
    updates: list[Tensor] = [shards[0]] * len(shards)
    for r, part in enumerate(torch.split(outgoing, sent)):
        for i, update in zip(range(r, len(shards), world), part.view(-1, own, columns) if own else (), strict=False):
            updates[i] = update.to(shards[i].dtype)
    return updates


class Optimizers:
    """Several torch optimizers over one model, stepped as one under one learning rate.

    `parts` are the torch optimizers, for what wants them one by one (sharded checkpoints).
    """

    def __init__(self, model: nn.Module, parts: list[Optimizer]) -> None:
        self.parts = parts
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}

    def set_lr(self, lr: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """All state as `<parameter name>/<key>` to tensor, shared with the optimizers: safetensors can hold it."""
        return {
            f"{self._names[p]}/{key}": value
            for part in self.parts
            for p, state in part.state.items()
            for key, value in state.items()
        }

    def initialise(self) -> None:
        """Makes all state that there will be, so that `tensors` gives it before the first step: to be loaded into."""
        for part in self.parts:
            if isinstance(part, Muon):
                part.initialise()
                continue
            for group in part.param_groups:
                for p in group["params"]:
                    state = part.state[p]
                    state.setdefault("step", torch.zeros((), dtype=torch.float32, device=p.device))
                    state.setdefault("exp_avg", torch.zeros_like(p))
                    state.setdefault("exp_avg_sq", torch.zeros_like(p))


def make_optimizer(
    model: nn.Module,
    lr: float,
    *,
    name: OptimizerName = "muon",
    weight_decay: float = 0.1,
    muon_dtype: torch.dtype | None = None,
) -> Optimizers:
    """The optimizer of all of `model`'s parameters.

    "muon": hidden matrices by Muon; embeddings, the output head and vectors by AdamW. "adamw": all by AdamW. Weight
    decay acts on hidden matrices only. `muon_dtype` is that of `orthogonalize`.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for parameter_name, p in model.named_parameters():
        hidden = p.ndim == 2 and id(p) not in embeddings and "lm_head" not in parameter_name
        (matrices if hidden else rest).append(p)
    groups = [{"params": rest, "weight_decay": 0.0}]
    parts: list[Optimizer] = []
    if name == "muon":
        parts.append(Muon(matrices, lr, weight_decay, dtype=muon_dtype))
    else:
        groups.append({"params": matrices, "weight_decay": weight_decay})
    parts.append(AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True))
    return Optimizers(model, parts)


def schedule(step: int, total_steps: int, warmup_steps: int, decay_steps: int) -> float:
    """Factor of the learning rate at `step` (0-based): linear warmup, 1, linear decay to zero at `total_steps`."""
    rise = (step + 1) / max(1, warmup_steps)
    fall = (total_steps - step) / max(1, decay_steps)
    return max(0.0, min(1.0, rise, fall))
