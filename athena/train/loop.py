"""The training loop, on one process or many, from step 0 a model that transformers loads.

What a step computes depends on the plan, the data and the step's number alone, so that a run that was killed and gone
on with ends in the same bits as one that was not (on one instruction set, thread count and number of processes).
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from athena.durable import write_file
from athena.errors import AthenaError
from athena.events import EventLog, read_events
from athena.nn.attention import attending_within_documents
from athena.nn.losses import IGNORED, loss_named
from athena.nn.optim import make_optimizer, schedule
from athena.protocol import canonical_json
from athena.train.checkpoint import Checkpoints, weights
from athena.train.learner import Learner
from athena.train.loader import Loader
from athena.train.parallel import Processes, place
from athena.train.plan import Plan
from athena.train.tokens import Batch
from athena.train.trackers import Tracker, Untracked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

METRICS = "metrics.jsonl"
REPORT = "diverged.json"
_NORMS = 128  # of the newest steps, whose median a spike is measured against
_NORMS_NEEDED = 16


class Diverged(AthenaError):
    """The loss is not a finite number any more. The run's folder holds diverged.json; starting again ends the same."""

    code = "diverged"
    exit_code = 65  # EX_DATAERR


def train(
    model: PreTrainedModel,
    loader: Loader,
    plan: Plan,
    folder: Path,
    events: EventLog,
    *,
    initial: Path | None = None,
    tracker: Tracker | None = None,
) -> Path:
    """Trains `model` in place and returns the last checkpoint, `folder/step-<plan.steps>`.

    Goes on from the newest whole checkpoint in `folder`; a finished run returns at once. `metrics.jsonl` holds one line
    a step. A model on the meta device starts from the folder `initial`, or from the plan's seed. All processes of a
    group call this together, with loaders of their rank. Raises Diverged; Conflict when `folder` is another run's or
    the data is not what it read; Unavailable when the last checkpoint cannot be written.
    """
    processes = Processes.current()
    learner = Learner(model, plan)
    precision = place(learner, plan, processes, initial)
    optimizers = make_optimizer(model, plan.lr, name=plan.optimizer, weight_decay=plan.weight_decay)
    run = identity(model, plan)
    tracker = tracker or Untracked()
    with (
        attending_within_documents(model),
        Checkpoints(folder, run, model, optimizers, plan, processes, events) as kept,
    ):
        step, norms = 0, deque[float](maxlen=_NORMS)
        if (info := kept.restore()) is not None:
            loader.check(info.data)
            step = info.step
            norms.extend(info.norms)
        metrics = _metrics_up_to(folder / METRICS, step) if processes.rank == 0 else EventLog(None)
        model.train()
        while step < plan.steps:
            started = time.monotonic()
            lr = plan.lr * schedule(step, plan.steps, plan.warmup_steps, plan.decay_steps)
            optimizers.set_lr(lr)
            with precision:
                losses = accumulate(learner, loader, step, plan, processes)
            norm = _clip(learner, plan.clip_norm)
            if not math.isfinite(sum(losses.values()) + norm):
                raise _diverged(folder, step, losses, norm, lr, loader)
            skipped = _is_spike(norm, norms, plan.skip_above)
            norms.append(norm)
            if not skipped:
                optimizers.step()
            optimizers.zero_grad()
            step += 1
            tokens = plan.windows_before(step) * loader.length
            told = {**losses, "lr": lr, "gradient_norm": norm, "tokens": tokens}
            seconds = round(time.monotonic() - started, 4)
            if processes.rank == 0:
                events.emit("train.step", step=step, total=plan.steps, loss=round(losses["loss"], 4), tokens=tokens)
                metrics.emit("step", step=step, **told, seconds=seconds, **({"skipped": True} if skipped else {}))
                tracker.log(step, told)
            if plan.saves(step):
                kept.save(step, loader.state(step), tuple(norms))
    processes.wait()
    return folder / f"step-{plan.steps:08d}"


def accumulate(learner: Learner, loader: Loader, step: int, plan: Plan, processes: Processes) -> dict[str, float]:
    """Adds the gradient of a step's mean loss, micro-batch by micro-batch; the losses, nats a label.

    Every sum is divided by the labels of all micro-batches of all processes, so how a batch is cut does not weigh.
    """
    labels = loader.num_labels(step)
    terms = torch.zeros(len(plan.losses), device=processes.device)
    for batch in _micro_batches(loader, step, plan):
        total, parts = learner.losses_of(batch, processes.device)
        # Sharding averages over processes, and we want the sum.
        (total * (processes.world_size / labels)).backward()  # type: ignore[no-untyped-call]
        terms += parts
    means = dict(zip(plan.losses, (processes.sum(terms) / labels).tolist(), strict=True))
    return {"loss": means.pop("cross_entropy", sum(means.values())), **means}


def _micro_batches(loader: Loader, step: int, plan: Plan) -> Iterator[Batch]:
    """This process's part of a step. As many micro-batches on every process: one that has less gets empty ones."""
    windows = loader.batches(step)
    most = -(-plan.windows_of(step) // loader.world_size)
    count = -(-most // plan.micro_windows)
    for i in range(count):
        part = windows[i * plan.micro_windows : (i + 1) * plan.micro_windows]
        batch = loader.read(step, part or loader.global_batch(step)[:1])
        yield batch if part else Batch(batch.inputs, batch.positions, np.full_like(batch.labels, IGNORED))


def _clip(learner: Learner, clip_norm: float) -> float:
    """Clips the gradient of the whole model; its norm before."""
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), clip_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _is_spike(norm: float, norms: deque[float], skip_above: float) -> bool:
    return len(norms) >= _NORMS_NEEDED and norm > skip_above * statistics.median(norms)


def _diverged(folder: Path, step: int, losses: dict[str, float], norm: float, lr: float, loader: Loader) -> Diverged:
    """The error, after a report of what led to it."""
    recent = list(read_events(folder / METRICS))[-20:]
    report = {
        "step": step,
        "losses": {name: repr(value) for name, value in losses.items()},
        "gradient_norm": repr(norm),
        "lr": lr,
        "windows": loader.global_batch(step),
        "steps_before": recent,
    }
    write_file(folder / REPORT, json.dumps(report, indent=2).encode())
    return Diverged(
        f"loss {losses['loss']}, gradient norm {norm} at step {step}",
        remedy=f"see {folder / REPORT}; lower the learning rate",
    )


def identity(model: PreTrainedModel, plan: Plan) -> str:
    """Digest of the model's shape and of what the plan says of the run's course: 64 hex characters."""
    for name in plan.losses:
        loss_named(name)
    shapes = {name: list(tensor.shape) for name, tensor in weights(model).items()}
    return hashlib.sha256(canonical_json([plan.course(), shapes])).hexdigest()


def _metrics_up_to(path: Path, step: int) -> EventLog:
    """The metrics file, without the lines of steps that a kill undid."""
    kept = [record for record in read_events(path) if record.get("step", 0) <= step]
    write_file(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
    return EventLog(path)
