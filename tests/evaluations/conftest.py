"""A random Llama over bytes with its pack, and evaluations made of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from athena.evalpack import ClozeItem, EvalDocument, EvalPack, write_pack
from athena.evaluation import DomainScore, Evaluation, SuiteResult

START = "<start>"
DOCUMENT_BYTES = 100


def evaluation_of(bits: Mapping[str, Sequence[float]], **suites: SuiteResult) -> Evaluation:
    """Of bits by document, each of a hundred bytes."""
    domains = {
        domain: DomainScore(
            documents=len(values),
            bytes=DOCUMENT_BYTES * len(values),
            tokens=40 * len(values),
            bits_per_byte=sum(values) / len(values) / DOCUMENT_BYTES,
            document_bits=tuple(values),
            document_bytes=(DOCUMENT_BYTES,) * len(values),
        )
        for domain, values in bits.items()
    }
    return Evaluation(eval_pack="e" * 64, seed="00", per_domain=64, window=32, domains=domains, suites=suites)


@pytest.fixture(scope="session")
def make_evaluation() -> Callable[..., Evaluation]:
    return evaluation_of


@pytest.fixture(scope="session")
def pack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "pack"
    documents = [
        EvalDocument(id=f"{domain}-{i}", domain=domain, text=" ".join(f"{word}{i + n}" for n in range(70)))
        for domain, word in {"prose": "river", "code": "x"}.items()
        for i in range(2)
    ]
    items = [
        ClozeItem(id="1", domain="prose", context="The sky is", choices=(" blue today.", " é."), answer=0),
        ClozeItem(id="2", domain="code", context="12", choices=(" 34", " 5", " 667"), answer=2),
    ]
    write_pack(folder, "test", documents, items)
    return folder


def tiny_llama(seed: int) -> tuple[Any, Any]:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={START: 0, **{c: i for i, c in enumerate(alphabet, 1)}}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=START)
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=257, max_position_embeddings=128, initializer_range=0.3, eos_token_id=0, bos_token_id=0, **shape
    )
    return LlamaForCausalLM(config).eval(), tokenizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A function: the folder of a random model of that seed."""

    def saved(seed: int) -> Path:
        folder = tmp_path_factory.mktemp("model")
        for part in tiny_llama(seed):
            part.save_pretrained(folder)
        return folder

    return saved


@pytest.fixture(scope="session")
def subject(pack_folder: Path) -> Any:
    from athena.evalpack import load_pack
    from athena.evaluations.subject import Subject

    pack: EvalPack = load_pack(pack_folder)
    return Subject(*tiny_llama(0), pack, per_domain=2, window=128)
