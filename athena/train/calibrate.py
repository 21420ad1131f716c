"""Did the judge foresee what each miner's data would do? Leave one miner out, train again, compare.

A proxy trains on the mixture of a run, and on the mixture without each miner's documents, for the same number of
tokens: what the loss gains with a miner's documents is their effect. Nobody's forecast was made on this mixture, so how
many pairs of miners the forecasts order rightly says what they are worth.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from athena import draw
from athena.errors import NotFound
from athena.evalpack import EvalPack
from athena.judge.proxy.arms import EvalSet, Ids, Job, ProxyWorkers, tokenize
from athena.judge.proxy.texts import keep_documents
from athena.judge.rules import Rules
from athena.protocol import Arm, Hex64, Hotkey, Noun
from athena.train.gather import load_mixture, read_documents
from athena.train.mixture import AcceptedDataset

ALL = "all"
SEEDS = 3
READ_AHEAD = 8
"""Documents are read until there are this many times the tokens that an arm trains on."""
BLOCK = "00" * 32  # nothing here is to be foreseen by anyone
DECIDED_SIGMAS = 1.645
"""Pairs whose effects lie this many standard errors apart are told apart by the measurement, one-sided at 95 %."""


class MinerEffect(Noun):
    """What a miner's documents gave, in bits per byte, positive is better; `error` is its standard error over seeds.

    `forecast` is the median effect that the validators' sheets gave its datasets; null where none did. `share` is of
    the documents' tokens.
    """

    hotkey: Hotkey
    share: Annotated[float, Field(ge=0, le=1)]
    forecast: float | None
    effect: float
    error: Annotated[float, Field(ge=0)]


class RunCalibration(Noun):
    """calibration.json. `accuracy` is the share of pairs of miners that the forecasts put in the order of the effects.

    `decided` counts the pairs whose effects the measurement tells apart, and `decided_accuracy` is over these alone.
    Null where there is no pair.
    """

    format: Literal["athena-run-calibration/1"] = "athena-run-calibration/1"
    rule_version: str
    eval_pack: Hex64
    budget_tokens: int
    seeds: int
    miners: tuple[MinerEffect, ...]
    pairs: int
    accuracy: float | None
    decided: int
    decided_accuracy: float | None


@dataclass(frozen=True)
class AblationPlan:
    """Arms over the documents of a run's `mixtures`, folders that `gather` left; texts and results lie in `folder`,
    named by what decides them: what was broken off goes on there."""

    mixtures: tuple[Path, ...]
    pack: EvalPack
    rules: Rules
    folder: Path
    seeds: int = SEEDS

    def measure(
        self, workers: ProxyWorkers, trained: Callable[[int, int], None] = lambda _done, _all: None
    ) -> RunCalibration:
        """Trains what is not trained yet; calls `trained` with arms done and all.

        Raises NotFound for mixtures of fewer than two miners, Unavailable of the workers.
        """
        forecasts = forecasts_of(dataset for mixture in self.mixtures for dataset in load_mixture(mixture).datasets)
        by_miner = self._tokens()
        if len(by_miner) < 2:
            raise NotFound("all documents are of one miner: there is nothing to leave out")
        miners = sorted(by_miner)
        counts = {hotkey: sum(map(len, documents)) for hotkey, documents in by_miner.items()}
        total = sum(counts.values())
        budget = min(self.rules.proxy.max_tokens, total - max(counts.values()))
        jobs = self._jobs(by_miner, budget)
        number = itertools.count(1)

        def finished(arm: Arm) -> None:
            trained(next(number), len(jobs))

        losses: dict[str, list[float]] = defaultdict(list)
        for found in workers.run(jobs, finished):
            losses[found.arm.name].append(statistics.fmean(found.arm.bits_per_byte.values()))
        for job in jobs:
            job.model.unlink(missing_ok=True)
        effects = tuple(
            MinerEffect(
                hotkey=hotkey,
                share=counts[hotkey] / total,
                forecast=forecasts.get(hotkey),
                effect=statistics.fmean(losses[hotkey]) - statistics.fmean(losses[ALL]),
                error=math.sqrt(_variance(losses[hotkey]) + _variance(losses[ALL])),
            )
            for hotkey in miners
        )
        return summed_up(effects, rules=self.rules, pack=self.pack.hash, budget=budget, seeds=self.seeds)

    def _tokens(self) -> dict[str, list[Ids]]:
        """Documents by miner, from drawn row groups, until there are enough of each mixture."""
        proxy = self.rules.proxy
        found: dict[str, list[Ids]] = defaultdict(list)
        for mixture in self.mixtures:
            num_tokens = 0
            for document in read_documents(mixture, seed=0):
                if not document["hotkey"]:
                    continue  # planted
                ids = tokenize([document["text"]], proxy.vocab_size)[0]
                found[document["hotkey"]].append(ids)
                num_tokens += len(ids)
                if num_tokens * len(self.mixtures) >= READ_AHEAD * proxy.max_tokens:
                    break
        return dict(found)

    def _jobs(self, by_miner: Mapping[str, Sequence[Ids]], budget: int) -> list[Job]:
        evaluation = self._evaluation()
        arms = {ALL: [ids for documents in by_miner.values() for ids in documents]}
        for left_out in sorted(by_miner):
            arms[left_out] = [ids for hotkey, own in by_miner.items() if hotkey != left_out for ids in own]
        jobs = []
        for name, documents in arms.items():
            file = keep_documents(self.folder, documents)
            for index in range(self.seeds):
                seed = draw.seed_of(BLOCK, "ablation", name, str(index)).hex()
                parts = (seed, str(budget), file.name, repr(self.rules.proxy), evaluation.name)
                run = draw.seed_of(BLOCK, *parts).hex()
                jobs.append(
                    Job(
                        name=name,
                        seed=seed,
                        budget_tokens=budget,
                        documents=file,
                        evaluation=evaluation,
                        rules=self.rules.proxy,
                        model=self.folder / f"{run}.safetensors",
                        result=self.folder / f"{run}.arm.json",
                    )
                )
        return jobs

    def _evaluation(self) -> Path:
        proxy = self.rules.proxy
        file = self.folder / f"{draw.seed_of(BLOCK, self.pack.hash, repr(proxy)).hex()}.eval.json"
        if not file.exists():
            seed = draw.seed_of(BLOCK, "ablation", "evaluation")
            EvalSet.of(self.pack.draw(seed, proxy.documents_per_domain), proxy).save(file)
        return file


def summed_up(miners: Sequence[MinerEffect], *, rules: Rules, pack: str, budget: int, seeds: int) -> RunCalibration:
    """The pairs of miners with a forecast, and how many of them it put in the right order; a tie counts half."""
    pairs = list(itertools.combinations([miner for miner in miners if miner.forecast is not None], 2))
    decided = [
        (a, b) for a, b in pairs if abs(a.effect - b.effect) > DECIDED_SIGMAS * math.hypot(a.error, b.error)
    ]  # fmt: skip
    return RunCalibration(
        rule_version=rules.version,
        eval_pack=pack,
        budget_tokens=budget,
        seeds=seeds,
        miners=tuple(miners),
        pairs=len(pairs),
        accuracy=_accuracy(pairs),
        decided=len(decided),
        decided_accuracy=_accuracy(decided),
    )


def forecasts_of(datasets: Iterable[AcceptedDataset]) -> dict[str, float]:
    """By hotkey, the median of the forecasts of its datasets that have one."""
    found: dict[str, list[float]] = defaultdict(list)
    for dataset in datasets:
        if dataset.forecast is not None:
            found[dataset.hotkey].append(dataset.forecast)
    return {hotkey: statistics.median(forecasts) for hotkey, forecasts in found.items()}


def _accuracy(pairs: Sequence[tuple[MinerEffect, MinerEffect]]) -> float | None:
    if not pairs:
        return None
    return statistics.fmean(_agreement(a, b) for a, b in pairs)


def _agreement(a: MinerEffect, b: MinerEffect) -> float:
    product = ((a.forecast or 0.0) - (b.forecast or 0.0)) * (a.effect - b.effect)
    return 0.5 if product == 0 else float(product > 0)


def _variance(values: Sequence[float]) -> float:
    """Of the mean of these values."""
    return statistics.variance(values) / len(values) if len(values) > 1 else 0.0
