"""Gate 7: what a small model learns from an arm's text. `python -m athena.judge.proxy.training` is one worker process.

A worker reads the paths of job files from its standard input, one a line, trains, writes the arm into place, and
answers with the same line. It ends at once when its input ends, so none outlives its validator.
"""

from __future__ import annotations

import math
import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from athena import draw
from athena.durable import write_file
from athena.judge.proxy.arms import EvalSet, Job, load_documents
from athena.judge.rules import ProxyRules
from athena.nn.model import Decoder, ModelConfig
from athena.nn.optim import make_optimizer, schedule
from athena.nn.packing import Ids, pack
from athena.protocol import Arm
from athena.refine.text.bpe import END_OF_TEXT_ID

MAX_BITS_PER_BYTE = 64.0
_EVAL_BATCH = 32


def train_arm(job: Job) -> Arm:
    """Trains a model from scratch on the job's documents, or takes it from an earlier measurement, and measures it.

    Bit-equal on one machine and thread count. An arm without any document is measured untrained: an empty set teaches
    nothing.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    seed = bytes.fromhex(job.seed)
    torch.manual_seed(draw.integer(seed, 0) >> 1)
    rules = job.rules
    model = Decoder(
        ModelConfig(rules.vocab_size, rules.hidden_size, rules.num_layers, rules.num_heads, max_length=rules.length)
    )
    windows = training_windows(load_documents(job.documents), job.budget_tokens, rules.length + 1, seed)
    if job.model.exists():
        model.load_state_dict(safetensors.torch.load_file(job.model))
    else:
        _train(model, torch.from_numpy(windows).long(), rules)
        write_file(job.model, safetensors.torch.save(model.state_dict()))
    measured = evaluate(model, EvalSet.load(job.evaluation))
    return Arm(name=job.name, seed=job.seed, tokens=windows.shape[0] * rules.length, bits_per_byte=measured)


def training_windows(documents: list[Ids], budget_tokens: int, length: int, seed: bytes) -> Ids:
    """int32 [windows, length] of about `budget_tokens`: documents in drawn order, over and over while they are fewer.

    Windows are shuffled, so that one long document does not fill a batch.
    """
    order: list[Ids] = []
    tokens = epoch = 0
    while documents and tokens < budget_tokens + length:
        for index in draw.sample(draw.seed_of(seed.hex(), "documents", str(epoch)), len(documents), len(documents)):
            order.append(documents[index])
            tokens += len(documents[index]) + 1
        epoch += 1
    windows, _ = pack(cast("list[Sequence[int]]", order), length, END_OF_TEXT_ID)
    count = min(len(windows), math.ceil(budget_tokens / length))
    return windows[draw.sample(draw.seed_of(seed.hex(), "windows"), count, count)]


def _train(model: Decoder, windows: Tensor, rules: ProxyRules) -> None:
    optimizer = make_optimizer(model, rules.learning_rate, weight_decay=rules.weight_decay)
    batches = torch.split(windows, rules.batch_windows)
    warmup = math.ceil(rules.warmup_share * len(batches))
    decay = math.ceil(rules.decay_share * len(batches))
    for step, batch in enumerate(batches):
        optimizer.set_lr(rules.learning_rate * schedule(step, len(batches), warmup, decay))
        model.loss(batch[:, :-1], batch[:, 1:]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def evaluate(model: Decoder, evaluation: EvalSet) -> dict[str, float]:
    """Bits per byte of each domain, at most MAX_BITS_PER_BYTE: text that a run diverges on taught nothing."""
    nats = np.zeros(len(evaluation.domains))
    for start in range(0, len(evaluation.windows), _EVAL_BATCH):
        part = slice(start, start + _EVAL_BATCH)
        windows = torch.from_numpy(evaluation.windows[part]).long()
        losses = model.loss(windows[:, :-1], windows[:, 1:], reduction="none").view(len(windows), -1)
        counted = torch.arange(losses.size(1)) < torch.from_numpy(evaluation.lengths[part])[:, None]
        np.add.at(nats, evaluation.domain_of[part], (losses * counted).sum(1).double().numpy())
    bits = nats / math.log(2) / evaluation.bytes
    bits = np.nan_to_num(bits, nan=MAX_BITS_PER_BYTE, posinf=MAX_BITS_PER_BYTE).clip(max=MAX_BITS_PER_BYTE)
    return {domain: float(value) for domain, value in zip(evaluation.domains, bits, strict=True)}


def _jobs() -> Iterator[str]:
    """Lines of standard input. The process ends the moment that it closes, in the middle of a job too."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def main() -> None:
    for line in _jobs():
        job = Job.model_validate_json(Path(line.rstrip("\n")).read_bytes())
        write_file(job.result, train_arm(job).canonical())
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
