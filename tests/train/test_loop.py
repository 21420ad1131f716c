"""The loop on a real Llama of some ten thousand parameters."""

import copy
import errno
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import athena.train.checkpoint
from athena.durable import sha256_of
from athena.errors import BadInput, Conflict, Unavailable
from athena.events import EventLog, read_events
from athena.nn.attention import attending_within_documents
from athena.nn.losses import LOSSES
from athena.nn.packing import pack
from athena.train.checkpoint import checkpoints, verify_checkpoint, weights
from athena.train.learner import Learner
from athena.train.loader import Loader
from athena.train.loop import Diverged, accumulate, train
from athena.train.parallel import Processes
from athena.train.plan import Plan
from athena.train.presets import llama_config
from athena.train.tokens import TokenStream

VOCABULARY = 400
WATCH = EventLog(None)
HERE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture
def stream(tokens_folder):
    return TokenStream(tokens_folder, 32)


@pytest.fixture
def model(tiny_preset):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(llama_config(tiny_preset, vocab_size=VOCABULARY, end=0))


@pytest.fixture
def run(stream):
    """Trains in a folder over the test's tokens."""

    def make(model, plan, folder, events=WATCH):
        return train(model, Loader(((0, stream),), plan.seed, plan.windows_of), plan, folder, events)

    return make


def changed(plan, **fields):
    return Plan.model_validate(plan.model_dump() | fields)


def same_weights(first, second):
    return all(torch.equal(tensor, weights(second)[name]) for name, tensor in weights(first).items())


def test_packed_documents_do_not_see_each_other(model):
    documents = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]
    tokens, positions = (torch.from_numpy(a).long() for a in pack(documents, 14, 0))
    packed = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
    start = 0
    for document in documents:
        ids = torch.tensor([[0, *document]])[:, : 14 - start]
        alone = model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(packed[:, start : start + ids.shape[1]], alone, atol=1e-5, rtol=1e-4)
        start += ids.shape[1]


