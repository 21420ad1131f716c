"""A small trained model with its evidence, and keys that stand in for hotkeys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from athena.errors import Unauthorized
from athena.evaluation import DomainScore, Evaluation
from athena.journal import Signer
from athena.train.checkpoint import save_model
from athena.train.lineage import summarize_lineage
from athena.train.presets import Preset, llama_config
from athena.train.tokenizer import load_tokenizer, train_tokenizer
from athena.train.tokens import write_documents, write_tokens
from athena.train.trained import Trained

TRAINER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
MINER = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"


def signature(hotkey: str, message: bytes) -> str:
    return hmac.digest(hotkey.encode(), message, "sha512").hex()


@pytest.fixture(scope="session")
def trainer() -> str:
    return TRAINER


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer(TRAINER, lambda message: signature(TRAINER, message))


@pytest.fixture(scope="session")
def verify() -> Callable[[str, bytes, str], None]:
    def check(hotkey: str, message: bytes, claimed: str) -> None:
        if not hmac.compare_digest(signature(hotkey, message), claimed):
            raise Unauthorized("bad signature")

    return check


def _evaluation(**bits_per_byte: float) -> Evaluation:
    scores = {
        domain: DomainScore(
            documents=4,
            bytes=200,
            tokens=80,
            bits_per_byte=bits,
            document_bits=tuple(round(50 * bits + shift, 4) for shift in (-2.0, -1.0, 1.0, 2.0)),
            document_bytes=(50.0,) * 4,
        )
        for domain, bits in bits_per_byte.items()
    }
    return Evaluation(eval_pack="e" * 64, seed="00", per_domain=4, window=32, domains=scores)


@pytest.fixture(scope="session")
def evaluation() -> Callable[..., Evaluation]:
    """An evaluation with these bits per byte by domain, comparable with every other one."""
    return _evaluation


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("trained")
    texts = [
        f"The {word} lies by the river, {i} miles from here." for i, word in enumerate(("mill", "barn", "inn") * 5)
    ]
    preset = Preset(1, 16, 32, 2, 1, 8, 300, 32)
    train_tokenizer(texts, preset.vocab_size, preset.context_length, folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    documents = [
        {
            "text": text,
            "hotkey": MINER,
            "task_id": "a" * 32,
            "dataset": f"file:miner/data@{'b' * 40}#{'c' * 64}",
            "warc_path": f"crawl/{i % 2}.warc.gz",
            "warc_offset": i * 10,
            "warc_length": 10,
            "record_id": f"<urn:uuid:{i}>",
            "url": f"https://example.org/{hashlib.md5(text.encode()).hexdigest()}",
        }
        for i, text in enumerate(texts)
    ]
    write_documents(documents, folder / "documents.parquet")
    write_tokens(folder / "documents.parquet", folder / "tokenizer", folder / "tokens")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(llama_config(preset, vocab_size=len(tokenizer), end=0))
    model.generation_config.pad_token_id = 0
    checkpoint = folder / "step-00000003"
    checkpoint.mkdir()
    save_model(model, checkpoint)
    (checkpoint / "optimizer.safetensors").write_bytes(b"not for release")
    lineage_file: Path = folder / "tokens" / "documents.parquet"
    return Trained(
        model=checkpoint,
        tokenizer=folder / "tokenizer",
        documents=lineage_file,
        lineage=summarize_lineage(lineage_file),
        parameters=preset.parameters(len(tokenizer)),
        training_tokens=12_345,
        before=_evaluation(news=3.5, wiki=3.0),
        after=_evaluation(news=2.5, wiki=2.0),
    )
