"""Trains the base checkpoint that small WARC files are compared from, and prints the hash that pins it in the rules.

    python scripts/train_proxy_base.py --rules 1 --tokens 20000000 --out base.safetensors DATASET [DATASET …]

A DATASET is a folder that `athena refine` made. The learning rate is not annealed: arms that go on from the checkpoint
do that.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch

from athena.durable import write_file
from athena.judge.proxy.arms import tokenize
from athena.judge.proxy.training import drawn_model, train, training_windows
from athena.judge.rules import rules_of
from athena.refine.manifest import Limits, load_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--rules", default="1")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rules = dataclasses.replace(rules_of(options.rules).proxy, decay_share=0.0)
    texts = [
        text for path in options.datasets for text in load_dataset(path, limits=Limits()).table["text"].to_pylist()
    ]
    seed = options.seed.to_bytes(32, "big")
    windows = training_windows(tokenize(texts, rules.vocab_size), options.tokens, rules.length + 1, seed)
    model = drawn_model(rules, seed)
    train([model], torch.from_numpy(windows).long()[None], rules)
    content = safetensors.torch.save(model.state_dict())
    write_file(options.out, content)
    print(json.dumps({"base_sha256": hashlib.sha256(content).hexdigest(), "tokens": windows.size, "texts": len(texts)}))


if __name__ == "__main__":
    main()
