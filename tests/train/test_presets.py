import pytest
import torch
from transformers import AutoModelForCausalLM

from athena.errors import BadInput
from athena.train.presets import PRESETS, llama_config, preset_of

BILLIONS = {"125m": 0.113, "350m": 0.350, "1b": 1.078, "3b": 3.251, "8b": 8.053, "27b": 26.886}


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_the_real_model(name):
    preset = PRESETS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(llama_config(preset, vocab_size=preset.vocab_size, end=0))
    assert preset.parameters() == sum(p.numel() for p in model.parameters())
    if name in BILLIONS:
        assert preset.parameters() / 1e9 == pytest.approx(BILLIONS[name], abs=5e-4)


def test_the_end_token_is_learned():
    preset = PRESETS["demo"]
    model = AutoModelForCausalLM.from_config(llama_config(preset, vocab_size=300, end=0))
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad[0].abs().sum() > 0


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(BadInput, match="125m"):
        preset_of("126m")
