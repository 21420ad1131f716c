"""The training loop: one process, native torch, from step 0 a model that transformers loads.

What a step computes depends on the plan, the data and the step's number alone, so that a run that was killed and gone
on with ends in the same bits as one that was not (on one instruction set and thread count).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from athena.durable import write_file
from athena.errors import AthenaError
from athena.events import EventLog, read_events
from athena.nn.optim import OptimizerName, make_optimizer, schedule
from athena.protocol import Noun, canonical_json
from athena.train.checkpoint import restore, save_checkpoint, weights
from athena.train.tokens import Batch, TokenStream

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Diverged(AthenaError):
    """The loss is not a finite number any more."""

    code = "diverged"


class Plan(Noun):
    """Everything about a run that is not its data: change a field and it is another run."""

    seed: int = 0
    steps: Annotated[int, Field(ge=1)]
    batch_windows: Annotated[int, Field(ge=1)]
    """Windows of one optimizer step, over all processes and micro-batches."""
    micro_windows: Annotated[int, Field(ge=1)]
    """Windows that go through the model at a time: memory only, the result is the same up to rounding."""
    lr: Annotated[float, Field(gt=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    decay_steps: Annotated[int, Field(ge=0)]
    optimizer: OptimizerName = "muon"
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    checkpoint_every: Annotated[int, Field(ge=1)]
    keep_last: Annotated[int, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError("warmup and decay are longer than the run")
        return self


def train(model: PreTrainedModel, stream: TokenStream, plan: Plan, folder: Path, events: EventLog) -> Path:
    """Trains `model` in place and returns the last checkpoint, `folder/step-<plan.steps>`.

    Goes on from the newest whole checkpoint in `folder`; a finished run returns at once. `metrics.jsonl` holds one line
    a step. Raises Diverged, and Conflict when `folder` is another run's.
    """
    optimizers = make_optimizer(model, plan.lr, name=plan.optimizer, weight_decay=plan.weight_decay)
    run = identity(model, stream, plan)
    step = restore(folder, run, model, optimizers)
    metrics = _metrics_up_to(folder / "metrics.jsonl", step)
    model.train()
    while step < plan.steps:
        started = time.monotonic()
        lr = plan.lr * schedule(step, plan.steps, plan.warmup_steps, plan.decay_steps)
        optimizers.set_lr(lr)
        loss = accumulate(model, stream, stream.windows_of_step(plan.seed, step, plan.batch_windows), plan)
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm))
        if not math.isfinite(loss + norm):
            raise Diverged(f"loss {loss}, gradient norm {norm} at step {step}", remedy="lower the learning rate")
        optimizers.step()
        optimizers.zero_grad()
        step += 1
        seen = step * plan.batch_windows * stream.length
        events.emit("train.step", step=step, total=plan.steps, loss=round(loss, 4), tokens=seen)
        seconds = round(time.monotonic() - started, 4)
        metrics.emit("step", step=step, loss=loss, lr=lr, gradient_norm=norm, tokens=seen, seconds=seconds)
        if step % plan.checkpoint_every == 0 or step == plan.steps:
            save_checkpoint(folder, step, run, model, optimizers, keep_last=plan.keep_last)
    return folder / f"step-{plan.steps:08d}"


def accumulate(model: PreTrainedModel, stream: TokenStream, windows: list[int], plan: Plan) -> float:
    """Adds the gradient of the windows' mean loss, micro-batch by micro-batch; that loss, nats a token.

    Each micro-batch's sum is divided by the token count of all of them, so how they are cut does not weigh.
    """
    num_tokens = len(windows) * stream.length
    total = 0.0
    for i in range(0, len(windows), plan.micro_windows):
        loss = summed_loss(model, stream.batch(windows[i : i + plan.micro_windows])) / num_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def summed_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Sum over the batch's tokens of the cross entropy, nats.

    No attention mask and no cache: only then does transformers read the documents' boundaries from the position ids.
    """
    device = model.device
    logits = model(
        input_ids=torch.from_numpy(batch.inputs).to(device),
        position_ids=torch.from_numpy(batch.positions).to(device),
        use_cache=False,
    ).logits
    labels = torch.from_numpy(batch.labels).to(device)
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")


def identity(model: PreTrainedModel, stream: TokenStream, plan: Plan) -> str:
    """Digest of the plan, the data and the weights before the first step: 64 hex characters."""
    digest = hashlib.sha256(canonical_json([plan.model_dump(), stream.length, stream.info.tokens_sha256]))
    for name, tensor in weights(model).items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _metrics_up_to(path: Path, step: int) -> EventLog:
    """The metrics file, without the lines of steps that a kill undid."""
    kept = [record for record in read_events(path) if record.get("step", 0) <= step]
    write_file(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
    return EventLog(path)
