"""A trunk and its branches over real datasets on a folder hub, with a model of some ten thousand parameters."""

import hashlib
import hmac
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from athena.durable import sha256_of
from athena.errors import NotFound, Unavailable
from athena.evalpack import EvalDocument, write_pack
from athena.evaluations.canaries import planted
from athena.evaluations.suites import ruled
from athena.events import EventLog, read_events
from athena.hub import open_hub
from athena.journal import Signer
from athena.optout import NOTHING_LEFT_OUT, left_out
from athena.protocol import DatasetRef, FileEntry, Manifest, RecipeRef, merkle_root
from athena.refine.manifest import ROW_SCHEMA, leaves, parquet_writer
from athena.refine.text.minhash import signature
from athena.release import cut_release
from athena.release_lineage import Sought
from athena.release_search import places_below
from athena.train.calibrate import RunCalibration
from athena.train.gather import load_mixture
from athena.train.line import Line
from athena.train.mixture import AcceptedDataset
from athena.train.plan import Plan
from athena.train.runs import BranchRun, TrunkRun, branch_plan, plan_trunk
from athena.train.runs_metrics import last_step, read_points
from athena.train.runs_record import RunSpec
from athena.train.runs_table import RUNS_FILE, RunTable
from athena.train.scheduler import Scheduler, command_of
from athena.train.trained import read_trained
from athena.train.trunk import (
    BranchInputs,
    RunSettings,
    TrunkInputs,
    add_stage,
    begin_trunk,
    cut_branch,
    read_noun,
    stages_of,
)
from athena.wire import OptOut

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
SETTINGS = RunSettings(preset="test")
STAGES = ["mixture", "tokenizer", "tokens", "initial", "before", "trunk", "branch", "after", "lineage", "trained"]


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

    def make(hotkey, texts, *, incentive=0.5, sign_text=signature, committed_by=None, site="https://example.org"):
        folder = tmp_path / f"made-{hotkey[:6]}-{len(texts)}"
        folder.mkdir()
        rows = [
            {
                "text": text,
                "url": f"{site}/{i}",
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


class Model:
    """A model's trunk in a folder, and branches that are cut and trained as the table of runs would have it."""

    def __init__(self, folder, hub, pack, settings, events):
        self.folder, self.hub, self.pack, self.events = folder / "athena", hub, pack, events
        begin_trunk(self.folder, TrunkInputs(settings=settings, hub="file:///hub", eval_pack="/pack"))
        self.table = RunTable(folder / RUNS_FILE)

    def give(self, accepted, left_out=NOTHING_LEFT_OUT):
        return add_stage(self.folder, accepted, left_out)

    def prepare(self):
        return TrunkRun(self.folder, self.hub, self.pack, self.events).prepare()

    def grow(self):
        return TrunkRun(self.folder, self.hub, self.pack, self.events).run()

    def plan(self):
        return TrunkRun(self.folder, self.hub, self.pack, self.events).plan()

    def anneal(self, **options):
        spec = RunSpec(name="athena", kind="trunk", folder=str(self.folder))
        self.table.add(spec, now=0.0)
        branch = cut_branch(self.table, self.table.run("athena"), now=0.0, **options)
        return BranchRun(self.table.run(branch.name).folder, self.pack, self.events).run()

    def run(self, accepted=()):
        """One stage of data, unless it has one, and one branch."""
        if accepted and not stages_of(self.folder):
            self.give(accepted)
        return self.anneal() if self.grow() else None

    def mixture(self, number=0):
        return load_mixture(stages_of(self.folder)[number] / "mixture")

    def trained_on(self):
        rows = [pq.read_table(s / "mixture" / "documents.parquet").to_pylist() for s in stages_of(self.folder)]
        return {row["text"] for stage in rows for row in stage if row["hotkey"]}


@pytest.fixture
def begin(hub, pack, tmp_path, tiny_preset):
    made = []

    def make(folder="run", events=None, settings=SETTINGS, hub=hub):
        made.append(Model(tmp_path / folder, hub, pack, settings, events or EventLog(None)))
        return made[-1]

    yield make
    for model in made:
        model.table.close()


def test_from_two_miners_datasets_to_a_better_model(publish, begin, make_corpus, tmp_path):
    shared = make_corpus(60)
    datasets = publish(ALICE, shared, incentive=0.6), publish(BOB, shared + make_corpus(40, seed=1), incentive=0.4)
    accepted = [
        dataset.model_copy(update={"forecast": forecast, "rule_version": "demo-1"})
        for dataset, forecast in zip(datasets, (0.01, 0.02), strict=True)
    ]
    run = begin(events=EventLog(tmp_path / "events.jsonl"))
    trained = run.run(accepted)
    assert all(trained.after.bits_per_byte[d] < trained.before.bits_per_byte[d] - 0.5 for d in ("news", "wiki"))
    calibration = RunCalibration.model_validate_json(trained.calibration.read_bytes())
    assert [(miner.hotkey, miner.forecast) for miner in calibration.miners] == [(BOB, 0.02), (ALICE, 0.01)]
    assert (calibration.rule_version, calibration.pairs, calibration.accuracy in (0, 1)) == ("demo-1", 1, True)
    assert [entry.hotkey for entry in trained.lineage] == sorted([ALICE, BOB])
    mixture = run.mixture()
    assert mixture.documents == sum(entry.documents for entry in trained.lineage)
    assert mixture.dropped["duplicate"] == 60
    documents = pq.read_table(stages_of(run.folder)[0] / "mixture" / "documents.parquet").to_pylist()
    assert max(mixture.tokens_by_hotkey.values()) <= 0.52 * sum(mixture.tokens_by_hotkey.values())
    assert trained.parameters == AutoModelForCausalLM.from_pretrained(trained.model).num_parameters()
    assert len(AutoTokenizer.from_pretrained(trained.tokenizer)) <= 400
    stages = [(e["stage"], e["state"]) for e in read_events(tmp_path / "events.jsonl") if e["event"] == "train.stage"]
    told = [*STAGES[:-1], "calibration", STAGES[-1]]
    assert stages == [(stage, state) for stage in told for state in ("started", "done")]
    rows = pq.read_table(trained.documents).to_pylist()
    assert {row["dataset"] for row in rows} == {str(a.dataset) for a in accepted}
    assert [row["text"] for row in documents if not row["hotkey"]] == list(planted(mixture.rules.canaries))


class Interrupted(BaseException):
    """Stands for a kill: nothing may catch it."""


class InterruptingLog(EventLog):
    def __init__(self, when):
        super().__init__(None)
        self.when = when

    def emit(self, event, **fields):
        if self.when(event, fields):
            raise Interrupted


@pytest.fixture
def ruler_only(monkeypatch):
    """No suites beside the ruler, which have tests of their own."""
    monkeypatch.setattr("athena.train.runs.measure", ruled)


@pytest.mark.usefixtures("ruler_only")
def test_interrupted_at_every_stage_it_ends_in_the_same_model(publish, begin, make_corpus, tmp_path):
    accepted = [publish(ALICE, make_corpus(50))]
    straight = begin("straight").run(accepted)
    moments = [lambda event, f, s=stage: event == "train.stage" and f["stage"] == s for stage in STAGES]
    moments.insert(6, lambda event, f: event == "train.step" and f["step"] == 17)
    branched_at = BranchInputs.model_validate_json((straight.documents.parent / "branch.json").read_bytes()).step
    moments.insert(8, lambda event, f: event == "train.step" and f["step"] == branched_at + 3)
    for moment in moments:
        with pytest.raises(Interrupted):
            begin("interrupted", InterruptingLog(moment)).run(accepted)
    resumed = begin("interrupted").run()
    assert sha256_of(resumed.model / "model.safetensors") == sha256_of(straight.model / "model.safetensors")
    assert resumed.after == straight.after
    assert resumed.before == straight.before
    assert begin("straight", EventLog(tmp_path / "again.jsonl")).run() == straight, "a finished run does nothing again"
    assert list(read_events(tmp_path / "again.jsonl")) == []


@pytest.mark.usefixtures("ruler_only")
def test_new_data_goes_on_where_the_trunk_was_and_a_branch_stays_what_it_was(publish, begin, make_corpus):
    run = begin()
    first = run.run([publish(ALICE, make_corpus(50))])
    checkpoint = sha256_of(first.model / "model.safetensors")
    plan = read_noun(run.folder / "plan.json", Plan)
    run.give([publish(BOB, make_corpus(60, seed=7))])
    final = run.grow()
    grown = read_noun(run.folder / "plan.json", Plan)
    assert grown.steps > plan.steps and final.name == f"step-{grown.steps:08d}"
    assert grown.course() == plan.course()
    lines = (run.folder / "checkpoints" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == list(range(1, grown.steps + 1)), "no step was made twice"
    second = run.anneal()
    assert [entry.hotkey for entry in first.lineage] == [ALICE]
    assert [entry.hotkey for entry in second.lineage] == sorted([ALICE, BOB])
    assert second.tokenizer.samefile(first.tokenizer) and second.training_tokens > first.training_tokens
    again = BranchRun(first.documents.parent, run.pack, run.events)
    (first.documents.parent / "trained.json").unlink()
    assert again.run() == first and sha256_of(first.model / "model.safetensors") == checkpoint


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ruler_only")
def test_a_domain_that_opts_out_is_found_wherever_it_lies_and_never_mixed_again(publish, begin, make_corpus, tmp_path):
    texts, later = make_corpus(60), make_corpus(40, seed=7)
    run = begin()
    trained = run.run([publish(ALICE, texts[:40]), publish(BOB, texts[40:], site="https://www.Gone.example")])
    signer = Signer(ALICE, lambda message: hmac.digest(b"key", message, "sha512").hex())
    cut_release(trained, name="athena", version="0.1.0", signer=signer, into=run.folder.parent / "releases" / "0.1.0")

    def rows_of_the_domain():
        places = places_below([run.folder.parent])
        found = [(p.kind, table.num_rows) for p in places for table in p.find(Sought(domain="gone.example"))]
        return sorted(found)

    assert rows_of_the_domain() == [("dataset", 20), ("release", 20)]
    asked = [OptOut(domain="gone.example", reason="asked", since_block=5)]
    datasets = publish(ALICE, later[:30]), publish(BOB, later[30:], site="https://gone.example")
    run.give(datasets, left_out(asked, 9))
    assert run.prepare()
    assert run.mixture(1).dropped["opted out"] == 10 and run.mixture(1).documents == 30
    assert not run.trained_on() & set(later[30:])


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ruler_only")
def test_a_branch_reads_nothing_that_came_after_it(publish, begin, make_corpus):
    accepted, later = publish(ALICE, make_corpus(50)), publish(BOB, make_corpus(60, seed=7))
    alone = begin("alone").run([accepted])
    run = begin("late")
    run.give([accepted])
    run.grow()
    spec = RunSpec(name="athena", kind="trunk", folder=str(run.folder))
    run.table.add(spec, now=0.0)
    branch = cut_branch(run.table, run.table.run("athena"), now=0.0)
    run.give([later])
    run.grow()
    trained = BranchRun(run.table.run(branch.name).folder, run.pack, run.events).run()
    assert sha256_of(trained.model / "model.safetensors") == sha256_of(alone.model / "model.safetensors")
    assert [entry.hotkey for entry in trained.lineage] == [ALICE]


def test_what_a_miner_did_not_commit_to_is_left_out(publish, begin, make_corpus):
    good = publish(ALICE, make_corpus(50))
    stolen = publish(BOB, make_corpus(30, seed=2), committed_by=ALICE)
    pushing_out = publish(BOB, make_corpus(31, seed=3), sign_text=lambda _: signature(make_corpus(50)[0]))
    gone = good.model_copy(update={"dataset": good.dataset.model_copy(update={"revision": "f" * 40})})
    run = begin()
    run.give([good, stolen, pushing_out])
    assert run.prepare()
    reasons = run.mixture().refused
    assert "committed" in reasons[str(stolen.dataset)]
    assert "MinHash" in reasons[str(pushing_out.dataset)]
    assert set(run.mixture().tokens_by_hotkey) == {ALICE}
    empty = begin("gone")
    empty.give([gone])
    assert not empty.prepare()
    assert "no document" in (stages_of(empty.folder)[0] / "nothing.json").read_text()


def test_a_stage_without_a_document_changes_nothing(publish, begin, make_corpus):
    good = publish(ALICE, make_corpus(50))
    gone = good.model_copy(update={"dataset": good.dataset.model_copy(update={"revision": "f" * 40})})
    run = begin()
    run.give([gone])
    assert run.grow() is None
    run.give([good])
    assert run.prepare()
    planned = run.plan()
    run.give([gone])
    assert run.prepare() and run.plan() == planned
    assert [tokens.parent.name for _, tokens in planned[0]] == ["0001"]


def test_a_claimed_root_never_takes_a_verified_datasets_place(publish, begin, make_corpus):
    good = publish(ALICE, make_corpus(50))
    other = publish(BOB, make_corpus(30, seed=2), incentive=0.1)
    claiming = other.model_copy(update={"dataset": other.dataset.model_copy(update={"root": good.dataset.root})})
    run = begin()
    run.give([good, claiming])
    assert run.prepare()
    assert list(run.mixture().refused) == [str(claiming.dataset)]
    assert run.trained_on() and run.trained_on() <= set(make_corpus(50))


def test_evaluation_texts_are_never_trained_on(publish, begin, make_corpus, pack):
    texts = make_corpus(50) + [document.text for document in pack.documents]
    run = begin()
    run.give([publish(ALICE, texts)])
    assert run.prepare()
    assert run.mixture().dropped["contaminated"] >= len(pack.documents)
    assert run.trained_on().isdisjoint(document.text for document in pack.documents)


def test_without_paid_data_it_says_so(publish, begin, make_corpus):
    with pytest.raises(NotFound, match="no dataset"):
        begin().give([])
    with pytest.raises(NotFound, match="no dataset"):
        begin().give([publish(ALICE, make_corpus(5), incentive=0.0)])
    assert not stages_of(begin().folder)


def test_a_hub_out_of_reach_is_no_verdict(publish, begin, hub, make_corpus):
    accepted = [publish(ALICE, make_corpus(50))]

    class Down:
        scheme = "file"

        def fetch(self, *args, **kwargs):
            raise Unavailable("the hub does not answer")

    begin().give(accepted)
    with pytest.raises(Unavailable):
        begin(hub=Down()).prepare()
    assert begin().prepare()


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ruler_only")
def test_a_run_whose_hub_failed_ends_like_one_whose_hub_did_not(publish, begin, hub, make_corpus):
    accepted = [publish(ALICE, make_corpus(50)), publish(BOB, make_corpus(30, seed=2))]

    class Failing:
        scheme, faults = "file", 3

        def fetch(self, *arguments, **limits):
            if self.faults and arguments[0] == accepted[1].dataset.repository:
                self.faults -= 1
                raise Unavailable("the hub does not answer")
            return hub.fetch(*arguments, **limits)

    run = begin("failing", hub=Failing())
    run.give(accepted)
    for _ in range(Failing.faults):
        with pytest.raises(Unavailable):
            run.grow()
    late, straight = run.run(), begin("straight").run(accepted)
    assert late.after == straight.after
    assert sha256_of(late.model / "model.safetensors") == sha256_of(straight.model / "model.safetensors")


def test_a_trunks_plan_only_grows(tiny_preset):
    firsts, plan = plan_trunk(tiny_preset, [40], seed=3)
    more_firsts, more = plan_trunk(tiny_preset, [40, 100, 7], seed=3)
    assert firsts == [0] and more_firsts[:2] == [0, plan.steps]
    assert more.course() == plan.course() and more.steps > plan.steps
    assert set(plan.milestones) < set(more.milestones)
    wanted = tiny_preset.training_tokens // tiny_preset.context_length
    assert plan.windows_before(plan.steps) >= min(wanted, 4 * 40)
    last = plan.batch_windows * (more.steps - more_firsts[2])
    assert 7 <= last < 7 + plan.batch_windows, "once a trunk has had its tokens, new data is read once"


def test_a_branch_anneals_from_the_trunks_course(tiny_preset):
    _, trunk = plan_trunk(tiny_preset, [40], seed=3)
    inputs = BranchInputs(trunk="/t", step=trunk.steps, decay_steps=9)
    plan = branch_plan(trunk, inputs, Path("/b/from/step"))
    assert (plan.steps, plan.decay_steps, plan.branch_from) == (trunk.steps + 9, 9, "/b/from/step")
    assert (plan.lr, plan.batch_windows, plan.warmup_steps) == (trunk.lr, trunk.batch_windows, trunk.warmup_steps)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_as_processes_of_the_table_and_killed_on_the_way(publish, pack, make_corpus, tmp_path):
    """The trunk and a branch in their own processes, each killed once at work, as the trainer starts them."""
    settings = RunSettings(preset="demo", decay_share=0.3)
    inputs = TrunkInputs(settings=settings, hub=f"file://{tmp_path}/hub", eval_pack=str(tmp_path / "pack"))
    events = tmp_path / "events.jsonl"
    command = partial(command_of, events=events)
    table = RunTable(tmp_path / RUNS_FILE)
    with table, Scheduler(table, ("cpu:0",), EventLog(events), command=command) as scheduler:
        line = Line(table, tmp_path, "athena", inputs, devices=1)
        line.extend([publish(ALICE, make_corpus(300))], NOTHING_LEFT_OUT)
        killed = set()

        def run_until_done(name):
            while table.run(name).state not in ("done", "failed"):
                scheduler.tick()
                started = [e["child"] for e in read_events(events) if e["event"] == "runs.started"]
                if last_step(table.run(name).folder) > 3 and name not in killed and table.run(name).held:
                    os.kill(started[-1], signal.SIGKILL)
                    killed.add(name)
                time.sleep(0.02)
            assert table.run(name).state == "done", table.run(name).error

        run_until_done("athena")
        branch = line.branch(block=1)
        run_until_done(branch.name)
    assert killed == {"athena", branch.name}
    trained = read_trained(branch.folder)
    assert all(trained.after.bits_per_byte[d] < trained.before.bits_per_byte[d] for d in ("news", "wiki"))
    steps = [point.step for point in read_points(branch.folder)]
    assert steps == list(range(branch.spec.lineage["branch_step"] + 1, branch.spec.config["steps"] + 1))
