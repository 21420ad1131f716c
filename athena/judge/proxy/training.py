"""Gate 7: what a small model learns from an arm's text. `python -m athena.judge.proxy.training DEVICE` is a worker.

A worker reads orders from its standard input, one a line, trains, writes the results into place, and answers. It ends
at once when its input ends, so none outlives its validator.
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
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from athena import draw
from athena.durable import write_file
from athena.judge.proxy.arms import CPU, DONE, ORDER, EvalSet, Job, Measured, load_documents
from athena.judge.proxy.measured import CurvePoint
from athena.judge.proxy.texts import token_bytes
from athena.judge.rules import ProxyRules
from athena.nn.memory import keep_freed_memory
from athena.nn.model import Decoder, ModelConfig
from athena.nn.optim import make_optimizer, schedule
from athena.nn.packing import Ids, pack
from athena.nn.replicas import Replicas
from athena.protocol import MAX_BITS_PER_BYTE
from athena.refine.text.bpe import END_OF_TEXT_ID

CURVE_POINTS = 20
_EVAL_BATCH = 32
_CURVE = "curve"
_CURVES = TypeAdapter(tuple[CurvePoint, ...])


def train_arms(jobs: Sequence[Job], device: str = CPU) -> list[Measured]:
    """Trains and measures arms that stack, or takes their models from an earlier measurement.

    On the CPU one after the other: bit-equal on one instruction set and one thread. On another device side by side,
    with the same first weights and the same windows: equal within TOLERANCE_BITS_PER_BYTE. An arm without any document
    is measured untrained: an empty set teaches nothing.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # all are written first
    rules = jobs[0].rules
    windows = [_windows(job) for job in jobs]
    models = [_model(job).to(device) for job in jobs]
    untrained = [number for number, job in enumerate(jobs) if not job.model.exists()]
    for together in [untrained] if device != CPU else [[number] for number in untrained]:
        if together:
            batches = torch.from_numpy(np.stack([windows[number] for number in together])).long().to(device)
            losses = train([models[number] for number in together], batches, rules)
            for number, own in zip(together, losses, strict=True):
                note = {_CURVE: _CURVES.dump_json(learning_curve(own, windows[number], rules)).decode()}
                write_file(jobs[number].model, safetensors.torch.save(models[number].state_dict(), note))
    return [_measured(job, model, part) for job, model, part in zip(jobs, models, windows, strict=True)]


def drawn_model(rules: ProxyRules, seed: bytes) -> Decoder:
    """A model with drawn weights. They are drawn on the CPU everywhere."""
    torch.manual_seed(draw.integer(seed, 0) >> 1)
    return Decoder(
        ModelConfig(rules.vocab_size, rules.hidden_size, rules.num_layers, rules.num_heads, max_length=rules.length)
    )


def _model(job: Job) -> Decoder:
    """The arm's model: trained already, or to go on from a base, or drawn."""
    model = drawn_model(job.rules, bytes.fromhex(job.seed))
    start = job.model if job.model.exists() else job.base
    if start is not None:
        model.load_state_dict(safetensors.torch.load_file(start))
    return model


def _windows(job: Job) -> Ids:
    documents = distinct(load_documents(job.documents))
    most = job.rules.max_epochs * sum(len(document) + 1 for document in documents)
    return training_windows(documents, min(job.budget_tokens, most), job.rules.length + 1, bytes.fromhex(job.seed))


def distinct(documents: Sequence[Ids]) -> list[Ids]:
    """Each document once, in order: a copy would be read again, beyond `max_epochs`."""
    return list({document.tobytes(): document for document in documents}.values())


