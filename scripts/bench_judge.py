"""Does the judge rank datasets by how good they are? Scores datasets of known order, as JSON lines.

    python scripts/bench_judge.py [--quick] [--rules 1] [--draws 5] [--parallel 2] [--workdir FOLDER] [--data FOLDER]

Every draw takes other pages, other seeds and other evaluation documents. A draw's sets are scored against its canonical
text as a validator would: the rule version's proxy, 3 seeds a set and 6 canonical ones, which are trained once. As
canaries count the first arms on raw text and on shuffled words. `difference` is the mean over domains of bits per byte
saved, before it is clipped, since clipping leaves no order among bad sets: ranks are its ranks. Its 95 % interval is
that of `bench_null.py`, for texts of different pages; `effect` is the clipped one that is paid, with the interval of a
score sheet. `separated` are the pairs whose shares of spam differ by 30 % or more.

With --quick one draw has a fifth of the budget, and the intervals are widened to match. Results are kept in --workdir,
so that a run that was broken off goes on. The last line holds what the targets are about: `separated_30pct` is a share
of all such pairs, `cpu_seconds_per_dataset` includes the set's share of the reference.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from bench_corpus import RAW_SETS, Corpus
from bench_data import add_data_option
from bench_datasets import CANONICAL, RAW, SHUFFLED_WORDS, SPAM, TIERS, datasets, spam_share, tokens_of
from bench_incumbent import incumbent_score, questions
from bench_runs import Bench, Request, Setting, arms_as, bench_setting, budget_of, contrast
from scipy.stats import spearmanr

from athena import draw
from athena.judge import score
from athena.judge.proxy.arms import Measured
from athena.judge.rules import Rules

REFERENCE = "reference"
WORKDIR = Path(__file__).parents[1] / "build" / "bench-judge"
QUICK_RAW_SETS = ("readability", "trafilatura")
SEPARATED_SHARE = 0.3

Line = dict[str, object]


def spearman(values: Mapping[str, float]) -> float:
    """Rank correlation of the known order with values that are high for good sets; ties have their mean rank."""
    return float(spearmanr([-TIERS[name] for name in values], list(values.values())).statistic)


def spam_pairs() -> list[tuple[str, str]]:
    """Pairs of sets, the better one first, whose shares of spam differ by 30 % or more."""
    shares = {CANONICAL: 0.0, **SPAM}
    return [(a, b) for a, b in combinations(shares, 2) if shares[b] - shares[a] >= SEPARATED_SHARE - 1e-9]


def run_draw(corpus: Corpus, number: int, setting: Setting, folder: Path, parallel: int) -> list[Line]:
    """A line for each set, then one for the draw."""
    rules = setting.rules
    block_hash = hashlib.sha256(f"bench-judge {number}".encode()).hexdigest()
    sets = datasets(corpus, number, draw.seed_of(block_hash, "datasets"))
    budget = budget_of(sets[CANONICAL], rules.proxy)
    requests = [Request(REFERENCE, sets[CANONICAL], rules.proxy.canonical_seeds)]
    requests += [Request(name, texts, rules.proxy.miner_seeds) for name, texts in sets.items()]
    runs = Bench(folder, rules, corpus.pack, block_hash, parallel).run(requests, budget)
    asked = questions(corpus.pack, draw.seed_of(block_hash, "questions"))
    incumbent = {
        name: incumbent_score(texts, asked, rules.proxy, draw.seed_of(block_hash, "incumbent", name))
        for name, texts in sets.items()
    }
    abstains = canaries_stop(runs.measured, rules)
    lines: list[Line] = []
    differences: dict[str, float] = {}
    for name, texts in sets.items():
        found = contrast(runs.measured[name], runs.measured[REFERENCE], setting)
        differences[name] = found.difference
        lines.append(
            {
                "draw": number, "set": name, "tier": TIERS[name], "documents": len(texts),
                "tokens": sum(tokens_of(texts)), "not_canonical": round(spam_share(texts, sets[CANONICAL]), 3),
                "bits_per_byte": [round(score.mean(m.arm.bits_per_byte), 4) for m in runs.measured[name]],
                "difference": round(found.difference, 4), "low": round(found.low, 4), "high": round(found.high, 4),
                "effect": [round(v, 4) for v in (found.effect.mean, found.effect.low, found.effect.high)],
                "abstained": abstains, "incumbent_score": round(incumbent[name], 4),
            }
        )  # fmt: skip
    arms = sum(request.seeds for request in requests)
    lines.append(
        {
            "draw": number, "spearman": round(spearman(differences), 4),
            "incumbent_spearman": round(spearman(incumbent), 4), "abstained": abstains,
            "separated": separated(runs.measured, setting), "budget_tokens": budget,
            "cpu_seconds_per_dataset": round(runs.seconds_per_arm * arms / len(sets), 1),
        }
    )  # fmt: skip
    return lines


def canaries_stop(measured: Mapping[str, Sequence[Measured]], rules: Rules) -> bool:
    """Whether a validator would abstain, by the first arms on the canaries' texts."""
    count = rules.proxy.canary_seeds
    arms = arms_as(measured[REFERENCE], score.CANONICAL)
    arms += arms_as(measured[RAW][:count], score.RAW) + arms_as(measured[SHUFFLED_WORDS][:count], score.SHUFFLED)
    return score.canaries(arms, rules).outcome != "pass"


