"""How fast the model reads and writes here, and the memory it takes. Of this machine too: the gate leaves it out."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch

from athena.evaluate import token_ids
from athena.evaluation import Metric, SuiteResult
from athena.evaluations.generating import go_on
from athena.evaluations.subject import Subject, material

ROWS = 4
NEW_TOKENS = 32
REPEATS = 3
"""The median of so many runs, after one that warms up."""


def speed(subject: Subject) -> SuiteResult:
    """Tokens a second read (four full windows at a time) and written (four texts at a time), and peak memory."""
    model = subject.model
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    vocabulary = len(subject.tokenizer)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (ROWS, subject.window), generator=generator).to(model.device)
    read = ROWS * subject.window / _seconds(lambda: _read(model, ids))
    # end-of-text ends a continuation early, so what was written is counted, not what was asked for
    prompts = ["The"] * ROWS
    written = sum(len(token_ids(subject.tokenizer, text)) for text in go_on(subject, prompts, NEW_TOKENS, sampled=3))
    seconds = _seconds(lambda: go_on(subject, prompts, NEW_TOKENS, sampled=3))
    metrics = {
        "reading": Metric(value=round(read, 1), unit="tokens/s", better="higher"),
        "writing": Metric(value=round(written / seconds, 1), unit="tokens/s", better="higher"),
        "peak memory": Metric(value=round(peak_mib(), 1), unit="MiB", better="lower"),
        "parameters": Metric(value=float(sum(p.numel() for p in model.parameters()))),
    }
    return SuiteResult(material=material("speed/1", ROWS, NEW_TOKENS, subject.window, device_name()), metrics=metrics)


def peak_mib() -> float:
    """The most memory so far: of the accelerator, else of this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


@torch.no_grad()
def _read(model: torch.nn.Module, ids: torch.Tensor) -> None:
    model(input_ids=ids, use_cache=False)


def _seconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
