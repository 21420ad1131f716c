"""Does Muon with our defaults need at most 75 % of AdamW's tokens? Real text, JSON lines.

    python scripts/bench_optimizer.py [--preset demo] [--steps 300] [--seeds 3] [--share 0.75] [--data FOLDER]

AdamW (betas 0.9 and 0.95) gets the whole budget at five learning rates a factor of two apart around the preset's; the
best on held-out text, by the first seed, then runs with every seed. Muon runs with the preset's learning rate and
`--share` of the tokens. Model, batch, clipping, and warmup and decay as shares of the run are the same. The last line
says `held`: whether Muon's mean held-out loss is no higher; `edge` warns that AdamW's best rate was the first or last.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
from pathlib import Path
from typing import Literal

import torch
from bench_data import add_data_option
from transformers import AutoModelForCausalLM

from athena.events import EventLog
from athena.nn.attention import attending_within_documents
from athena.train.learner import Learner
from athena.train.loader import Loader
from athena.train.loop import train
from athena.train.plan import Plan
from athena.train.presets import Preset, llama_config, preset_of
from athena.train.tokenizer import END_ID, load_tokenizer, train_tokenizer
from athena.train.tokens import TokenStream, write_documents, write_tokens

KEPT = "text/fineweb-recipe-kept.jsonl.gz"
HELD_OUT = 16  # one document in so many
BATCH_WINDOWS = 16
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def streams(data: Path, preset: Preset, folder: Path) -> tuple[int, TokenStream, TokenStream]:
    """The vocabulary's size, tokens to train on, and tokens held out."""
    with gzip.open(data / KEPT, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    parts = {"train": [t for i, t in enumerate(texts) if i % HELD_OUT], "held-out": texts[::HELD_OUT]}
    train_tokenizer(parts["train"], preset.vocab_size, preset.context_length, folder / "tokenizer")
    found = []
    for name, part in parts.items():
        rows = [
            {"text": text, "hotkey": "", "task_id": "", "dataset": "", "warc_path": "", "warc_offset": i,
             "warc_length": 0, "record_id": str(i), "url": ""}
            for i, text in enumerate(part)
        ]  # fmt: skip
        write_documents(rows, folder / f"{name}.parquet")
        write_tokens(folder / f"{name}.parquet", folder / "tokenizer", folder / name)
        found.append(TokenStream(folder / name, preset.context_length))
    return len(load_tokenizer(folder / "tokenizer")), found[0], found[1]


class Bench:
    def __init__(self, preset: Preset, data: Path, folder: Path) -> None:
        self._preset, self._folder = preset, folder
        self._vocabulary, self._tokens, self._held_out = streams(data, preset, folder)

    def held_out_loss(self, optimizer: Literal["muon", "adamw"], lr: float, steps: int, seed: int) -> float:
        """Nats a token on held-out text after a run; printed as a line."""
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(llama_config(self._preset, vocab_size=self._vocabulary, end=END_ID))
        plan = Plan(
            seed=seed, steps=steps, batch_windows=BATCH_WINDOWS, micro_windows=BATCH_WINDOWS, lr=lr,
            warmup_steps=steps // 20, decay_steps=2 * steps // 5, optimizer=optimizer, checkpoint_every=steps,
        )  # fmt: skip
        loader = Loader(((0, self._tokens),), seed, plan.windows_of)
        with tempfile.TemporaryDirectory(dir=self._folder) as run:
            train(model, loader, plan, Path(run), EventLog(None))
        learner, total, labels = Learner(model.eval(), plan), 0.0, 0
        with torch.no_grad(), attending_within_documents(model):
            for first in range(0, self._held_out.num_windows, BATCH_WINDOWS):
                windows = list(range(first, min(first + BATCH_WINDOWS, self._held_out.num_windows)))
                total += learner.losses_of(self._held_out.batch(windows), torch.device("cpu"))[0].item()
                labels += self._held_out.num_labels(windows)
        loss = total / labels
        line = {"optimizer": optimizer, "lr": lr, "steps": steps, "seed": seed, "loss": round(loss, 4)}
        print(json.dumps(line), flush=True)
        return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--steps", type=int, default=300, help="AdamW's budget, in steps of 16 windows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.75, help="Muon's budget, as a share of AdamW's")
    add_data_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    preset, steps = preset_of(arguments.preset), arguments.steps
    rates = [preset.learning_rate * factor for factor in FACTORS]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(preset, arguments.data, Path(folder))
        first = {lr: bench.held_out_loss("adamw", lr, steps, 0) for lr in rates}
        best = min(first, key=first.__getitem__)
        adamw = [first[best]] + [bench.held_out_loss("adamw", best, steps, seed) for seed in range(1, arguments.seeds)]
        fewer = round(steps * arguments.share)
        muon = [bench.held_out_loss("muon", preset.learning_rate, fewer, seed) for seed in range(arguments.seeds)]
    print(
        json.dumps(
            {
                "share_of_tokens": arguments.share,
                "adamw_lr": best,
                "edge": best in (rates[0], rates[-1]),
                "adamw_loss": round(statistics.mean(adamw), 4),
                "muon_loss": round(statistics.mean(muon), 4),
                "held": statistics.mean(muon) <= statistics.mean(adamw),
            }
        )
    )


if __name__ == "__main__":
    main()
