"""Runs over real datasets on a folder hub, with a model of some ten thousand parameters."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from athena.durable import sha256_of
from athena.errors import Conflict, NotFound, Unavailable
from athena.evalpack import EvalDocument, write_pack
from athena.events import EventLog, read_events
from athena.hub import open_hub
from athena.protocol import DatasetRef, FileEntry, Manifest, RecipeRef, merkle_root
from athena.refine.manifest import ROW_SCHEMA, leaves, parquet_writer
from athena.refine.text.minhash import signature
from athena.train.mixture import AcceptedDataset
from athena.train.runs import RunSettings, TrainerRun

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
SETTINGS = RunSettings(preset="test")
STAGES = ["mixture", "tokenizer", "tokens", "initial", "before", "train", "after"]


@pytest.fixture
def hub(tmp_path):
    return open_hub(f"file://{tmp_path}/hub")


@pytest.fixture
def pack(tmp_path, make_corpus):
    documents = [
        EvalDocument(id=f"{domain}-{i}", domain=domain, text=text)
        for domain, seed in (("news", 100), ("wiki", 101))
        for i, text in enumerate(make_corpus(2, seed=seed))
    ]
    return write_pack(tmp_path / "pack", "test", documents)


@pytest.fixture
def publish(hub, tmp_path):
    """Publishes texts as a miner's dataset; `sign_text` makes the MinHash signature that a row claims."""

    def make(hotkey, texts, *, incentive=0.5, sign_text=signature, committed_by=None):
        folder = tmp_path / f"made-{hotkey[:6]}-{len(texts)}"
        folder.mkdir()
        rows = [
            {
                "text": text,
                "url": f"https://example.org/{i}",
                "date": "2026-10-01T00:00:00Z",
                "language": "en",
                "language_score": 0.9,
                "token_count": len(text.split()),
                "warc_path": "crawl/a.warc.gz",
                "warc_offset": 100 * i,
                "warc_length": 90,
                "record_id": f"<urn:uuid:{i}>",
                "payload_digest": "sha1:X",
                "minhash": None if sign_text(text) is None else sign_text(text).tolist(),
            }
            for i, text in enumerate(texts)
        ]
        table = pa.Table.from_pylist(rows, schema=ROW_SCHEMA)
        with parquet_writer(folder / "data.parquet") as writer:
            writer.write_table(table)
        data = folder / "data.parquet"
        task_id = hashlib.sha256(hotkey.encode()).hexdigest()[:32]
        root = merkle_root(leaves(table, hotkey))
        manifest = Manifest(
            task_id=task_id,
            hotkey=hotkey,
            rule_version="demo-1",
            recipe=RecipeRef(name="fineweb-1", version="1", hash="0" * 64),
            files=(FileEntry(path=data.name, bytes=data.stat().st_size, sha256=sha256_of(data), rows=len(rows)),),
            records=len(rows),
            rows=len(rows),
            rejected={},
            tokens=sum(row["token_count"] for row in rows),
            root=root,
        )
        (folder / "manifest.json").write_bytes(manifest.canonical())
        revision = hub.publish(folder, f"miners/{folder.name}", message="dataset")
        ref = DatasetRef(location=f"file:miners/{folder.name}", revision=revision, root=root)
        return AcceptedDataset(hotkey=committed_by or hotkey, task_id=task_id, dataset=ref, incentive=incentive)

    return make


@pytest.fixture
def begin(hub, pack, tmp_path, tiny_preset):
    def make(folder="run", events=None, settings=SETTINGS, hub=hub):
        return TrainerRun(settings, tmp_path / folder, hub, pack, events or EventLog(None))

    return make


def test_from_two_miners_datasets_to_a_better_model(publish, begin, make_corpus, tmp_path):
    shared = make_corpus(60)
    accepted = [publish(ALICE, shared, incentive=0.6), publish(BOB, shared + make_corpus(40, seed=1), incentive=0.4)]
    run = begin(events=EventLog(tmp_path / "events.jsonl"))
    trained = run.run(accepted)
    assert all(trained.after.bits_per_byte[d] < trained.before.bits_per_byte[d] - 0.5 for d in ("news", "wiki"))
    assert [entry.hotkey for entry in trained.lineage] == sorted([ALICE, BOB])
    mixture = run.mixture()
    assert mixture.documents == sum(entry.documents for entry in trained.lineage)
    assert mixture.dropped["duplicate"] == 60
    assert max(mixture.tokens_by_hotkey.values()) <= 0.52 * sum(mixture.tokens_by_hotkey.values())
    assert trained.parameters == AutoModelForCausalLM.from_pretrained(trained.model).num_parameters()
    assert len(AutoTokenizer.from_pretrained(trained.tokenizer)) <= 400
    stages = [(e["stage"], e["state"]) for e in read_events(tmp_path / "events.jsonl") if e["event"] == "train.stage"]
    assert stages == [(stage, state) for stage in STAGES for state in ("started", "done")]
    rows = pq.read_table(trained.documents).to_pylist()
    assert {row["dataset"] for row in rows} == {str(a.dataset) for a in accepted}