def test_the_loss_is_the_models_own(model, stream, small_plan):
    batch = stream.batch([0, 1, 2])
    with attending_within_documents(model):
        total, _ = Learner(model, small_plan).losses_of(batch, HERE.device)
    inputs, positions, labels = (torch.from_numpy(a) for a in (batch.inputs, batch.positions, batch.labels))
    logits = model(input_ids=inputs, position_ids=positions, use_cache=False).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_accumulation_does_not_change_the_gradient(model, stream, small_plan):
    gradients, losses = [], []
    for micro_windows in (8, 4, 3, 1):
        model.zero_grad()
        plan = changed(small_plan, micro_windows=micro_windows)
        loader = Loader(((0, stream),), plan.seed, plan.windows_of)
        with attending_within_documents(model):
            losses.append(accumulate(Learner(model, plan), loader, 0, plan, HERE)["loss"])
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    for others in gradients[1:]:
        for expected, gradient in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(gradient, expected, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_loss_falls(run, tmp_path, model, small_plan, optimizer):
    plan = changed(small_plan, optimizer=optimizer)
    run(model, plan, tmp_path / "run", EventLog(tmp_path / "events.jsonl"))
    steps = [e for e in read_events(tmp_path / "events.jsonl") if e["event"] == "train.step"]
    assert [e["step"] for e in steps] == list(range(1, 25))
    assert steps[-1]["tokens"] == 24 * 8 * 32
    assert steps[-1]["loss"] < steps[0]["loss"] - 1.0


def test_the_last_checkpoint_is_a_transformers_model(run, tmp_path, model, small_plan):
    final = run(model, small_plan, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(final)
    assert same_weights(model, loaded)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000024", "step-00000021"]
    assert loaded.lm_head.weight.data_ptr() == loaded.get_input_embeddings().weight.data_ptr()
    assert "athena" not in (final / "config.json").read_text("utf-8")


def test_another_seed_gives_other_weights(run, tmp_path, model, small_plan):
    other = copy.deepcopy(model)
    run(model, small_plan, tmp_path / "a")
    run(other, changed(small_plan, seed=1), tmp_path / "b")
    assert not same_weights(model, other)


def test_a_damaged_newest_checkpoint_costs_some_steps_and_no_bits(run, tmp_path, model, small_plan):
    fresh = copy.deepcopy(model)
    final = run(model, small_plan, tmp_path)
    expected = sha256_of(final / "model.safetensors")
    with (final / "optimizer.safetensors").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\xff")
    assert run(fresh, small_plan, tmp_path) == final
    assert sha256_of(final / "model.safetensors") == expected
    verify_checkpoint(final)
    steps = [record["step"] for record in read_events(tmp_path / "metrics.jsonl")]
    assert steps == list(range(1, 25))


def test_a_folder_is_not_shared_by_two_runs(run, tmp_path, model, small_plan):
    plan = changed(small_plan, steps=6, decay_steps=2)
    run(model, plan, tmp_path)
    with pytest.raises(Conflict, match="another run"):
        run(model, changed(plan, lr=0.02), tmp_path)


def test_other_data_is_not_gone_on_with(run, tmp_path, model, small_plan, tokens_folder):
    plan = changed(small_plan, steps=6, decay_steps=2)
    run(model, plan, tmp_path)
    cut_otherwise = Loader(((0, TokenStream(tokens_folder, 16)),), plan.seed, plan.windows_of)
    with pytest.raises(Conflict, match="other data"):
        train(model, cut_otherwise, plan, tmp_path, WATCH)


def test_a_loss_that_is_no_number_stops_the_run_with_a_report(run, tmp_path, model, small_plan):
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="step 0"):
        run(model, small_plan, tmp_path)
    assert checkpoints(tmp_path) == []
    report = json.loads((tmp_path / "diverged.json").read_bytes())
    assert (report["step"], report["losses"]["loss"], len(report["windows"])) == (0, "nan", 8)


def test_phases_longer_than_the_run_are_refused(small_plan):
    with pytest.raises(ValueError, match="longer than the run"):
        changed(small_plan, steps=3)


def test_every_loss_is_told_and_another_one_counts(run, tmp_path, model, small_plan, monkeypatch):
    def squared_logits(logits, labels):
        return logits[labels >= 0].square().mean(-1).sum()

    monkeypatch.setitem(LOSSES, "squared_logits", squared_logits)
    losses = {"cross_entropy": 1.0, "z_loss": 1e-4, "squared_logits": 0.1}
    run(model, changed(small_plan, steps=12, losses=losses), tmp_path)
    first, *_, last = read_events(tmp_path / "metrics.jsonl")
    assert last["loss"] < first["loss"]
    assert {"z_loss", "squared_logits"} <= first.keys()
    with pytest.raises(BadInput, match="no loss 'hinge'"):
        run(model, changed(small_plan, losses={"hinge": 1.0}), tmp_path / "other")


def test_a_batch_grows_along_its_ramp(run, tmp_path, model, small_plan):
    plan = changed(small_plan, steps=10, warmup_steps=1, decay_steps=2, ramp_from=2, ramp_steps=6)
    assert [plan.windows_of(step) for step in range(8)] == [2, 3, 4, 5, 6, 7, 8, 8]
    run(model, plan, tmp_path)
    tokens = [record["tokens"] for record in read_events(tmp_path / "metrics.jsonl")]
    assert tokens == [32 * sum(plan.windows_of(i) for i in range(step)) for step in range(1, 11)]


def test_a_spike_is_not_stepped_on(run, tmp_path, model, small_plan):
    run(model, changed(small_plan, steps=32, lr=1e-9, skip_above=1.0001), tmp_path)
    records = list(read_events(tmp_path / "metrics.jsonl"))
    assert not any(record.get("skipped") for record in records[:16])
    assert any(record.get("skipped") for record in records[16:])


def test_activation_checkpointing_changes_no_bit(run, tmp_path, model, small_plan):
    other, plan = copy.deepcopy(model), changed(small_plan, steps=6, decay_steps=2)
    run(model, plan, tmp_path / "a")
    run(other, changed(plan, activation_checkpointing=True), tmp_path / "b")
    assert same_weights(model, other)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of torch, by torch
def test_compiling_changes_rounding_alone(run, tmp_path, model, small_plan):
    other, plan = copy.deepcopy(model), changed(small_plan, steps=3, warmup_steps=1, decay_steps=1, batch_windows=7)
    run(model, plan, tmp_path / "a")
    run(other, changed(plan, compile=True), tmp_path / "b")
    losses = [[record["loss"] for record in read_events(tmp_path / name / "metrics.jsonl")] for name in "ab"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_without_a_compiler_a_run_is_the_same_and_slower(run, tmp_path, model, small_plan, monkeypatch, caplog):
    other, plan = copy.deepcopy(model), changed(small_plan, steps=2, warmup_steps=1, decay_steps=1)
    run(model, plan, tmp_path / "a")
    monkeypatch.setattr("shutil.which", lambda _: None)
    run(other, changed(plan, compile=True), tmp_path / "b")
    assert same_weights(model, other) and "no C++ compiler" in caplog.text


def test_a_trunk_grows_and_a_branch_anneals_from_it(run, tmp_path, model, small_plan):
    start, plan = copy.deepcopy(model), changed(small_plan, steps=12, decay_steps=0, milestones=(9,))
    trunk = run(model, plan, tmp_path / "trunk")
    grown = run(copy.deepcopy(start), changed(plan, steps=18), tmp_path / "trunk")
    kept = [path.name for path in checkpoints(tmp_path / "trunk")]
    assert (trunk.name, grown.name, kept[-1]) == ("step-00000012", "step-00000018", "step-00000009")
    annealing = changed(plan, steps=15, decay_steps=6, branch_from=str(tmp_path / "trunk" / "step-00000009"))
    branch = run(copy.deepcopy(start), annealing, tmp_path / "branch")
    steps = list(read_events(tmp_path / "branch" / "metrics.jsonl"))
    assert [record["step"] for record in steps] == list(range(10, 16))
    assert [record["lr"] for record in steps] == pytest.approx([0.01 * n / 6 for n in (6, 5, 4, 3, 2, 1)])
    (tmp_path / "trunk").rename(tmp_path / "gone")
    assert run(copy.deepcopy(start), annealing, tmp_path / "branch") == branch


class FullDisk:
    """Takes no model for the first `failures` checkpoints."""

    def __init__(self, write, failures):
        self.write, self.failures = write, failures

    def __call__(self, folder, kind, *rest):
        if kind == "model" and self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.write(folder, kind, *rest)


def test_a_full_disk_costs_checkpoints_and_no_bits(run, tmp_path, model, small_plan, monkeypatch):
    straight, fresh = copy.deepcopy(model), copy.deepcopy(model)
    run(straight, small_plan, tmp_path / "straight")
    full = FullDisk(athena.train.checkpoint.write_tensors, failures=3)
    monkeypatch.setattr("athena.train.checkpoint.write_tensors", full)
    run(model, small_plan, tmp_path / "full", EventLog(tmp_path / "events.jsonl"))
    assert [e["step"] for e in read_events(tmp_path / "events.jsonl") if "failed" in e["event"]] == [3, 6, 9]
    assert same_weights(model, straight)
    full.failures = 99
    with pytest.raises(Unavailable, match="last checkpoint"):
        run(fresh, changed(small_plan, steps=6, decay_steps=2), tmp_path / "never")
    assert checkpoints(tmp_path / "never") == []
