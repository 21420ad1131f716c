"""How fast our training loop is beside transformers' own Trainer, paired in one run, as JSON lines.

    python scripts/bench_train.py [--quick] [--presets tiny,30m] [--modes equal,compiled,default] [--rounds 3]

Both train the same model on the same packed windows, in turns, each time in a process of its own, which is set up as a
run's is, or the Trainer's. `equal`: both by AdamW, in the same precision, eagerly, eight windows a step; `compiled`:
the same through torch.compile; `default`: each as it comes, which for the Trainer is eight windows a step, AdamW,
eager, float32, and for us the plan that a run of the preset gets, in bfloat16 where the machine computes in it. Tokens
per second are those of the best round: of CPU time on one thread, of wall time on a GPU. `mfu` is the share of the
fastest matrix product, measured between rounds, that the preset's FLOPs per token make. Peak memory is that of the
whole process.

The last line is about CPU `tiny` but for `mfu`, which a GPU gives where there is one.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from athena.events import EventLog
from athena.nn.memory import keep_freed_memory
from athena.nn.packing import positions
from athena.train.loader import Loader
from athena.train.loop import train
from athena.train.parallel import compute_dtype, process_group
from athena.train.plan import Plan
from athena.train.presets import Preset, llama_config, preset_of
from athena.train.tokens import Batch, TokenStream

WINDOWS = 8  # the Trainer's per_device_train_batch_size
DOCUMENT_TOKENS = 400  # the median of drawn documents; web pages have some 500
END = 0
NO_GPU = "no GPU in this machine"


class DrawnTokens:
    """Windows full of documents, drawn: stands in for a folder of tokens, and packs without padding."""

    def __init__(self, preset: Preset, num_windows: int) -> None:
        draw = np.random.default_rng(0)
        size = num_windows * preset.context_length + 1
        ids = 1 + draw.zipf(1.3, size).astype(np.int64) % (preset.vocab_size - 1)
        ends = np.cumsum(draw.lognormal(np.log(DOCUMENT_TOKENS), 0.8, size // 50 + 2).astype(np.int64) + 10)
        ids[np.append(0, ends[ends < size])] = END
        self._ids, self.length, self.num_windows = ids, preset.context_length, num_windows
        self.info = _Info(tokenizer_sha256="0" * 64, end=END)

    def windows(self, _seed: str, first: int, count: int) -> list[int]:
        return [n % self.num_windows for n in range(first, first + count)]

    def num_labels(self, windows: Sequence[int]) -> int:
        return len(windows) * self.length

    def batch(self, windows: Sequence[int]) -> Batch:
        ids = np.stack([self._ids[w * self.length : (w + 1) * self.length + 1] for w in windows])
        inputs: NDArray[np.int64] = ids[:, :-1]
        places = positions(inputs.astype(np.int32), END).astype(np.int64)
        return Batch(inputs=np.ascontiguousarray(inputs), positions=places, labels=np.ascontiguousarray(ids[:, 1:]))


@dataclass(frozen=True)
class _Info:
    tokenizer_sha256: str
    end: int

    def digest(self) -> str:
        return self.tokenizer_sha256


class Clock:
    """Seconds between the ends of steps: a tracker for our loop, and what a callback tells of the Trainer's."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter() if torch.cuda.is_available() else time.process_time())

    def close(self) -> None:
        return

    def seconds_per_step(self, warm: int) -> float:
        """The median of what followed the first `warm` steps."""
        return float(np.median(np.diff(self.ends[warm - 1 :])))


class Told(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._clock.log(0, {})


@dataclass(frozen=True)
class Round:
    tokens_per_second: float
    peak_mib: float


def measured(work: Callable[[Clock], int], warm: int) -> Round:
    """`work` trains, tells the clock, and says how many tokens a step had."""
    clock = Clock()
    tokens = work(clock)
    return Round(tokens / clock.seconds_per_step(warm), peak_mib())


def peak_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text("ascii")  # ru_maxrss would count what the parent held, too
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def ours(model: PreTrainedModel, tokens: DrawnTokens, plan: Plan) -> Callable[[Clock], int]:
    def work(clock: Clock) -> int:
        loader = Loader(((0, cast("TokenStream", tokens)),), 0, plan.windows_of)
        with tempfile.TemporaryDirectory() as folder:
            train(copy.deepcopy(model), loader, plan, Path(folder), EventLog(None), tracker=clock)
        return plan.batch_windows * tokens.length

    return work


def theirs(model: PreTrainedModel, tokens: DrawnTokens, steps: int, **asked: bool) -> Callable[[Clock], int]:
    """`asked` of TrainingArguments beside what it needs to run."""
    batch = tokens.batch(range(tokens.num_windows))
    rows = [
        {"input_ids": batch.inputs[i], "position_ids": batch.positions[i], "labels": batch.inputs[i]}
        for i in range(tokens.num_windows)
    ]

    def work(clock: Clock) -> int:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=WINDOWS,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **asked,
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=torch.cuda.is_available(),
            )
            dataset = cast("torch.utils.data.Dataset[Any]", rows)
            trainer = Trainer(copy.deepcopy(model), arguments, train_dataset=dataset, callbacks=[Told(clock)])
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return WINDOWS * tokens.length

    return work


_SMALLEST: dict[str, Any] = {
    "steps": 1, "batch_windows": 1, "micro_windows": 1, "lr": 1e-4, "warmup_steps": 0, "decay_steps": 0,
    "checkpoint_every": 10**6,
}  # fmt: skip


