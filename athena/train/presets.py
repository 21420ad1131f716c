"""Model sizes by name, all plain Llama: every tool that reads transformers' checkpoints reads these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from athena.errors import BadInput

if TYPE_CHECKING:
    from transformers import LlamaConfig


@dataclass(frozen=True)
class Preset:
    """A Llama's shape, and the training that follows from it. `vocab_size` is what its tokenizer is trained to."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    tied: bool = True
    rope_theta: float = 10_000.0
    demo_tokens: int | None = None
    eval_documents: int = 64  # of each domain of the evaluation pack

    @property
    def training_tokens(self) -> int:
        """20 tokens a parameter (Hoffmann et al. 2022), but for the demo, which has a minute."""
        return self.demo_tokens or 20 * self.parameters()

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step: 2048 · 160 · (N / 108M)^(2/3), OLMo's ladder, but at least 130 steps a run."""
        ladder = 2048 * 160 * (self.parameters() / 108e6) ** (2 / 3)
        return int(min(ladder, self.training_tokens / 130))

    @property
    def learning_rate(self) -> float:
        """Peak, inverse to the width: 0.006 at 128 hidden units, 0.001 at 768, 0.00015 at 5120."""
        return 0.768 / self.hidden

    def parameters(self, vocab_size: int | None = None) -> int:
        """Number of parameters; `vocab_size` where the tokenizer came out smaller than planned."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.mlp + 2 * self.hidden
        embedding = (vocab_size or self.vocab_size) * self.hidden
        return self.layers * layer + self.hidden + embedding * (1 if self.tied else 2)


PRESETS = {
    "demo": Preset(4, 128, 384, 4, 2, 32, 4_096, 256, demo_tokens=140_000, eval_documents=4),
    "tiny": Preset(4, 192, 512, 6, 3, 32, 8_192, 512),
    "30m": Preset(8, 384, 1_024, 6, 3, 64, 32_768, 1_024),
    "125m": Preset(12, 768, 2_048, 12, 4, 64, 49_152, 2_048),
    "350m": Preset(24, 1_024, 2_816, 16, 8, 64, 65_536, 2_048),
    "1b": Preset(20, 2_048, 5_632, 16, 8, 128, 65_536, 4_096, rope_theta=500_000.0),
    "3b": Preset(32, 2_560, 9_728, 32, 8, 80, 131_072, 4_096, rope_theta=500_000.0),
    "8b": Preset(32, 4_096, 14_336, 32, 8, 128, 131_072, 8_192, tied=False, rope_theta=500_000.0),
    "27b": Preset(56, 5_120, 25_600, 40, 8, 128, 131_072, 8_192, tied=False, rope_theta=500_000.0),
}


def preset_of(name: str) -> Preset:
    """Raises BadInput with the names there are."""
    if name not in PRESETS:
        raise BadInput(f"no preset {name!r}", remedy=f"choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def llama_config(preset: Preset, *, vocab_size: int, end: int) -> LlamaConfig:
    """The transformers config; `end` opens every document and ends generation."""
    from transformers import LlamaConfig  # seconds of import

    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=preset.hidden,
        intermediate_size=preset.mlp,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.kv_heads,
        head_dim=preset.head_dim,
        max_position_embeddings=preset.context_length,
        rope_parameters={"rope_type": "default", "rope_theta": preset.rope_theta},
        tie_word_embeddings=preset.tied,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=None,  # naming one would freeze that token's embedding at zero, and `end` is the only candidate
    )
