"""Measures whether RegMix weights help on real text: models on the natural, an even and the learnt mixture.

    python scripts/bench_regmix.py --data FOLDER [--workdir build/regmix] [--runs 16] [--processes 1]

The sources are refined web pages, pages that the refinery rejected, Gutenberg novels, and encyclopaedia articles; the
evaluation texts are held-out web pages and articles, one domain each. Weights are learnt from `--runs` short runs; then
models learn from twice the tokens, with fresh seeds, on each of the mixtures. Prints one JSON line: bits per byte by
mixture, with every seed's, and the difference to the natural mixture with its standard error.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from athena.draw import permuted
from athena.evalpack import EvalDocument, EvalPack, write_pack
from athena.train.regmix import Learnt, ProxyRuns, RegmixPlan, learn

HELD_OUT = 8  # of so many texts of web and articles, one is for evaluation
PASSAGE_CHARACTERS = 2000
SEEDS = 3


def passages(text: str) -> Iterator[str]:
    """Runs of paragraphs of some 2,000 characters."""
    passage = ""
    for paragraph in re.split(r"\n\s*\n", text):
        passage += paragraph.strip() + "\n\n"
        if len(passage) >= PASSAGE_CHARACTERS:
            yield passage.strip()
            passage = ""


def json_texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def sources_in(data: Path) -> dict[str, list[str]]:
    novels = [data / "text" / f"gutenberg-{name}.txt" for name in ("1342-pride", "2701-moby-dick", "2600-war-peace")]
    articles = (data / "text" / "wikitext2-valid.txt").read_text("utf-8")
    return {
        "articles": list(passages(articles.replace("\n = ", "\n\n = "))),
        "novels": [passage for path in novels for passage in passages(path.read_text("utf-8"))],
        "rejected": json_texts(data / "quality" / "fineweb-recipe-removed.jsonl.gz"),
        "web": json_texts(data / "text" / "fineweb-recipe-kept.jsonl.gz"),
    }


def held_out(sources: dict[str, list[str]], folder: Path) -> EvalPack:
    """A pack of every eighth text of web and articles, which are taken out of the sources."""
    documents = []
    for domain in ("articles", "web"):
        texts = sources[domain]
        documents += [
            EvalDocument(id=f"{domain}-{i}", domain=domain, text=text[:20_000])
            for i, text in enumerate(texts)
            if i % HELD_OUT == 0 and text
        ]
        sources[domain] = [text for i, text in enumerate(texts) if i % HELD_OUT]
    return write_pack(folder, "regmix", documents)


def drawn(sources: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for source, texts in sources.items():
        for i in range(len(texts)):
            yield source, texts[permuted(source, len(texts), i)]


def validated(
    learnt: Learnt, sources: dict[str, list[str]], pack: EvalPack, folder: Path, processes: int
) -> dict[str, object]:
    """Longer runs on the natural, an even and the learnt mixture, with seeds that no run had before."""
    names = sorted(sources)
    tokens = 2 * learnt.plan.run_tokens
    trainer = ProxyRuns(drawn(sources), names, pack, learnt.plan, folder, keep_tokens=tokens)
    found: dict[str, object] = {}
    losses: dict[str, list[float]] = {}
    even = dict.fromkeys(names, 1 / len(names))
    for name, shares in (("natural", learnt.natural), ("even", even), ("learnt", learnt.weights)):
        mixture = np.array([shares[source] for source in names])
        losses[name] = trainer.losses([mixture] * SEEDS, tokens, name, processes).tolist()
        difference = [b - a for a, b in zip(losses[name], losses["natural"], strict=True)]
        found[name] = {
            "shares": {source: round(share, 3) for source, share in shares.items()},
            "bits_per_byte": round(statistics.mean(losses[name]), 4),
            "seeds": [round(loss, 4) for loss in losses[name]],
            "gain": round(statistics.mean(difference), 4),
            "gain_error": round(statistics.stdev(difference) / SEEDS**0.5, 4) if name != "natural" else 0.0,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with text/ and quality/")
    parser.add_argument("--workdir", type=Path, default=Path("build/regmix"))
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--run-tokens", type=int, default=60_000)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    plan = RegmixPlan(runs=arguments.runs, run_tokens=arguments.run_tokens, documents_per_domain=24)
    sources = sources_in(arguments.data)
    pack = held_out(sources, arguments.workdir / "pack")
    available = {source: sum(map(len, texts)) for source, texts in sources.items()}
    caps = dict.fromkeys(sources, 1.0)
    learnt = learn(
        drawn(sources), available, caps, pack, plan, arguments.workdir, arguments.processes, lambda done, total: None
    )
    found = validated(learnt, sources, pack, arguments.workdir, arguments.processes)
    found |= {"expected_gain": round(learnt.gain, 4), "fit_error": round(learnt.error, 4), "runs": plan.runs}
    print(json.dumps(found | {"run_tokens": plan.run_tokens}))


if __name__ == "__main__":
    main()
