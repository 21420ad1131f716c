"""The arms of a calibration: what a validator would train on WARC files of a crawl, with more seeds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from athena import draw
from athena.crawl import Crawl
from athena.durable import write_file
from athena.errors import BadInput
from athena.evalpack import EvalPack
from athena.judge import score
from athena.judge.calibration import Calibration, calibrate
from athena.judge.gates.contamination import held_out, quotes
from athena.judge.proxy.arms import EvalSet, Job, ProxyWorkers, tokenize
from athena.judge.proxy.comparison import shuffled_words
from athena.judge.proxy.texts import keep_documents
from athena.judge.rules import Rules
from athena.protocol import Arm
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_warc

BLOCK = "00" * 32  # draws are not to be foreseen by miners only
HONEST_RECIPE = "strict-1"
"""What stands for a miner's work: another honest recipe than the canonical one."""


@dataclass(frozen=True)
class CalibrationPlan:
    """Calibrates `rules` on WARC files of a crawl, each as a task of its own, with `seeds` arms of each text.

    Texts and results lie in `folder`, named by all that decides them: a run that was broken off goes on there, and one
    with more seeds or files keeps what there is.
    """

    paths: tuple[str, ...]
    crawl: Crawl
    pack: EvalPack
    rules: Rules
    seeds: int
    folder: Path

    def tasks(self, refined: Callable[[int], None]) -> list[list[Job]]:
        """The arms of each file; calls `refined` with the number of files that are.

        Raises BadInput for a file with too few canonical tokens to compare anything, and what the crawl raises.
        """
        jobs: list[list[Job]] = []
        for path in self.paths:
            jobs.append(self._jobs(path))
            refined(len(jobs))
        return jobs

    def measure(
        self, tasks: Sequence[Sequence[Job]], workers: ProxyWorkers, trained: Callable[[int, int], None]
    ) -> Calibration:
        """Trains what is not trained yet; calls `trained` with arms done and all. Raises Unavailable of the workers."""
        jobs = [job for task in tasks for job in task]
        models = {job.seed: job.model for job in jobs}
        count = itertools.count(1)

        def finished(arm: Arm) -> None:
            models[arm.seed].unlink(missing_ok=True)  # it is measured, and hundreds of them fill a disk
            trained(next(count), len(jobs))

        found = workers.run(jobs, finished)
        measured = {job.result: arm for job, arm in zip(jobs, found, strict=True)}
        return calibrate([[measured[job.result] for job in task] for task in tasks], self.rules, self.pack.hash)

    def _jobs(self, path: str) -> list[Job]:
        proxy = self.rules.proxy
        texts = {
            score.CANONICAL: self._texts(path, self.rules.canonical_recipe),
            score.MINER: self._texts(path, HONEST_RECIPE),
            score.RAW: self._texts(path, self.rules.raw_recipe),
        }
        texts[score.SHUFFLED] = shuffled_words(texts[score.CANONICAL], draw.seed_of(BLOCK, path, "shuffle"))
        tokens = {name: tokenize(documents, proxy.vocab_size) for name, documents in texts.items()}
        budget = sum(map(len, tokens[score.CANONICAL]))
        if budget < proxy.min_tokens:
            raise BadInput(
                f"{path} has {budget} canonical tokens, under {proxy.min_tokens}: too few to compare anything",
                remedy="leave it out",
            )
        budget, evaluation = min(budget, proxy.max_tokens), self._evaluation(path)
        files = {name: keep_documents(self.folder, documents) for name, documents in tokens.items()}
        return [
            self._job(name, draw.seed_of(BLOCK, path, name, str(number)).hex(), file, budget, evaluation)
            for name, file in files.items()
            for number in range(self.seeds)
        ]

    def _texts(self, path: str, recipe_name: str) -> list[str]:
        """What the recipe makes of the file, less what quotes evaluation texts, as in a comparison."""
        recipe = load_recipe(recipe_name)
        file = self.folder / f"{_digest(recipe.hash, self.pack.hash, path)}.texts.json"
        if not file.exists():
            leaked, at_least = held_out(self.pack), self.rules.gates.leaked_ngrams
            rows: Sequence[str] = refine_warc(path, recipe, self.crawl).table["text"].to_pylist()
            write_file(file, json.dumps([text for text in rows if not quotes(text, leaked, at_least)]).encode())
        return list(json.loads(file.read_bytes()))

    def _evaluation(self, path: str) -> Path:
        """Documents of the task's own, as every task draws its own: their choice is part of what differs over tasks."""
        proxy = self.rules.proxy
        file = self.folder / f"{_digest(self.pack.hash, repr(proxy), path)}.eval.json"
        if not file.exists():
            seed = draw.seed_of(BLOCK, path, "evaluation")
            documents, cloze = (
                self.pack.draw(seed, proxy.documents_per_domain),
                self.pack.draw_cloze(seed, proxy.cloze_per_domain),
            )
            EvalSet.of(documents, proxy, cloze).save(file)
        return file

    def _job(self, name: str, seed: str, tokens: Path, budget: int, evaluation: Path) -> Job:
        run = _digest(seed, str(budget), tokens.name, repr(self.rules.proxy), evaluation.name)
        return Job(
            name=name,
            seed=seed,
            budget_tokens=budget,
            documents=tokens,
            evaluation=evaluation,
            rules=self.rules.proxy,
            model=self.folder / f"{run}.safetensors",
            result=self.folder / f"{run}.arm.json",
        )


def _digest(*parts: str) -> str:
    return draw.seed_of(BLOCK, *parts).hex()
