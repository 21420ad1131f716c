"""Models of one shape trained side by side: a small model leaves most of an accelerator idle, several fill it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from athena.nn.model import Decoder


class Replicas(nn.Module):
    """K decoders of one shape. Token ids [K, batch, length] to logits [K, batch, length, vocab], each by its own model.

    The parameters stay the models' own, so an optimizer over this module steps every model as it would alone.
    """

    def __init__(self, models: Sequence[Decoder]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self._skeleton = (copy.deepcopy(models[0]).to("meta"),)  # in a tuple, so that it is no part of this module

    def forward(self, tokens: Tensor) -> Tensor:
        states = [dict(model.named_parameters()) for model in self.models]
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        buffers = dict(self.models[0].named_buffers())

        def logits(parameters: dict[str, Tensor], ids: Tensor) -> Tensor:
            result: Tensor = functional_call(self._skeleton[0], (parameters, buffers), (ids,))
            return result

        with sdpa_kernel(SDPBackend.MATH):  # plain matrix products: deterministic, and they stack on every device
            result: Tensor = vmap(logits)(stacked, tokens)
        return result

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Each model's mean cross entropy in nats, [K]. By their sum, each gets the gradient that it gets alone."""
        losses = F.cross_entropy(self(tokens).flatten(0, 2), targets.flatten(), reduction="none")
        return losses.view(len(self.models), -1).mean(1)
