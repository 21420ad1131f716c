import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from athena.errors import BadInput, NotFound
from athena.evalpack import EvalDocument, write_pack
from athena.evaluate import evaluate, evaluate_folder

START = "<start>"
TEXTS = {"prose": ["Where the river bends, é and 漢.", "x"], "code": ["def f(a):\n    return a  " * 7]}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    documents = [
        EvalDocument(id=f"{domain}-{i}", domain=domain, text=text)
        for domain, texts in TEXTS.items()
        for i, text in enumerate(texts)
    ]
    return write_pack(tmp_path_factory.mktemp("pack"), "test", documents)


def byte_tokenizer(**special):
    """One token a byte, and START."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {START: 0, **{letter: i for i, letter in enumerate(alphabet, 1)}}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **(special or {"eos_token": START}))


class Bigrams(nn.Module):
    """Predicts from the last token alone: logits are its row of a table."""

    device = torch.device("cpu")

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.table[input_ids])


@pytest.mark.parametrize("window", [2, 5, 64, 512])
def test_a_uniform_model_reads_log2_of_its_vocabulary(pack, window):
    evaluation = evaluate(Bigrams(torch.zeros(257, 257)), byte_tokenizer(), pack, per_domain=9, window=window)
    for domain, texts in TEXTS.items():
        score = evaluation.domains[domain]
        assert score.bytes == score.tokens == sum(len(text.encode()) for text in texts)
        assert score.documents == len(texts)
        assert score.bits_per_byte == pytest.approx(math.log2(257), rel=1e-6)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100), window=st.integers(2, 40))
def test_every_token_is_scored_once_from_start_on(pack, seed, window):
    table = torch.randn(257, 257, generator=torch.Generator().manual_seed(seed))
    tokenizer = byte_tokenizer()
    evaluation = evaluate(Bigrams(table), tokenizer, pack, per_domain=9, window=window)
    bits = table.double().log_softmax(-1) / -math.log(2)
    for domain, texts in TEXTS.items():
        total = 0.0
        for text in texts:
            ids = [0, *tokenizer(text, add_special_tokens=False).input_ids]
            total += sum(float(bits[a, b]) for a, b in pairwise(ids))
        expected = total / sum(len(text.encode()) for text in texts)
        assert evaluation.bits_per_byte[domain] == pytest.approx(expected, rel=1e-5)


def small_llama():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=257, max_position_embeddings=64, **shape))


def test_padding_within_a_batch_changes_nothing(pack, tmp_path):
    model, tokenizer = small_llama(), byte_tokenizer()
    together = evaluate(model, tokenizer, pack, per_domain=9, window=32)
    for domain, texts in TEXTS.items():
        documents = [EvalDocument(id=str(i), domain=domain, text=text) for i, text in enumerate(texts)]
        alone = evaluate(model, tokenizer, write_pack(tmp_path / domain, "one", documents), per_domain=9, window=32)
        assert together.bits_per_byte[domain] == pytest.approx(alone.bits_per_byte[domain], rel=1e-5)


def test_a_model_folder_is_measured_as_transformers_loads_it(pack, tmp_path):
    model, tokenizer = small_llama(), byte_tokenizer()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    measured = evaluate_folder(tmp_path, pack, per_domain=2)
    assert measured == evaluate(model, tokenizer, pack, per_domain=2, window=64)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="cannot load"):
        evaluate_folder(tmp_path, pack, per_domain=2)
    with pytest.raises(NotFound):
        evaluate_folder(tmp_path / "nowhere", pack, per_domain=2)


def test_training_mode_is_left_as_it_was(pack):
    model = Bigrams(torch.zeros(257, 257)).train()
    evaluate(model, byte_tokenizer(), pack, per_domain=1, window=8)
    assert model.training


def test_a_tokenizer_without_a_start_is_refused(pack):
    with pytest.raises(BadInput, match="beginning-of-text"):
        evaluate(Bigrams(torch.zeros(257, 257)), byte_tokenizer(pad_token=START), pack, per_domain=1, window=8)


def test_a_tokenizer_that_loses_text_is_refused(pack):
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("e", behavior="removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    with pytest.raises(BadInput, match="loses"):
        evaluate(Bigrams(torch.zeros(257, 257)), tokenizer, pack, per_domain=9, window=8)
