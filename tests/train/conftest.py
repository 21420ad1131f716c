"""A corpus with structure that a small model learns in seconds, and runs over it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from athena.train.loop import Plan
from athena.train.presets import PRESETS, Preset
from athena.train.tokenizer import load_tokenizer, train_tokenizer
from athena.train.tokens import write_tokens

NAMES = ("river", "lantern", "granite", "meadow", "copper", "harbour", "willow", "ember", "saddle", "orchard")
VERBS = ("carries", "hides", "follows", "remembers", "repairs", "crosses", "paints", "guards")
TINY = Preset(2, 32, 64, 2, 1, 16, 400, 32, demo_tokens=4_000, eval_documents=2)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def corpus(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(
            f"The {draw.choice(NAMES)} {draw.choice(VERBS)} the {draw.choice(NAMES)} at {draw.randrange(24)} o'clock."
            for _ in range(draw.randint(2, 9))
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def make_corpus():
    return corpus


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> Preset:
    """A preset named "test" of some ten thousand parameters."""
    monkeypatch.setitem(PRESETS, "test", TINY)
    return TINY


def as_documents(texts: list[str]) -> list[dict[str, object]]:
    return [
        {
            "text": text,
            "hotkey": f"miner-{i % 2}",
            "task_id": "0" * 32,
            "dataset": "file:a/b@0#0",
            "warc_path": f"crawl/{i % 3}.warc.gz",
            "warc_offset": 100 * i,
            "warc_length": 90,
            "record_id": f"record-{i}",
            "url": f"https://example.org/{i}",
        }
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="session")
def documents():
    return as_documents


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(corpus(120), TINY.vocab_size, TINY.context_length, folder)
    return folder


@pytest.fixture(scope="session")
def tokens_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("tokens") / "tokens"
    write_tokens(as_documents(corpus(120)), load_tokenizer(tokenizer_folder), folder)
    return folder


@pytest.fixture
def small_plan() -> Plan:
    return Plan(
        steps=24,
        batch_windows=8,
        micro_windows=4,
        lr=0.01,
        warmup_steps=3,
        decay_steps=8,
        checkpoint_every=3,
    )
