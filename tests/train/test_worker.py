"""Runs as processes: killed at any moment, on one process or two, alone or supervised.

Most processes here are forked from this one, which has imported torch already.
"""

import json
import math
import multiprocessing
import os
import random
import socket
import subprocess
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode
from transformers import AutoModelForCausalLM

from athena.durable import sha256_of
from athena.events import EventLog, read_events
from athena.nn.optim import make_optimizer
from athena.train.checkpoint import checkpoints, verify_checkpoint
from athena.train.parallel import process_group
from athena.train.plan import Plan
from athena.train.presets import llama_config
from athena.train.supervise import RunFailed, supervise, worker_command
from athena.train.worker import Job, Stage, work

WATCH = EventLog(None)


@pytest.fixture(scope="module")
def new_run(tokens_folder, tmp_path_factory):
    """A run's folder; its weights are drawn from the plan's seed."""

    def make(preset, plan):
        folder = tmp_path_factory.mktemp("run")
        llama_config(preset, vocab_size=400, end=0).save_pretrained(folder / "initial")
        job = Job(length=32, stages=(Stage(first_step=0, tokens=str(tokens_folder)),))
        (folder / "job.json").write_bytes(job.canonical())
        (folder / "plan.json").write_bytes(plan.canonical())
        return folder

    return make


def lines(folder):
    return list(read_events(folder / "checkpoints" / "metrics.jsonl"))


def losses(folder):
    return [record["loss"] for record in lines(folder)]


def final(folder):
    return checkpoints(folder / "checkpoints")[0]


