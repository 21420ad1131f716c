"""How much memory training a preset takes on each GPU, before anything is allocated. No torch here.

Arithmetic over what athena.train.parallel and athena.nn do: float32 weights, gradients and optimizer state, cut evenly
over the GPUs; bfloat16 copies of two layers at a time; activations as transformers' Llama keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass

from athena.errors import BadInput
from athena.train.presets import Preset

_CHUNK_BYTES = 512 * 2**20  # of float32 logits, as athena.nn.losses cuts them on a GPU
_EXCHANGE_ELEMENTS = 2**28  # as athena.nn.optim exchanges matrices
_MUON_COPIES = 6  # of those in bfloat16: sent, received, iterated on and three products


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each GPU, at the most."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    """bfloat16 weights of two layers, and of embedding and head, whole, with a layer's gradient."""
    activations: int
    logits: int
    """Chunks of logits, and the head's gradient."""
    muon: int
    """Whole matrices in the making, after activations and logits are gone: counted all the same."""

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def plan_memory(preset: Preset, *, gpus: int, micro_tokens: int, checkpointing: bool) -> MemoryPlan:
    """For Muon, bfloat16 and `micro_tokens` at a time on each of `gpus`. Raises BadInput for sizes below one."""
    if gpus < 1 or micro_tokens < 1:
        raise BadInput("a run has at least one GPU and one token at a time")
    parameters = preset.parameters()
    matrices = preset.layers * (preset.layer_parameters - 2 * preset.hidden)
    embeddings = preset.vocab_size * preset.hidden * (1 if preset.tied else 2)
    head = preset.vocab_size * preset.hidden
    within_layer = micro_tokens * _layer_bytes_per_token(preset)
    between_layers = micro_tokens * preset.layers * 2 * preset.hidden
    return MemoryPlan(
        weights=4 * parameters // gpus,
        gradients=4 * parameters // gpus,
        optimizer=(4 * matrices + 8 * (parameters - matrices)) // gpus,
        gathered=2 * (2 * preset.layer_parameters + embeddings) + 4 * preset.layer_parameters,
        activations=between_layers + within_layer if checkpointing else preset.layers * within_layer,
        logits=3 * _CHUNK_BYTES + (4 + 2) * head,
        muon=_MUON_COPIES * 2 * min(matrices, max(_EXCHANGE_ELEMENTS, preset.hidden * preset.mlp)),
    )


def _layer_bytes_per_token(preset: Preset) -> int:
    """What a layer keeps for its backward pass: in bfloat16 the projections' inputs and outputs, queries and keys
    before and after rotation, the gated product's factors; in float32 what the two norms work on."""
    attention = preset.head_dim * (3 * preset.heads + 3 * preset.kv_heads)
    return 2 * (4 * preset.hidden + attention + 4 * preset.mlp) + 4 * 4 * preset.hidden
