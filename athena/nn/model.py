"""A plain decoder-only transformer, small enough to train from scratch in seconds on one core.

Pre-norm blocks with RMSNorm, rotary positions, normalised queries and keys, a squared-ReLU MLP and a tied embedding.
No dropout, no biases: what a run depends on is its data, its seed and this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from athena.nn.head import mean_cross_entropy

ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder; `hidden_size` must be a multiple of `2 * num_heads` (rotary pairs)."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    max_length: int
    mlp_ratio: int = 4


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream [batch, length, hidden]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.out = nn.Linear(size, size, bias=False)
        self.up = nn.Linear(size, config.mlp_ratio * size, bias=False)
        self.down = nn.Linear(config.mlp_ratio * size, size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, size = x.shape
        qkv = self.qkv(_norm(x)).view(batch, length, 3, self.num_heads, size // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = _rotate(_norm(q), cos, sin), _rotate(_norm(k), cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed: Tensor = x + self.out(attended.transpose(1, 2).reshape(batch, length, size))
        thought: Tensor = self.down(F.relu(self.up(_norm(mixed))).square())
        return mixed + thought


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class Decoder(nn.Module):
    """Token ids [batch, length] to logits [batch, length, vocab]. Weights come from the current torch seed."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.hidden_size % (2 * config.num_heads):
            raise ValueError("hidden_size must be a multiple of 2 * num_heads")
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        angles = _angles(config.max_length, config.hidden_size // config.num_heads)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Gaussian matrices of variance 1 / fan-in; projections into the residual stream start at zero."""
        nn.init.normal_(self.embedding.weight, std=self.config.hidden_size**-0.5)
        for block in self.blocks:
            assert isinstance(block, Block)
            for linear in (block.qkv, block.up):
                nn.init.normal_(linear.weight, std=self.config.hidden_size**-0.5)
            for linear in (block.out, block.down):
                nn.init.zeros_(linear.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = F.linear(self.hidden(tokens), self.embedding.weight)
        return logits

    def hidden(self, tokens: Tensor) -> Tensor:
        """What the output layer, which is the embedding, is applied to: [batch, length, hidden]."""
        length = tokens.size(1)
        cos, sin = self.get_buffer("cos")[:length], self.get_buffer("sin")[:length]
        x = _norm(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, cos, sin)
        return _norm(x)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy in nats of `targets` [batch, length]."""
        if tokens.device.type == "cpu":
            return mean_cross_entropy(self.hidden(tokens).flatten(0, 1), self.embedding.weight, targets.flatten())
        return self.losses(tokens, targets).mean()

    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy in nats of each target, [batch, length]."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def _angles(max_length: int, head_size: int) -> Tensor:
    frequencies = torch.exp(-math.log(ROPE_BASE) * torch.arange(0, head_size, 2) / head_size)
    return torch.outer(torch.arange(max_length).float(), frequencies)
