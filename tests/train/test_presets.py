import pytest
import torch
from transformers import AutoModelForCausalLM

from athena.errors import BadInput
from athena.train.presets import PRESETS, llama_config, preset_of

MILLIONS = {
    "demo": 1.31, "tiny": 3.20, "30m": 25.57, "125m": 115.62, "350m": 350.27,
    "1b": 1062.29, "7b": 6744.71, "27b": 26575.90,
}  # fmt: skip
GFLOPS_PER_TOKEN = {"tiny": 0.0215, "125m": 0.807, "1b": 7.38, "7b": 43.7, "27b": 174}


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_the_real_model(name):
    preset = PRESETS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(llama_config(preset, vocab_size=preset.vocab_size, end=0))
    assert preset.parameters() == sum(p.numel() for p in model.parameters())
    assert preset.parameters() / 1e6 == pytest.approx(MILLIONS[name], abs=0.006)
    if name in GFLOPS_PER_TOKEN:
        assert preset.flops_per_token() / 1e9 == pytest.approx(GFLOPS_PER_TOKEN[name], rel=0.03)


def test_the_end_token_is_learned():
    preset = PRESETS["demo"]
    model = AutoModelForCausalLM.from_config(llama_config(preset, vocab_size=300, end=0))
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad[0].abs().sum() > 0


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(BadInput, match="125m"):
        preset_of("126m")