def equal_plan(preset: Preset, steps: int, *, compiled: bool) -> Plan:
    """What the Trainer does, in our loop."""
    fields = {"batch_windows": WINDOWS, "micro_windows": WINDOWS, "steps": steps, "compile": compiled}
    return Plan(**{**_SMALLEST, **fields, "optimizer": "adamw"})


def default_plan(preset: Preset, steps: int) -> Plan:
    """The sizes that a run of the preset gets."""
    batch_windows = max(1, preset.batch_tokens // preset.context_length)
    fields = {"batch_windows": batch_windows, "micro_windows": preset.micro_windows, "steps": steps}
    return Plan(**{**_SMALLEST, **fields, "compile": preset.compiles})


def matmul_flops_per_second(dtype: torch.dtype) -> float:
    """The best of a few square products."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = 0.0
    for size in (4096, 8192) if device == "cuda" else (512, 1024, 2048):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        for _ in range(5):
            clock = Clock()
            clock.log(0, {})
            a @ b
            clock.log(0, {})
            best = max(best, 2 * size**3 / (clock.ends[1] - clock.ends[0]))
    return best


def measure_one(name: str, mode: str, side: str, quick: bool) -> Round:
    """One side of one round, in this process."""
    preset = preset_of(name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(llama_config(preset, vocab_size=preset.vocab_size, end=END))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tokens = DrawnTokens(preset, 4 * WINDOWS)
    warm, steps = (2, 5) if quick else (3, 9)
    if side == "trainer":
        bf16 = compute_dtype(Plan(**_SMALLEST), model.device) is torch.bfloat16
        asked = {} if mode == "default" else {"bf16": bf16, "torch_compile": mode == "compiled"}
        return measured(theirs(model, tokens, steps, **asked), warm)
    keep_freed_memory()
    if mode == "default":  # of which a step is many times as long
        return measured(ours(model, tokens, default_plan(preset, warm + 2)), warm)
    return measured(ours(model, tokens, equal_plan(preset, steps, compiled=mode == "compiled")), warm)


def in_a_process(name: str, mode: str, side: str, quick: bool) -> Round:
    """`measure_one` in a new process. Raises CalledProcessError."""
    command = [sys.executable, __file__, "--presets", name, "--modes", mode, "--side", side]
    done = subprocess.run([*command, *(["--quick"] if quick else [])], check=True, stdout=subprocess.PIPE, text=True)
    return Round(**json.loads(done.stdout.splitlines()[-1]))


def compare(name: str, modes: Sequence[str], rounds: int, quick: bool) -> dict[str, dict[str, float]]:
    """A line for each mode."""
    flops = preset_of(name).flops_per_token()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = compute_dtype(Plan(**_SMALLEST), device)
    lines = {}
    for mode in modes:
        best = {"ours": Round(0, 0), "trainer": Round(0, 0)}
        peak = 0.0
        for _ in range(rounds):
            peak = max(peak, matmul_flops_per_second(dtype))
            for side in ("trainer", "ours"):
                best[side] = max(
                    best[side], in_a_process(name, mode, side, quick), key=lambda found: found.tokens_per_second
                )
        lines[mode] = {
            "tokens_per_second": round(best["ours"].tokens_per_second),
            "trainer_tokens_per_second": round(best["trainer"].tokens_per_second),
            "ratio": round(best["ours"].tokens_per_second / best["trainer"].tokens_per_second, 3),
            "mfu": round(best["ours"].tokens_per_second * flops / peak, 3),
            "trainer_mfu": round(best["trainer"].tokens_per_second * flops / peak, 3),
            "matmul_gflops": round(peak / 1e9),
            "peak_mib": round(best["ours"].peak_mib),
            "trainer_peak_mib": round(best["trainer"].peak_mib),
        }
        print(
            json.dumps({"preset": name, "mode": mode, "dtype": str(dtype).removeprefix("torch."), **lines[mode]}),
            flush=True,
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps, one round, tiny alone")
    parser.add_argument("--presets", help="by default tiny and 30m on a processor, 125m and 1b on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default="equal,compiled,default", help="what to compare; compiling takes minutes")
    parser.add_argument("--side", choices=("ours", "trainer"), help="measure one side of one round, in this process")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    on_gpu = torch.cuda.is_available()
    names = (arguments.presets or ("125m,1b" if on_gpu else "tiny" if arguments.quick else "tiny,30m")).split(",")
    modes = arguments.modes.split(",")
    if arguments.side is not None:
        with process_group():
            print(json.dumps(vars(measure_one(names[0], modes[0], arguments.side, arguments.quick))))
        return
    rounds = 1 if arguments.quick else arguments.rounds
    found = {name: compare(name, modes, rounds, arguments.quick) for name in names}
    first = found[names[0]]
    default, equal = first.get("default", {}), first.get("equal", {})
    last: dict[str, Any] = {
        "tokens_ratio": default.get("ratio"),
        "tokens_ratio_equal_mode": equal.get("ratio"),
        "mfu": default.get("mfu"),
        "peak_mib": default.get("peak_mib"),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }
    if not on_gpu:
        print(json.dumps({"gpu": {"125m": None, "1b": None}, "reason": NO_GPU}))
    print(json.dumps(last))


if __name__ == "__main__":
    main()
