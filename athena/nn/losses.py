"""Training losses by name, and the head of a language model that never holds the logits of all tokens.

The head goes through the tokens in chunks. Each chunk's logits are made once, give their loss and their gradient, and
are gone: nothing is computed a second time, and memory is that of one chunk and one gradient of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from athena.errors import BadInput
from athena.nn.head import losses_then_gradient

IGNORED = -100
_CHUNK_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}  # of float32 logits: a core's cache; enough to fill a GPU

Loss = Callable[[Tensor, Tensor], Tensor]
"""float32 logits [tokens, vocabulary] and labels [tokens], IGNORED where none, to the sum over labels, in nats."""

LOSSES: dict[str, Loss] = {}


def loss(function: Loss) -> Loss:
    """Registers a function under its own name. Raises ValueError if the name is taken."""
    name = cast("Any", function).__name__
    if name in LOSSES:
        raise ValueError(f"there is a loss {name!r} already")
    LOSSES[name] = function
    return function


def loss_named(name: str) -> Loss:
    """Raises BadInput with the names there are."""
    if name not in LOSSES:
        raise BadInput(f"no loss {name!r}", remedy=f"choose one of {', '.join(sorted(LOSSES))}")
    return LOSSES[name]


@loss
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the log-probability of the right token."""
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")


@loss
def z_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The squared log of the softmax's normaliser (PaLM, section 5): keeps logits from drifting in bfloat16."""
    return logits.logsumexp(-1).square()[labels != IGNORED].sum()


@loss
def label_smoothing(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy with the uniform distribution: weighted a beside 1 - a of cross_entropy it is smoothing by a."""
    return -logits.log_softmax(-1).mean(-1)[labels != IGNORED].sum()


class _Head(torch.autograd.Function):
    """Losses of `hidden @ weight.T`, computed with their gradients in one pass over chunks."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, names: tuple[str, ...], factors: tuple[float, ...]
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            rows = max(1, _CHUNK_BYTES[device] // (4 * weight.shape[0]))
            terms = torch.zeros(len(names), device=hidden.device)
            into_hidden = torch.empty_like(hidden)
            into_weight = torch.zeros(weight.shape, dtype=torch.float32, device=hidden.device)
            for start in range(0, len(hidden), rows):
                part = hidden[start : start + rows].to(dtype)
                wanted = labels[start : start + rows]
                values, grad = _chunk(part, matrix, wanted, names, factors)
                terms += values
                unlabelled = (wanted == IGNORED)[:, None]  # no gradient, whatever `_chunk` left in their rows
                into_hidden[start : start + rows] = (grad @ matrix).masked_fill_(unlabelled, 0.0)
                part = part.masked_fill(unlabelled, 0.0)
                if dtype is torch.float32:
                    into_weight.addmm_(grad.T, part)
                else:
                    into_weight += grad.T @ part
        ctx.save_for_backward(into_hidden, into_weight.to(weight.dtype))
        ctx.mark_non_differentiable(terms)
        return (terms * terms.new_tensor(factors)).sum(), terms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        into_hidden, into_weight = ctx.saved_tensors
        return into_hidden * grads[0].to(into_hidden.dtype), into_weight * grads[0], None, None, None


def _chunk(
    hidden: Tensor, weight: Tensor, labels: Tensor, names: tuple[str, ...], factors: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Each loss of a chunk [losses], and the gradient of their weighted sum by the logits, in the weight's dtype; right
    in the rows that have a label."""
    logits = (hidden @ weight.T).float()
    if names == ("cross_entropy",):
        return _cross_entropy_alone(logits, labels, factors[0], weight.dtype)
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        values = torch.stack([LOSSES[name](logits, labels) for name in names])
        (grad,) = torch.autograd.grad(values @ values.new_tensor(factors), logits)
    return values.detach(), grad.to(weight.dtype)


def _cross_entropy_alone(logits: Tensor, labels: Tensor, factor: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`_chunk` for what nearly every run trains by: two passes over the logits where autograd takes four.

    Rows without a label are not zero.
    """
    counted = labels != IGNORED
    targets = labels.where(counted, 0)
    values = losses_then_gradient(logits, targets)[:, 0].where(counted, 0.0).sum()[None]
    if factor != 1.0:
        logits *= factor
    return values, logits.to(dtype)


def head_losses(hidden: Tensor, weight: Tensor, labels: Tensor, losses: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """The weighted sum of `losses` (name to factor) over all labels, and each loss alone, unweighted [losses].

    `hidden` [tokens, size], `weight` [vocabulary, size], `labels` [tokens]. Only the sum can be differentiated, once.
    Raises BadInput for a name that there is not.
    """
    for name in losses:
        loss_named(name)
    total, terms = _Head.apply(hidden, weight, labels, tuple(losses), tuple(losses.values()))  # type: ignore[no-untyped-call]
    return total, terms
