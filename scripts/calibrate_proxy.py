"""Measures a rule version's proxy: σ_B, σ_domain, τ_s, and how far known orders lie apart.

    python scripts/calibrate_proxy.py --crawl file:///tmp/crawl --pack /tmp/pack --rules demo-1 --seeds 8 PATH [PATH …]

Each WARC PATH of the crawl is refined with the canonical recipe, the strict one and the raw one; each result trains
`--seeds` arms as the judge would. Constants go into athena/judge/rules.py by hand, with the printed numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path

from athena import draw
from athena.crawl import open_crawl
from athena.evalpack import load_pack
from athena.judge.proxy.arms import EvalSet, Ids, Job, ProxyWorkers, save_documents, tokenize
from athena.judge.proxy.comparison import shuffled_words
from athena.judge.rules import ProxyRules, rules_of
from athena.protocol import Arm
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_warc

BLOCK = "00" * 32
CANONICAL, STRICT, RAW, SHUFFLED = "fineweb-1", "strict-1", "unfiltered-1", "shuffled"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--crawl", required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--rules", default="demo-1")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--workdir", type=Path, default=Path("/tmp/athena-calibration"))
    parser.add_argument("--proxy", default="{}", help="JSON of ProxyRules fields to try instead of the rules'")
    options = parser.parse_args()
    rules = dataclasses.replace(rules_of(options.rules).proxy, **json.loads(options.proxy))
    crawl, pack = open_crawl(options.crawl), load_pack(options.pack)
    evaluation = options.workdir / f"{draw.seed_of(BLOCK, repr(rules)).hex()}.eval.json"
    EvalSet.of(pack.draw(draw.seed_of(BLOCK, "evaluation"), rules.documents_per_domain), rules).save(evaluation)
    found: dict[str, dict[str, list[Arm]]] = {}
    started, count = time.monotonic(), 0
    with ProxyWorkers(options.parallel) as workers:
        for path in options.paths:
            texts = {name: _texts(path, name, options.workdir, crawl) for name in (CANONICAL, STRICT, RAW)}
            texts[SHUFFLED] = shuffled_words(texts[CANONICAL], draw.seed_of(BLOCK, "shuffle"))
            tokens = {name: tokenize(documents, rules.vocab_size) for name, documents in texts.items()}
            budget = min(sum(map(len, tokens[CANONICAL])), rules.max_tokens)
            found[path] = {}
            for name, documents in tokens.items():
                jobs = _jobs(f"{path} {name}", documents, budget, evaluation, rules, options)
                found[path][name] = workers.run(jobs, lambda _: None)
                count += len(jobs)
    print(json.dumps(_report(found), indent=1))
    print(f"{(time.monotonic() - started) / count:.2f} s of wall time an arm, {count} arms")


def _texts(path: str, recipe: str, workdir: Path, crawl: object) -> list[str]:
    file = workdir / f"{draw.seed_of(BLOCK, path, recipe).hex()}.json"
    if not file.exists():
        table = refine_warc(path, load_recipe(recipe), crawl).table  # type: ignore[arg-type]
        file.write_text(json.dumps(table["text"].to_pylist()))
    return list(json.loads(file.read_text()))


def _jobs(
    name: str, documents: list[Ids], budget: int, evaluation: Path, rules: ProxyRules, options: argparse.Namespace
) -> list[Job]:
    seeds = [draw.seed_of(BLOCK, name, str(number)).hex() for number in range(options.seeds)]
    folder = options.workdir / draw.seed_of(BLOCK, name, str(budget), evaluation.name).hex()
    save_documents(folder / "tokens", documents)
    return [
        Job(
            name="miner", seed=seed, budget_tokens=budget, documents=folder / "tokens", evaluation=evaluation,
            rules=rules, model=folder / f"{seed}.safetensors", result=folder / f"{seed}.arm.json",
        )
        for seed in seeds
    ]  # fmt: skip


def _means(arms: list[Arm]) -> list[float]:
    return [statistics.fmean(arm.bits_per_byte.values()) for arm in arms]


def _report(found: dict[str, dict[str, list[Arm]]]) -> dict[str, object]:
    """σ over arms of honest recipes: raw text is noisier, as each seed meets another part of its rubbish."""
    honest = [sets[name] for sets in found.values() for name in (CANONICAL, STRICT)]
    variance = statistics.fmean(statistics.variance(_means(arms)) for arms in honest)
    of_domain = statistics.fmean(
        statistics.variance([arm.bits_per_byte[domain] for arm in arms])
        for arms in honest
        for domain in arms[0].bits_per_byte
    )
    effects = {
        name: [
            statistics.fmean(_means(sets[CANONICAL])) - statistics.fmean(_means(sets[name])) for sets in found.values()
        ]
        for name in (STRICT, RAW, SHUFFLED)
    }
    noise = 2 * variance / len(honest[0])
    over_tasks = statistics.variance(effects[STRICT]) - noise if len(found) > 1 else 0.0
    return {
        "sigma_seed": variance**0.5,
        "sigma_domain": of_domain**0.5,
        "sigma_task": max(0.0, over_tasks) ** 0.5,
        "effects": effects,
        "spread_of_raw_over_seeds": [statistics.stdev(_means(sets[RAW])) for sets in found.values()],
    }


if __name__ == "__main__":
    main()
