"""A corpus with structure that a small model learns in seconds, and runs over it."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from athena.durable import sha256_of
from athena.protocol import FileEntry, Manifest, RecipeRef, merkle_root
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, ROW_SCHEMA, leaves, parquet_writer
from athena.train.plan import Plan
from athena.train.presets import PRESETS, Preset
from athena.train.tokenizer import train_tokenizer
from athena.train.tokens import write_documents, write_tokens

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


def as_dataset(folder: Path, hotkey: str, texts: list[str], **fields: object) -> Path:
    """A dataset as a miner makes it, of the demo's crawl unless `fields` of its rows say otherwise."""
    row = {
        "date": "2026-10-01T00:00:00Z",
        "language": "en",
        "language_score": 0.9,
        "warc_path": "crawl-data/CC-MAIN-2026-43/a.warc.gz",
        "warc_length": 90,
        "payload_digest": "sha1:X",
        "minhash": None,
    }
    rows = [
        row
        | {"text": text, "token_count": len(text.split()), "warc_offset": 100 * i, "record_id": f"<urn:uuid:{i}>"}
        | {"url": f"https://example.org/{i}"}
        | fields
        for i, text in enumerate(texts)
    ]
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=ROW_SCHEMA)
    with parquet_writer(folder / DATA_FILE) as writer:
        writer.write_table(table)
    data = folder / DATA_FILE
    root = merkle_root(leaves(table, hotkey))
    manifest = Manifest(
        task_id=root[:32],
        hotkey=hotkey,
        rule_version="1",
        recipe=RecipeRef(name="fineweb-1", version="1", hash="0" * 64),
        files=(FileEntry(path=data.name, bytes=data.stat().st_size, sha256=sha256_of(data), rows=len(rows)),),
        records=len(rows),
        rows=len(rows),
        rejected={},
        tokens=sum(row["token_count"] for row in rows),
        root=root,
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.canonical())
    return folder


@pytest.fixture(scope="session")
def make_dataset():
    return as_dataset


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(corpus(120), TINY.vocab_size, TINY.context_length, folder)
    return folder


@pytest.fixture(scope="session")
def tokens_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("tokens") / "tokens"
    write_documents(as_documents(corpus(120)), folder.with_name("documents.parquet"))
    write_tokens(folder.with_name("documents.parquet"), tokenizer_folder, folder)
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