def begin(function, *arguments, world=1):
    """Starts `function` on `world` forked processes, as torchrun tells them of each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def child(rank):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)
        function(*arguments)

    processes = [multiprocessing.get_context("fork").Process(target=child, args=(rank,)) for rank in range(world)]
    for process in processes:
        process.start()
    return processes


def complete(function, *arguments, world=1):
    for process in begin(function, *arguments, world=world):
        process.join()
        assert process.exitcode == 0


def kill_after(folder, steps):
    """Kills the run once it made so many steps more."""
    already = len(lines(folder)) if (folder / "checkpoints").exists() else 0
    (process,) = begin(work, folder, WATCH)
    while process.is_alive() and len(lines(folder)) < already + steps:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -9, "it ended before it could be killed"


def test_killed_at_any_moment_it_ends_in_the_same_bits(new_run, tiny_preset, small_plan):
    """Three times; the second time it finds its newest checkpoint damaged."""
    plan = small_plan.model_copy(update={"steps": 40, "checkpoint_every": 4})
    straight, killed = new_run(tiny_preset, plan), new_run(tiny_preset, plan)
    complete(work, straight, WATCH)
    draw = random.Random(5)
    for number in range(3):
        kill_after(killed, draw.randint(3, 10))
        if number == 1:
            (final(killed) / "model.safetensors").write_bytes(b"damaged")
    complete(work, killed, WATCH)
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert sha256_of(final(killed) / file) == sha256_of(final(straight) / file)
    assert np.array_equal(losses(killed), losses(straight))
    with safe_open(final(killed) / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118  tied: one tensor


def test_two_processes_do_what_one_does_and_one_goes_on(new_run, tiny_preset, small_plan):
    """2, then 1, then 2 processes: the same losses and weights as on one, up to rounding."""
    plan = Plan.model_validate(small_plan.model_dump() | {"micro_windows": 2, "batch_windows": 7, "decay_steps": 0})
    alone, elastic = new_run(tiny_preset, plan), new_run(tiny_preset, plan)
    complete(work, alone, WATCH)
    for steps, processes in ((6, 2), (15, 1), (24, 2)):
        (elastic / "plan.json").write_bytes(plan.model_copy(update={"steps": steps}).canonical())
        complete(work, elastic, WATCH, world=processes)
        assert len(list(final(elastic).glob("model*.safetensors"))) == processes
        verify_checkpoint(final(elastic))
    assert losses(elastic) == pytest.approx(losses(alone), rel=1e-3)
    assert [record["tokens"] for record in lines(elastic)] == [record["tokens"] for record in lines(alone)]
    expected = dict(AutoModelForCausalLM.from_pretrained(final(alone)).named_parameters())
    for name, weight in AutoModelForCausalLM.from_pretrained(final(elastic)).named_parameters():
        torch.testing.assert_close(weight, expected[name], atol=5e-3, rtol=5e-2)


def exchanges():
    """Three steps of Muon, whole and cut over two processes."""

    def net():
        torch.manual_seed(0)
        return nn.Sequential(*(nn.Linear(*((12, 7) if i % 2 == 0 else (7, 12))) for i in range(5)))

    inputs = torch.randn(8, 12, generator=torch.Generator().manual_seed(1))
    plain, cut = net(), net()
    with process_group():
        fully_shard(cut, mesh=init_device_mesh("cpu", (2,)))
        ours, theirs = make_optimizer(plain, 0.1), make_optimizer(cut, 0.1)
        for _ in range(3):
            for model, optimizers in ((plain, ours), (cut, theirs)):
                model(inputs).square().mean().backward()
                with CommDebugMode() as comm:
                    optimizers.step()
                optimizers.zero_grad()
        counts = {str(operator): count for operator, count in comm.get_comm_counts().items() if count}
        assert all("alltoall" in name or "all_to_all" in name for name in counts), counts
        assert sum(counts.values()) == 4, counts
        for whole, part in zip(plain.parameters(), cut.parameters(), strict=True):
            torch.testing.assert_close(part.full_tensor(), whole, atol=1e-5, rtol=1e-4)
        dist.barrier()


def test_sharded_muon_exchanges_twice_for_each_shape_and_reduces_nothing():
    complete(exchanges, world=2)


def test_weights_from_a_folder_are_taken_and_none_are_held_twice(new_run, tiny_preset, small_plan):
    plan = small_plan.model_copy(update={"steps": 1, "decay_steps": 0, "warmup_steps": 0, "lr": 1e-12})
    first = new_run(tiny_preset, plan)
    complete(work, first, WATCH)
    second = new_run(tiny_preset, plan.model_copy(update={"seed": 9}))
    (second / "initial" / "model.safetensors").write_bytes((final(first) / "model.safetensors").read_bytes())
    complete(work, second, WATCH, world=2)
    expected = dict(AutoModelForCausalLM.from_pretrained(final(first)).named_parameters())
    for part in final(second).glob("model-*.safetensors"):
        with safe_open(part, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                torch.testing.assert_close(file.get_tensor(name), expected.pop(name))
    assert not expected


def test_a_run_that_diverges_or_is_refused_is_not_started_again(new_run, tiny_preset, small_plan):
    folder = new_run(tiny_preset, small_plan.model_copy(update={"lr": 1e30, "skip_above": 1e9}))
    with pytest.raises(RunFailed, match="exit code 65"):
        supervise(worker_command(folder, 1), folder, WATCH)
    assert not math.isfinite(
        float(json.loads((folder / "checkpoints" / "diverged.json").read_bytes())["gradient_norm"])
    )


def test_a_run_that_dies_on_the_spot_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("athena.train.supervise.FIRST_PAUSE_SECONDS", 0.0)
    events = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(RunFailed, match="died 5 times at step 0"):
        supervise(["bash", "-c", "kill -9 $$"], tmp_path, events)
    assert len(list(read_events(tmp_path / "events.jsonl"))) == 5


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_two_hundred_steps_are_seventy_three_and_the_rest(new_run, tiny_preset, small_plan):
    plan = small_plan.model_copy(update={"steps": 200, "checkpoint_every": 20, "decay_steps": 40})
    straight, killed = new_run(tiny_preset, plan), new_run(tiny_preset, plan)
    other = new_run(tiny_preset, plan.model_copy(update={"seed": 1}))
    for folder in (straight, other):
        complete(work, folder, WATCH)
    kill_after(killed, 73)
    subprocess.run(worker_command(killed, 1), check=True)
    hashes = [sha256_of(final(folder) / "model.safetensors") for folder in (straight, killed, other)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_thirty_random_kills_cost_nothing_but_time(new_run, tiny_preset, small_plan):
    """Among them one finds its newest checkpoint damaged."""
    plan = small_plan.model_copy(update={"steps": 400, "checkpoint_every": 4, "decay_steps": 80})
    straight, killed = new_run(tiny_preset, plan), new_run(tiny_preset, plan)
    complete(work, straight, WATCH)
    draw = random.Random(7)
    for number in range(30):
        kill_after(killed, draw.randint(1, 18))
        if number == 15:
            (final(killed) / "model.safetensors").write_bytes(b"damaged")
    complete(work, killed, WATCH)
    assert np.array_equal(losses(killed), losses(straight))
    assert sha256_of(final(killed) / "model.safetensors") == sha256_of(final(straight) / "model.safetensors")
    assert Plan.model_validate_json((killed / "plan.json").read_bytes()) == plan
