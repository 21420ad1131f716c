"""The loop on a real Llama of some ten thousand parameters."""

import copy
import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from athena.durable import sha256_of
from athena.errors import Conflict
from athena.events import EventLog, read_events
from athena.nn.packing import pack
from athena.train.checkpoint import checkpoints, verify_checkpoint, weights
from athena.train.loop import Diverged, Plan, accumulate, train
from athena.train.presets import llama_config
from athena.train.tokens import TokenStream

VOCABULARY = 400
WATCH = EventLog(None)


@pytest.fixture
def stream(tokens_folder):
    return TokenStream(tokens_folder, 32)


@pytest.fixture
def model(tiny_preset):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(llama_config(tiny_preset, vocab_size=VOCABULARY, end=0))


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


def test_accumulation_does_not_change_the_gradient(model, stream, small_plan):
    gradients, losses = [], []
    for micro_windows in (8, 4, 3, 1):
        model.zero_grad()
        plan = small_plan.model_copy(update={"micro_windows": micro_windows})
        losses.append(accumulate(model, stream, list(range(8)), plan))
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    for others in gradients[1:]:
        for expected, gradient in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(gradient, expected, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_loss_falls(tmp_path, model, stream, small_plan, optimizer):
    plan = small_plan.model_copy(update={"optimizer": optimizer})
    train(model, stream, plan, tmp_path / "run", EventLog(tmp_path / "events.jsonl"))
    steps = [e for e in read_events(tmp_path / "events.jsonl") if e["event"] == "train.step"]
    assert [e["step"] for e in steps] == list(range(1, 25))
    assert steps[-1]["tokens"] == 24 * 8 * 32
    assert steps[-1]["loss"] < steps[0]["loss"] - 1.0


def test_the_last_checkpoint_is_a_transformers_model(tmp_path, model, stream, small_plan):
    final = train(model, stream, small_plan, tmp_path, WATCH)
    loaded = AutoModelForCausalLM.from_pretrained(final)
    assert same_weights(model, loaded)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000024", "step-00000021"]
    assert loaded.lm_head.weight.data_ptr() == loaded.get_input_embeddings().weight.data_ptr()


def test_another_seed_gives_other_weights(tmp_path, model, stream, small_plan):
    other = copy.deepcopy(model)
    train(model, stream, small_plan, tmp_path / "a", WATCH)
    train(other, stream, small_plan.model_copy(update={"seed": 1}), tmp_path / "b", WATCH)
    assert not same_weights(model, other)


def test_a_damaged_newest_checkpoint_costs_some_steps_and_no_bits(tmp_path, model, stream, small_plan):
    fresh = copy.deepcopy(model)
    final = train(model, stream, small_plan, tmp_path, WATCH)
    expected = sha256_of(final / "model.safetensors")
    with (final / "optimizer.safetensors").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\xff")
    assert train(fresh, stream, small_plan, tmp_path, WATCH) == final
    assert sha256_of(final / "model.safetensors") == expected
    verify_checkpoint(final)
    steps = [record["step"] for record in read_events(tmp_path / "metrics.jsonl")]
    assert steps == list(range(1, 25))


def test_a_folder_is_not_shared_by_two_runs(tmp_path, model, stream, small_plan):
    fresh = copy.deepcopy(model)
    train(model, stream, small_plan, tmp_path, WATCH)
    with pytest.raises(Conflict, match="another run"):
        train(fresh, stream, small_plan.model_copy(update={"lr": 0.02}), tmp_path, WATCH)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, model, stream, small_plan):
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="step 0"):
        train(model, stream, small_plan, tmp_path, WATCH)
    assert checkpoints(tmp_path) == []


def test_phases_longer_than_the_run_are_refused():
    with pytest.raises(ValueError, match="longer than the run"):
        Plan(steps=3, batch_windows=1, micro_windows=1, lr=1, warmup_steps=2, decay_steps=2, checkpoint_every=1)


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from athena.events import EventLog
from athena.train.loop import Plan, train
from athena.train.presets import Preset, llama_config
from athena.train.tokens import TokenStream
torch.set_num_threads(1)
tokens, folder, plan, preset = sys.argv[1:]
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(llama_config(Preset(**json.loads(preset)), vocab_size=400, end=0))
train(model, TokenStream(Path(tokens), 32), Plan.model_validate_json(plan), Path(folder), EventLog(None))
"""


def test_killed_at_any_moment_it_ends_in_the_same_bits(tmp_path, model, stream, small_plan, tokens_folder, tiny_preset):
    plan = small_plan.model_copy(update={"steps": 60, "checkpoint_every": 5})
    straight = train(model, stream, plan, tmp_path / "straight", WATCH)
    folder = tmp_path / "killed"
    arguments = [str(tokens_folder), str(folder), plan.model_dump_json(), json.dumps(vars(tiny_preset))]
    command = [sys.executable, "-c", SCRIPT, *arguments]
    kill_after = random.Random(5).uniform(10, 50)
    process = subprocess.Popen(command)
    while process.poll() is None and len(list(read_events(folder / "metrics.jsonl"))) < kill_after:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9, "it ended before it could be killed"
    subprocess.run(command, check=True)
    final = folder / straight.name
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert sha256_of(final / file) == sha256_of(straight / file)
    losses = [[r["loss"] for r in read_events(f / "metrics.jsonl")] for f in (folder, tmp_path / "straight")]
    assert np.array_equal(*losses)
