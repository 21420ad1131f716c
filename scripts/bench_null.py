"""Does the judge see differences where there are none? Compares equally refined samples, as JSON lines.

    python scripts/bench_null.py [--quick] [--rules 1] [--parallel 2] [--workdir FOLDER] [--data FOLDER]

The canonical text of the real pages is dealt twice to 6 samples, disjoint and with documents of the same lengths; every
sample is compared with every other one of the deal: 30 pairs. One of a pair stands for the canonical text with its 6
arms, the other for a miner's with 3, at the setting, and by the interval, of `bench_judge.py`. A pair is declared
different where its 95 % interval leaves zero out. Arms serve in all pairs of their sample.

With --quick there is one deal of 4 samples, a fifth of the budget, and wider intervals. The last line holds what the
target is about; the one before it sets the spread of the differences beside the one that the constants promise.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from bench_corpus import Corpus
from bench_data import add_data_option
from bench_datasets import samples
from bench_judge import WORKDIR
from bench_runs import Bench, Contrast, Request, Setting, bench_setting, budget_of, contrast

from athena import draw
from athena.evalpack import EvalPack
from athena.judge import score
from athena.judge.proxy.arms import Measured

Line = dict[str, float]
LEVEL = 0.05
DEALS, SAMPLES, QUICK_SAMPLES = 2, 6, 4


@dataclass(frozen=True)
class Pair:
    """Sample `candidate` in a miner's place, against sample `reference` in that of the canonical text."""

    candidate: int
    reference: int
    contrast: Contrast

    @property
    def different(self) -> bool:
        return self.contrast.low > 0 or self.contrast.high < 0


def pairs_of(count: int) -> list[tuple[int, int]]:
    """(candidate, reference) of every pair of `count` samples; each sample is either about as often."""
    return [(a, b) if (a + b) % 2 else (b, a) for a, b in combinations(range(count), 2)]


def compare_samples(
    dealt: Sequence[Sequence[str]], setting: Setting, pack: EvalPack, folder: Path, name: str, parallel: int
) -> tuple[list[Pair], dict[str, list[Measured]]]:
    """Every pair of the samples, and the arms. All arms have one budget: what the smallest sample has, at most."""
    rules = setting.rules
    block_hash = hashlib.sha256(f"bench-null {name}".encode()).hexdigest()
    wanted = pairs_of(len(dealt))
    requests = [
        *(
            Request(f"{i}-canonical", dealt[i], rules.proxy.canonical_seeds)
            for i in sorted({reference for _, reference in wanted})
        ),
        *(
            Request(f"{i}-miner", dealt[i], rules.proxy.miner_seeds)
            for i in sorted({candidate for candidate, _ in wanted})
        ),
    ]
    budget = min(budget_of(texts, rules.proxy) for texts in dealt)
    measured = Bench(folder, rules, pack, block_hash, parallel).run(requests, budget).measured
    return [
        Pair(
            candidate,
            reference,
            contrast(measured[f"{candidate}-miner"], measured[f"{reference}-canonical"], setting),
        )
        for candidate, reference in wanted
    ], measured


def spreads(pairs: Sequence[Pair], measured: Sequence[Mapping[str, Sequence[Measured]]], setting: Setting) -> Line:
    """Standard deviations found: of differences, beside the promised one, and of arms over seeds and over samples."""
    groups = [[m.arm for m in group] for deal in measured for group in deal.values()]
    within = statistics.fmean(statistics.variance(score.mean(arm.bits_per_byte) for arm in group) for group in groups)
    by_domain = statistics.fmean(
        statistics.variance(arm.bits_per_byte[domain] for arm in group)
        for group in groups
        for domain in group[0].bits_per_byte
    )
    pay, proxy = setting.rules.pay, setting.rules.proxy
    seeds = score.spread(pay.sigma_seed, proxy.miner_seeds, proxy.canonical_seeds)
    differences = statistics.fmean(pair.contrast.difference**2 for pair in pairs)
    of_seeds = within * (1 / proxy.miner_seeds + 1 / proxy.canonical_seeds)
    found = {
        "differences": math.sqrt(differences),
        "promised": math.hypot(seeds, score.spread(setting.sample_spread, 1, 1)),
        "sigma_seed": math.sqrt(within),
        "sigma_domain": math.sqrt(by_domain),
        "sample_spread": math.sqrt(max(0.0, differences - of_seeds) / 2),
    }
    return {name: round(value, 5) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rules", default="1", help="rule version whose proxy scores")
    parser.add_argument("--parallel", type=int, default=2, help="worker processes, of one thread each")
    parser.add_argument("--workdir", type=Path, default=WORKDIR)
    options = parser.parse_args()
    setting = bench_setting(options.rules, options.quick)
    corpus = Corpus(options.data, options.workdir)
    print(
        json.dumps({"rules": options.rules, "quick": options.quick, **dataclasses.asdict(setting.rules.proxy)}),
        flush=True,
    )
    pairs: list[Pair] = []
    measured = []
    for deal in range(1 if options.quick else DEALS):
        seed = draw.seed_of("00" * 32, "null", str(deal))
        dealt = samples(corpus, QUICK_SAMPLES if options.quick else SAMPLES, seed)
        found, arms = compare_samples(
            dealt, setting, corpus.pack, options.workdir / "arms", str(deal), options.parallel
        )
        measured.append(arms)
        pairs += found
        for pair in found:
            numbers = {key: round(getattr(pair.contrast, key), 4) for key in ("difference", "low", "high")}
            line = {"deal": deal, "pair": [pair.candidate, pair.reference], **numbers, "different": pair.different}
            print(json.dumps(line), flush=True)
    print(json.dumps(spreads(pairs, measured, setting)))
    different = sum(pair.different for pair in pairs)
    print(json.dumps({"pairs": len(pairs), "declared_different": different, "level": LEVEL}))


if __name__ == "__main__":
    main()