def training_windows(documents: list[Ids], budget_tokens: int, length: int, seed: bytes) -> Ids:
    """int32 [windows, length] of about `budget_tokens`, drawn from all documents; they come again while they are fewer.

    Windows are drawn rather than documents: each arm reads of nearly every document, and seeds differ less in what they
    read. Their number does not depend on the seed.
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
    return windows[draw.sample(draw.seed_of(seed.hex(), "windows"), len(windows), count)]


def train(models: Sequence[Decoder], windows: Tensor, rules: ProxyRules) -> NDArray[np.float64]:
    """Trains each model on its own windows, int64 [models, windows, length + 1]; their losses, nats a token [models,
    steps]. float32 throughout: bfloat16 is faster where a processor has it, but machines with and without it would
    disagree."""
    learner = Replicas(models) if len(models) > 1 else models[0]
    optimizer = make_optimizer(learner, rules.learning_rate, weight_decay=rules.weight_decay, muon_dtype=torch.float32)
    batches = torch.split(windows if len(models) > 1 else windows[0], rules.batch_windows, dim=-2)
    steps = len(batches) if windows.size(1) else 0
    warmup, decay = math.ceil(rules.warmup_share * steps), math.ceil(rules.decay_share * steps)
    losses: list[Tensor] = []
    for step, batch in enumerate(batches[:steps]):
        optimizer.set_lr(rules.learning_rate * schedule(step, steps, warmup, decay))
        loss = learner.loss(batch[..., :-1], batch[..., 1:])
        loss.sum().backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach().view(-1))
        optimizer.step()
        optimizer.zero_grad()
    if not losses:
        return np.zeros((len(models), 0))
    found: NDArray[np.float64] = torch.stack(losses, dim=1).double().cpu().numpy()  # once: asking stops an accelerator
    return found


def learning_curve(losses: NDArray[np.float64], windows: Ids, rules: ProxyRules) -> tuple[CurvePoint, ...]:
    """A run's losses, nats a token [steps], as at most CURVE_POINTS means over equal stretches of it.

    A loss that is none, or over MAX_BITS_PER_BYTE, counts as that: the run diverged.
    """
    if not len(losses):
        return ()
    firsts = np.arange(0, len(windows), rules.batch_windows)  # windows of each step
    tokens = np.diff(firsts, append=len(windows)) * rules.length
    sizes = np.add.reduceat(token_bytes(rules.vocab_size)[windows[:, 1:]].sum(1), firsts)
    bits = losses * tokens / math.log(2)
    return tuple(
        CurvePoint(
            tokens=int(tokens[: steps[-1] + 1].sum()),
            bits_per_byte=float(np.fmin(bits[steps].sum() / max(1, sizes[steps].sum()), MAX_BITS_PER_BYTE)),
        )
        for steps in np.array_split(np.arange(len(losses)), min(CURVE_POINTS, len(losses)))
    )


def _kept_curve(model: Path) -> tuple[CurvePoint, ...]:
    """The curve of the run that made the model, which is kept with it."""
    with safetensors.safe_open(model, "numpy") as file:
        note = (file.metadata() or {}).get(_CURVE)
    return _CURVES.validate_json(note) if note is not None else ()


def _measured(job: Job, model: Decoder, windows: Ids) -> Measured:
    evaluation = EvalSet.load(job.evaluation)
    bits = document_bits(model, evaluation)
    owned = {domain: evaluation.domain_of == number for number, domain in enumerate(evaluation.domains)}
    return Measured.of(
        job.name,
        job.seed,
        tokens=windows.shape[0] * job.rules.length,
        bits={domain: bits[mine].tolist() for domain, mine in owned.items()},
        sizes={domain: evaluation.bytes[mine].tolist() for domain, mine in owned.items()},
        curve=_kept_curve(job.model),
    )


@torch.no_grad()
def document_bits(model: Decoder, evaluation: EvalSet) -> NDArray[np.float64]:
    """Bits of each document, at most MAX_BITS_PER_BYTE a byte: text that a run diverges on taught nothing."""
    device = model.embedding.weight.device
    nats = np.zeros(len(evaluation.domain_of))
    target = torch.arange(evaluation.windows.shape[1] - 1)
    for first in range(0, len(evaluation.windows), _EVAL_BATCH):
        part = slice(first, first + _EVAL_BATCH)
        windows = torch.from_numpy(evaluation.windows[part]).long().to(device)
        losses = model.losses(windows[:, :-1], windows[:, 1:]).cpu()
        starts, ends = (torch.from_numpy(ids[part])[:, None] for ids in (evaluation.starts, evaluation.ends))
        counted = losses.where((starts <= target) & (target < ends), 0.0)
        np.add.at(nats, evaluation.document_of[part], counted.double().sum(1).numpy())
    bits: NDArray[np.float64] = np.fmin(nats / math.log(2), MAX_BITS_PER_BYTE * evaluation.bytes)  # of NaN the cap
    return bits


def _orders() -> Iterator[bytes]:
    """Lines of standard input. The process ends the moment that it closes, in the middle of an order too."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def main(device: str) -> None:
    keep_freed_memory()
    for line in _orders():
        jobs = ORDER.validate_json(line)
        for job, measured in zip(jobs, train_arms(jobs, device), strict=True):
            write_file(job.result, measured.canonical())
        sys.stdout.buffer.write(DONE)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    if sys.argv[1] == "--devices":
        sys.stdout.write("\n".join(f"cuda:{number}" for number in range(torch.cuda.device_count())))
    else:
        main(sys.argv[1])
