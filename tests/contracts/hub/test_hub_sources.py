"""Datasets on the Hub as sources of records, through the unmodified client."""

import gzip
import hashlib
import io
import json
import random
import re
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from athena.errors import BadInput, NotFound, Unavailable
from athena.refine.sources.opening import open_sources

from .huggingface_server import TOKEN, Blob, Fault


def jsonl(count: int, column: str = "text") -> bytes:
    return b"".join(
        json.dumps({column: f"text {i}", "url": f"https://e.org/{i}"}).encode() + b"\n" for i in range(count)
    )


def parquet(count: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"content": [f"row {i}" for i in range(count)]}), out, row_group_size=100)
    return out.getvalue()


@pytest.fixture
def dataset(server, monkeypatch):
    """`dataset(files)` is the commit of a dataset org/pile; .parquet files are large ones, behind a redirect."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)

    def commit(files: dict[str, bytes]) -> str:
        tree = {}
        for path, content in files.items():
            sha256 = hashlib.sha256(content).hexdigest()
            large = path.endswith(".parquet")
            if large:
                server.large[sha256] = content
            tree[path] = Blob(None if large else content, sha256, len(content))
        return server.repository("org/pile").commit(tree, "data")

    return commit


def read(*inputs):
    rejected = Counter()
    return [record for source in open_sources(inputs) for record in source.records(rejected)], dict(rejected)


def test_a_dataset_is_read_file_by_file_at_its_commit(dataset):
    commit = dataset(
        {
            "README.md": b"# A card",
            "train/0001.jsonl.gz": gzip.compress(jsonl(2)),
            "train/0000.jsonl": jsonl(2, "content"),
            "test/0000.parquet": parquet(250),
        }
    )
    records, rejected = read("hf://datasets/org/pile")
    assert rejected == {} and len(records) == 254
    top = f"hf://datasets/org/pile@{commit}"
    assert list(dict.fromkeys(r.warc_path for r in records)) == [
        f"{top}/test/0000.parquet",
        f"{top}/train/0000.jsonl",
        f"{top}/train/0001.jsonl.gz",
    ]
    assert [(r.offset, r.length, r.body) for r in records[248:250]] == [(248, 1, b"row 248"), (249, 1, b"row 249")]
    assert records[-1].url == "https://e.org/1" and records[0].url == records[0].warc_path


def test_a_folder_a_file_and_a_revision_can_be_named(dataset):
    old = dataset({"en/a.jsonl": jsonl(1), "de/a.jsonl": jsonl(3)})
    dataset({"en/a.jsonl": jsonl(2), "de/a.jsonl": jsonl(3)})
    assert len(read("hf://datasets/org/pile/en")[0]) == 2
    assert len(read(f"hf://datasets/org/pile@{old}/en")[0]) == 1
    assert len(read("hf://datasets/org/pile@main/de/a.jsonl")[0]) == 3
    assert read("hf://datasets/org/pile/en#column=title")[1] == {"no-text": 2}


def test_a_configuration_of_the_card_can_be_named(dataset):
    card = b"""---
license: odc-by
configs:
- config_name: default
  data_files: "data/*.jsonl"
- config_name: sample-10BT
  data_files:
  - split: train
    path: sample/10BT/*
- config_name: both
  data_files:
  - split: train
    path: [data/a.jsonl, sample/10BT/x.jsonl]
- config_name: folder
  data_dir: sample
---
# The dataset
"""
    files = {"data/a.jsonl": jsonl(1), "data/b.jsonl": jsonl(2), "sample/10BT/x.jsonl": jsonl(4)}
    dataset({"README.md": card, **files})
    found = {
        name: len(read(f"hf://datasets/org/pile/{name}")[0]) for name in ("sample-10BT", "default", "both", "folder")
    }
    assert found == {"sample-10BT": 4, "default": 3, "both": 5, "folder": 4}
    with pytest.raises(NotFound):
        read("hf://datasets/org/pile/none")
    dataset({"README.md": b"---\nconfigs: [[[\n---\n", **files})
    with pytest.raises(BadInput, match="malformed card"):
        read("hf://datasets/org/pile/default")


def test_the_token_of_the_environment_opens_a_private_dataset(dataset, server, monkeypatch):
    dataset({"a.jsonl": jsonl(1)})
    server.repository("org/pile").private = True
    assert len(read("hf://datasets/org/pile")[0]) == 1
    assert server.asked("resolve")[-1]["authorization"] == f"Bearer {TOKEN}"
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises((NotFound, Unavailable)):
        read("hf://datasets/org/pile")


def test_what_is_not_there_is_said(dataset):
    commit = dataset({"README.md": b"# A card", "model.bin": b"x"})
    with pytest.raises(BadInput, match="no file that text is read from"):
        read("hf://datasets/org/pile")
    for missing in (
        "hf://datasets/org/none",
        f"hf://datasets/org/pile@{commit}/fr",
        f"hf://datasets/org/pile@{'0' * 40}",
    ):
        with pytest.raises(NotFound):
            read(missing)
    for malformed in ("hf://datasets/pile", "hf://org/pile", "hf://datasets/org/pile@a b", "hf://datasets/../x"):
        with pytest.raises(BadInput):
            read(malformed)


def test_a_large_file_is_fetched_once_and_in_blocks(dataset, server):
    draw = random.Random(1)
    rows = {
        "text": [draw.randbytes(3000).hex() for _ in range(1500)],
        "url": [f"https://e.org/{i}" for i in range(1500)],
    }
    out = io.BytesIO()
    pq.write_table(pa.table(rows), out)
    dataset({"a.parquet": out.getvalue()})
    records, rejected = read("hf://datasets/org/pile")
    assert rejected == {} and [r.body.decode() for r in records] == rows["text"] and records[-1].url == rows["url"][-1]
    spans = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked["range"]) for asked in server.asked("GET /cdn/")]
    sizes = [int(span[2]) - int(span[1]) + 1 for span in spans]
    assert max(sizes) <= 4 << 20 and len(sizes) == -(-len(out.getvalue()) // (4 << 20)) == 3


def test_a_failing_hub_is_unavailable_and_never_a_shorter_dataset(dataset, server):
    dataset({"a.jsonl": jsonl(100)})
    (source,) = open_sources(["hf://datasets/org/pile"])
    server.faults.append(Fault(r"GET /datasets/org/pile/resolve", times=1000, status=404))
    with pytest.raises((NotFound, Unavailable)):
        list(source.records(Counter()))


def test_a_broken_connection_is_taken_up_again(dataset, server):
    content = jsonl(2000)
    dataset({"a.jsonl": content})
    (source,) = open_sources(["hf://datasets/org/pile"])
    server.faults.append(Fault(r"GET /datasets/org/pile/resolve", times=1, cut_at=len(content) // 2))
    assert len(list(source.records(Counter()))) == 2000