class Interrupted(BaseException):
    """Stands for a kill: nothing may catch it."""


class InterruptingLog(EventLog):
    def __init__(self, when):
        super().__init__(None)
        self.when = when

    def emit(self, event, **fields):
        if self.when(event, fields):
            raise Interrupted


def test_interrupted_at_every_stage_it_ends_in_the_same_model(publish, begin, make_corpus):
    accepted = [publish(ALICE, make_corpus(50))]
    straight = begin("straight").run(accepted)
    moments = [lambda event, f, s=stage: event == "train.stage" and f["stage"] == s for stage in STAGES]
    moments.insert(6, lambda event, f: event == "train.step" and f["step"] == 17)
    for moment in moments:
        with pytest.raises(Interrupted):
            begin("interrupted", InterruptingLog(moment)).run(accepted)
    resumed = begin("interrupted").run([])
    assert sha256_of(resumed.model / "model.safetensors") == sha256_of(straight.model / "model.safetensors")
    assert resumed.after == straight.after
    assert resumed.before == straight.before


def test_a_finished_run_does_nothing_again(publish, begin, make_corpus, tmp_path):
    run = begin()
    first = run.run([publish(ALICE, make_corpus(50))])
    assert run.begun
    assert begin(events=EventLog(tmp_path / "again.jsonl")).run([]) == first
    assert list(read_events(tmp_path / "again.jsonl")) == []
    with pytest.raises(Conflict, match="other settings"):
        begin(settings=SETTINGS.model_copy(update={"seed": 1})).run([])


def test_what_a_miner_did_not_commit_to_is_left_out(publish, begin, make_corpus):
    good = publish(ALICE, make_corpus(50))
    stolen = publish(BOB, make_corpus(30, seed=2), committed_by=ALICE)
    pushing_out = publish(BOB, make_corpus(31, seed=3), sign_text=lambda _: signature(make_corpus(50)[0]))
    gone = good.model_copy(update={"dataset": good.dataset.model_copy(update={"revision": "f" * 40})})
    run = begin()
    run.run([good, stolen, pushing_out])
    reasons = run.mixture().refused
    assert "committed" in reasons[str(stolen.dataset)]
    assert "MinHash" in reasons[str(pushing_out.dataset)]
    assert set(run.mixture().tokens_by_hotkey) == {ALICE}
    with pytest.raises(NotFound, match="no document"):
        begin("gone").run([gone])


def test_a_claimed_root_never_takes_a_verified_datasets_place(publish, begin, make_corpus):
    good = publish(ALICE, make_corpus(50))
    other = publish(BOB, make_corpus(30, seed=2), incentive=0.1)
    claiming = other.model_copy(update={"dataset": other.dataset.model_copy(update={"root": good.dataset.root})})
    run = begin()
    run.run([good, claiming])
    assert list(run.mixture().refused) == [str(claiming.dataset)]
    trained_on = {row["text"] for row in pq.read_table(run.folder / "mixture" / "documents.parquet").to_pylist()}
    assert trained_on and trained_on <= set(make_corpus(50))


def test_evaluation_texts_are_never_trained_on(publish, begin, make_corpus, pack):
    texts = make_corpus(50) + [document.text for document in pack.documents]
    run = begin()
    run.run([publish(ALICE, texts)])
    assert run.mixture().dropped["contaminated"] >= len(pack.documents)
    trained_on = {row["text"] for row in pq.read_table(run.folder / "mixture" / "documents.parquet").to_pylist()}
    assert trained_on.isdisjoint(document.text for document in pack.documents)


def test_without_paid_data_it_says_so(publish, begin, make_corpus):
    with pytest.raises(NotFound, match="no dataset"):
        begin().run([])
    with pytest.raises(NotFound, match="no dataset"):
        begin().run([publish(ALICE, make_corpus(5), incentive=0.0)])
    assert not begin().begun


def test_a_hub_out_of_reach_is_no_verdict(publish, begin, hub, make_corpus):
    accepted = [publish(ALICE, make_corpus(50))]

    class Down:
        scheme = "file"

        def fetch(self, *args, **kwargs):
            raise Unavailable("the hub does not answer")

    with pytest.raises(Unavailable):
        begin(hub=Down()).run(accepted)
    assert begin().run([]).lineage[0].hotkey == ALICE