def separated(measured: Mapping[str, Sequence[Measured]], setting: Setting) -> dict[str, Line]:
    """For each pair of `spam_pairs` how much better the first one is, with its interval."""
    arms = {**measured, CANONICAL: measured[REFERENCE]}
    found = {pair: contrast(arms[pair[0]], arms[pair[1]], setting) for pair in spam_pairs()}
    return {
        f"{better}/{worse}": {
            "difference": round(c.difference, 4), "low": round(c.low, 4), "high": round(c.high, 4),
            "separated": c.low > 0,
        }
        for (better, worse), c in found.items()
    }  # fmt: skip


def summary(draws: Sequence[Mapping[str, object]]) -> Line:
    """The last line, of the draws' own lines."""
    pairs = [pair["separated"] for line in draws for pair in line["separated"].values()]  # type: ignore[attr-defined]
    ranked, seconds, incumbent = (
        [float(line[key]) for line in draws]  # type: ignore[arg-type]
        for key in ("spearman", "cpu_seconds_per_dataset", "incumbent_spearman")
    )
    return {
        "spearman_mean": round(statistics.fmean(ranked), 4),
        "spearman_min": round(min(ranked), 4),
        "separated_30pct": round(sum(pairs) / len(pairs), 4),
        "cpu_seconds_per_dataset": round(max(seconds), 1),
        "incumbent_spearman": round(statistics.fmean(incumbent), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rules", default="1", help="rule version whose proxy scores")
    parser.add_argument("--draws", type=int, help="5 by default, and 1 with --quick")
    parser.add_argument("--parallel", type=int, default=2, help="worker processes, of one thread each")
    parser.add_argument("--workdir", type=Path, default=WORKDIR)
    options = parser.parse_args()
    options.draws = options.draws or (1 if options.quick else 5)
    setting = bench_setting(options.rules, options.quick)
    print(
        json.dumps({"rules": options.rules, "quick": options.quick, **dataclasses.asdict(setting.rules.proxy)}),
        flush=True,
    )
    corpus = Corpus(options.data, options.workdir, QUICK_RAW_SETS if options.quick else RAW_SETS)
    draws = []
    for number in range(options.draws):
        lines = run_draw(corpus, number, setting, options.workdir / "arms", options.parallel)
        draws.append(lines[-1])
        for line in lines:
            print(json.dumps(line), flush=True)
    print(json.dumps({"draws": len(draws), "abstentions": sum(bool(line["abstained"]) for line in draws)}))
    print(json.dumps(summary(draws)))


if __name__ == "__main__":
    main()
