"""Model sizes by name, all plain Llama: every tool that reads transformers' checkpoints reads these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from athena.errors import BadInput

if TYPE_CHECKING:
    from transformers import LlamaConfig


MICRO_TOKENS = 4096


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
    def micro_windows(self) -> int:
        """Windows that go through the model at a time: some 4,096 tokens, which fill a core and a GPU alike."""
        return max(1, MICRO_TOKENS // self.context_length)

    @property
    def compiles(self) -> bool:
        """Whether torch.compile pays: it takes a minute or two for a tenth of the time, and a run of 1e14 FLOPs takes a
        core twenty minutes."""
        return self.training_tokens * self.flops_per_token() > 1e14

    @property
    def learning_rate(self) -> float:
        """Peak, inverse to the width: 0.006 at 128 hidden units, 0.001 at 768, 0.00015 at 5120."""
        return 0.768 / self.hidden

    def parameters(self, vocab_size: int | None = None) -> int:
        """Number of parameters; `vocab_size` where the tokenizer came out smaller than planned."""
        embedding = (vocab_size or self.vocab_size) * self.hidden
        return self.layers * self.layer_parameters + self.hidden + embedding * (1 if self.tied else 2)

    @property
    def layer_parameters(self) -> int:
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.mlp + 2 * self.hidden

    def flops_per_token(self, context_length: int | None = None) -> int:
        """Floating-point operations that training on a token takes, in a document as long as the context.

        6 for every parameter of a matrix, the head once and the embedding not (Kaplan et al. 2020); and for the causal
        half of the attention scores, 6 · layers · heads · head_dim · context.
        """
        matrices = self.layers * (self.layer_parameters - 2 * self.hidden) + self.vocab_size * self.hidden
        scores = self.layers * self.heads * self.head_dim * (context_length or self.context_length)
        return 6 * (matrices + scores)


def shaped(layers: int, width: int, vocab_size: int, context_length: int) -> Preset:
    """The rule by which depth and width decide the rest.

    Heads of 32 up to width 256, of 64 up to 1,024, of 128 above; as many key heads as divide the heads, at most 8 and
    at most half of them; an MLP of 8/3 the width, to the next 128 (SwiGLU's three matrices then cost what two of four
    widths would); embedding and head are one matrix up to width 2,048; a rotary base of 500,000 for contexts above
    2,048.
    """
    head_dim = 32 if width <= 256 else 64 if width <= 1024 else 128
    heads = width // head_dim
    return Preset(
        layers=layers,
        hidden=width,
        mlp=128 * -(-8 * width // (3 * 128)),
        heads=heads,
        kv_heads=max(n for n in range(1, min(8, heads // 2) + 1) if heads % n == 0),
        head_dim=head_dim,
        vocab_size=vocab_size,
        context_length=context_length,
        tied=width <= 2048,
        rope_theta=500_000.0 if context_length > 2048 else 10_000.0,
    )


PRESETS = {
    "demo": replace(shaped(4, 128, 4_096, 256), demo_tokens=140_000, eval_documents=4),
    "tiny": shaped(4, 192, 8_192, 512),
    "30m": shaped(8, 384, 32_768, 1_024),
    "125m": shaped(12, 768, 49_152, 2_048),
    "350m": shaped(24, 1_024, 65_536, 2_048),
    "1b": shaped(20, 2_048, 65_536, 4_096),
    "7b": shaped(32, 4_096, 131_072, 8_192),
    "27b": shaped(64, 6_144, 131_072, 8_192),
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
        architectures=["LlamaForCausalLM"],  # `transformers serve` loads by it
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
