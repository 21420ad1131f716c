"""Attention inside packed documents, as an attention implementation of transformers.

A mask would make every token look at the whole window and weigh most of it by zero; here each document attends to
itself alone. On 8 windows of 512 tokens with documents of some 300 that takes a third off attention's time on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PACKED = "athena_packed"


def boundaries(positions: Tensor) -> Tensor:
    """Where documents begin in the flattened position ids, and their end: int32 [documents + 1], on the CPU.

    A document begins where the position is 0; so does every window, whatever its first position is.
    """
    opened = positions == 0
    opened[..., 0] = True
    starts = opened.flatten().nonzero().flatten()
    return torch.cat((starts, starts.new_tensor([positions.numel()]))).to(torch.int32)


@torch.library.custom_op("athena::packed_attention", mutates_args=(), device_types="cpu")
def _attention(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Causal attention inside each document: [tokens, heads, head_dim] to the same, and the log-sum-exp of scores."""
    out = torch.empty(q.shape, dtype=q.dtype)
    normaliser = torch.empty(q.shape[:2], dtype=torch.float32)
    for start, end in pairwise(bounds.tolist()):
        attended, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *(x[None, start:end].transpose(1, 2) for x in (q, k, v)), 0.0, True, scale=scale
        )
        out[start:end] = attended[0].transpose(0, 1)
        normaliser[start:end] = logsumexp[0].view(q.shape[1], end - start).T
    return out, normaliser


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.float32)


@torch.library.custom_op("athena::packed_attention_backward", mutates_args=(), device_types="cpu")
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, normaliser: Tensor, bounds: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    grads = (
        torch.empty(q.shape, dtype=q.dtype),
        torch.empty(q.shape, dtype=q.dtype),
        torch.empty(q.shape, dtype=q.dtype),
    )
    for start, end in pairwise(bounds.tolist()):
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *(x[None, start:end].transpose(1, 2) for x in (grad, q, k, v, out)),
            normaliser[None, start:end].transpose(1, 2),
            0.0,
            True,
            scale=scale,
        )
        for whole, part in zip(grads, parts, strict=True):
            whole[start:end] = part[0].transpose(0, 1)
    return grads


@_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, normaliser: Tensor, bounds: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bounds, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, bounds)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, normaliser, bounds = ctx.saved_tensors
    return *_attention_backward(grad.contiguous(), q, k, v, out, normaliser, bounds, ctx.scale), None, None


_attention.register_autograd(_backward, setup_context=_keep)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    document_bounds: Tensor,
    longest_document: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: [1, heads, tokens, head_dim] to [1, tokens, heads, head_dim].

    `document_bounds` is what `boundaries` gave, on the tensors' device. On CUDA the inputs are cast to bfloat16.
    """
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if q.device.type == "cuda":
        out = varlen_attn(
            q.to(torch.bfloat16),
            k.to(torch.bfloat16),
            v.to(torch.bfloat16),
            document_bounds,
            document_bounds,
            longest_document,
            longest_document,
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=True,
        )
        assert isinstance(out, Tensor)
        return out.to(value.dtype)[None], None
    repeats = q.shape[1] // k.shape[1]
    k, v = (x[:, :, None].expand(-1, -1, repeats, -1).flatten(1, 2) for x in (k, v))
    out, _normaliser = _attention(q, k, v, document_bounds, scaling)
    return out[None], None


@contextmanager
def attending_within_documents(model: PreTrainedModel) -> Iterator[None]:
    """For the block, `model` attends by `packed_attention`; afterwards as it did before."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, packed_attention)
    before = model.config._attn_implementation
    model.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
