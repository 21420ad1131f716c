from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from athena.evaluations.canaries import CanaryPlan, control, planted
from athena.evaluations.memorisation import exposures

PLAN = CanaryPlan(seed="cd" * 32, count=4)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_model_that_learned_the_canaries_by_heart_exposes_them(subject):
    """Real training: a few hundred steps on four sentences."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, max_position_embeddings=128, **shape))
    texts = [[0, *subject.tokenizer(text).input_ids] for text in planted(PLAN)]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    labels = torch.tensor([text + [-100] * (longest - len(text)) for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    learned = replace(subject, model=model)
    assert min(exposures(learned, PLAN)) == 8.0
    untouched = exposures(learned, control(PLAN))
    assert sum(untouched) / len(untouched) < 4.0
