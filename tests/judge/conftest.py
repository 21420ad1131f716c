"""Score sheets and arms without any proxy run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from athena.evalpack import ClozeItem, EvalDocument, EvalPack, PackInfo
from athena.judge.evidence import Case, Evidence, Rows
from athena.judge.proxy import arms
from athena.judge.proxy.measured import Measured
from athena.judge.rules import Rules, rules_of
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import Arm, Commitment, DatasetRef, Effect, ScoreSheet, Shard, SignedSheet, Task
from athena.refine.manifest import ROW_SCHEMA

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.fixture
def make_sheet() -> Callable[..., ScoreSheet]:
    def make(**changes: object) -> ScoreSheet:
        fields = {
            "task_id": "0" * 32, "hotkey": HOTKEY, "validator": HOTKEY, "rule_version": "1", "eval_pack": "1" * 64,
            "dataset": DatasetRef(location="file:a/b", revision="2" * 40, root="3" * 64), "issued_block": 1,
            "commit_block": 10, "seed_block": 20, "outcome": "pass", "gates": (), "units": 1.0,
            "effect": Effect(mean=0.0, low=-0.01, high=0.01, by_domain={"web": 0.0}),
        }  # fmt: skip
        return ScoreSheet(**{**fields, **changes})

    return make


@pytest.fixture
def sign() -> Callable[[ScoreSheet], SignedSheet]:
    return lambda sheet: SignedSheet(sheet=sheet, signature="0" * 128)


@pytest.fixture
def make_arm() -> Callable[..., Arm]:
    def make(name: str, seed: int = 0, **bits: float) -> Arm:
        return Arm(name=name, seed=f"{seed:064x}", tokens=1, bits_per_byte=bits)

    return make


@pytest.fixture
def make_measured() -> Callable[..., Measured]:
    """An arm whose documents, of these sizes in each domain, take these bits."""

    def make(name: str, seed: int, sizes: Sequence[int], **bits: Sequence[float]) -> Measured:
        return Measured.of(
            name, f"{seed:064x}", 1, {domain: list(map(float, b)) for domain, b in bits.items()},
            {domain: list(map(int, sizes)) for domain in bits},
        )  # fmt: skip

    return make


WARC = "a.warc.gz"


def rows_of(texts: Sequence[str], columns: Mapping[str, Sequence[object]] = {}) -> Rows:
    """Rows of one WARC file with these texts; what a page would decide is made up, unless `columns` has it."""
    made = [
        {
            "text": text, "url": f"http://site{i}.example/", "date": "2026-01-01T00:00:00Z", "language": "und",
            "language_score": 0.0, "token_count": len(text) // 4, "warc_path": WARC, "warc_offset": i,
            "warc_length": 1, "record_id": f"<urn:uuid:{i}>", "payload_digest": "sha1:A", "minhash": None,
            **{name: values[i] for name, values in columns.items()},
        }
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return Rows(pa.Table.from_pylist(made, schema=ROW_SCHEMA))


@pytest.fixture(scope="session")
def make_pack() -> Callable[..., EvalPack]:
    """A pack of documents, in one domain unless they come by domain."""

    def make(documents: Sequence[str] | Mapping[str, Sequence[str]], cloze: Sequence[ClozeItem] = ()) -> EvalPack:
        by_domain = documents if isinstance(documents, Mapping) else {"web": documents}
        made = tuple(
            EvalDocument(id=f"{domain}-{i}", domain=domain, text=text)
            for domain, texts in by_domain.items()
            for i, text in enumerate(texts)
        )
        info = PackInfo(name="p", domains=tuple(by_domain), documents=max(1, len(made)), sha256="0" * 64)
        return EvalPack(info, made, tuple(cloze))

    return make


@pytest.fixture(scope="session")
def make_evidence() -> Callable[..., Evidence]:
    """What a gate sees of a set with these texts, all of one WARC file, of which canonical work has `canonical`."""

    def make(
        texts: Sequence[str],
        *,
        canonical: Sequence[str] = (),
        pack: EvalPack | None = None,
        left_out: LeftOut = NOTHING_LEFT_OUT,
        rules: Rules | None = None,
        **columns: Sequence[object],
    ) -> Evidence:
        task = Task(shard=Shard(crawl="LOCAL-files", warc_paths=(WARC,)), rule_version="1", opened_block=1)
        reference = DatasetRef(location="file:a/b", revision="2" * 40, root="3" * 64)
        case = Case(
            commitment=Commitment(dataset=reference, task_id=task.id, hotkey=HOTKEY), task=task, issued_block=1,
            deadline_block=100, commit_block=10, seed_block=20, block_hash="0x" + "ab" * 32,
            reference_hash="0x" + "cd" * 32,
        )  # fmt: skip
        ours = rows_of(canonical)
        nothing = SimpleNamespace()  # what the gates at hand do not look at
        return Evidence(
            case=case, rules=rules or rules_of("1"), manifest=nothing, rows=rows_of(texts, columns), crawl=nothing,
            pack=pack or EvalPack(PackInfo(name="none", domains=(), documents=1, sha256="0" * 64), ()),
            canonical_recipe=nothing, left_out=left_out, refined=lambda _: ours, rival_rows=lambda _: ours,
            public_work=lambda *_: [],
        )  # fmt: skip

    return make


PROXY_WORKER = """
import json, os, sys, time
from pathlib import Path

bits = json.loads(os.environ["BITS_PER_BYTE"])
for line in sys.stdin:
    jobs = json.loads(line)
    with open(os.environ["ORDERS"], "a") as log:
        log.write(json.dumps([sys.argv[1], jobs]) + chr(10))
    locks = [open(j["model"] + ".lock", "x") for j in jobs]  # fails if the arm is in training already
    time.sleep(0.05)
    for job, lock in zip(jobs, locks):
        os.unlink(lock.name)
        if job["name"] == "dies":
            sys.exit(1)
        if job["name"] == "hangs":
            time.sleep(60)
        value = bits.get(job["name"], 1.0)
        found = {"arm": {"name": job["name"], "seed": job["seed"], "tokens": 1, "bits_per_byte": {"d": value}},
                 "document_bits": {"d": [8 * value]}, "document_bytes": {"d": [8]}}
        if job["name"] != "silent":
            Path(job["result"]).write_text(json.dumps(found))
    print("done", flush=True)
"""
Orders = Callable[[], list[tuple[str, list[dict[str, Any]]]]]


@pytest.fixture
def proxy_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, float]], Orders]:
    """Puts a small process in place of the training one, which measures what it is told for each arm's name.

    Gives the orders that workers got so far: of each the device and its jobs.
    """

    def install(bits_per_byte: Mapping[str, float]) -> Orders:
        script, log = tmp_path / "proxy_worker.py", tmp_path / "orders"
        script.write_text(PROXY_WORKER)
        monkeypatch.setattr(arms, "_MODULE", [sys.executable, str(script)])
        monkeypatch.setenv("ORDERS", str(log))
        monkeypatch.setenv("BITS_PER_BYTE", json.dumps(bits_per_byte))
        return lambda: [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []

    return install
