"""Proxy runs of the judge's benchmarks: the product's jobs and workers on any texts, each arm trained once.

Results lie in a work folder under the name of all that decides them (text, seed, budget, rules, evaluation documents),
so that a run that was broken off goes on, and what serves twice is trained once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from athena import draw
from athena.durable import write_file
from athena.evalpack import EvalPack
from athena.judge import score
from athena.judge.proxy.arms import EvalSet, Job, Measured, ProxyWorkers, tokenize
from athena.judge.proxy.texts import keep_documents
from athena.judge.rules import ProxyRules, Rules, rules_of
from athena.protocol import Arm, Effect

SAMPLE_SPREAD = 0.013
"""Standard deviation of an arm's bits per byte over disjoint samples of one quality, with the noise of seeds taken out:
found 0.0129 by `bench_null.py`, on 12 samples in two deals. Miners of a task refine the same pages as the validator, so
this is no part of the pay formula."""
QUICK = {"max_tokens": 80_000, "documents_per_domain": 12}
"""Of a quick run's proxy, which shows that everything works: a fifth of the budget."""
QUICK_NOISE = 2.0
"""How many times noisier a quick run is taken to be; arms were found to be 1.6 times."""


@dataclass(frozen=True)
class Setting:
    """What decides scores and their intervals, for the rank test and the null test alike."""

    rules: Rules
    sample_spread: float


def bench_setting(version: str, quick: bool) -> Setting:
    """The rules of a version; for a quick run with a smaller budget and wider intervals."""
    rules = rules_of(version)
    if not quick:
        return Setting(rules, SAMPLE_SPREAD)
    pay = dataclasses.replace(rules.pay, sigma_seed=QUICK_NOISE * rules.pay.sigma_seed)
    proxy = dataclasses.replace(rules.proxy, **QUICK)
    return Setting(dataclasses.replace(rules, proxy=proxy, pay=pay), QUICK_NOISE * SAMPLE_SPREAD)


@dataclass(frozen=True)
class Runs:
    """What was measured, by the request's name, and the processor seconds that one arm took."""

    measured: dict[str, list[Measured]]
    seconds_per_arm: float


@dataclass(frozen=True)
class Request:
    """`seeds` arms on `texts`."""

    name: str
    texts: Sequence[str]
    seeds: int


class Bench:
    """One draw's arms: `block_hash` decides every seed and the evaluation documents.

    All arms train for the same budget, the rules' own or `budget_tokens` where that is smaller.
    """

    def __init__(self, folder: Path, rules: Rules, pack: EvalPack, block_hash: str, parallel: int = 1) -> None:
        self._folder, self._rules, self._parallel = folder, rules.proxy, parallel
        self._block_hash = block_hash
        seed = draw.seed_of(block_hash, "evaluation")
        name = hashlib.sha256(f"{pack.hash} {rules.proxy}".encode() + seed).hexdigest()
        self._evaluation = folder / f"{name}.eval.json"
        if not self._evaluation.exists():
            documents = pack.draw(seed, rules.proxy.documents_per_domain)
            EvalSet.of(documents, rules.proxy, pack.draw_cloze(seed, rules.proxy.cloze_per_domain)).save(
                self._evaluation
            )

    def run(self, requests: Sequence[Request], budget_tokens: int) -> Runs:
        """Trains what does not lie there yet, and tells of each arm on standard error."""
        jobs = [job for request in requests for job in self._jobs(request, budget_tokens)]
        missing = sum(not job.result.exists() for job in jobs)
        counter, before = itertools.count(1), _seconds_of_children()

        def finished(arm: Arm) -> None:
            text = f"{next(counter)}/{len(jobs)} {arm.name} {score.mean(arm.bits_per_byte):.4f} bits per byte"
            print(text, file=sys.stderr, flush=True)

        with ProxyWorkers(self._parallel) as workers:
            measured = iter(workers.run(jobs, finished))
        for job in jobs:
            job.model.unlink(missing_ok=True)  # the measurement is all that is asked for again
        found = {request.name: list(itertools.islice(measured, request.seeds)) for request in requests}
        return Runs(found, self._seconds_per_arm(missing, _seconds_of_children() - before))

    def _seconds_per_arm(self, trained: int, seconds: float) -> float:
        """Of what was trained now, or else the last time; 0 if that is not known."""
        file = self._evaluation.with_suffix(".seconds")
        if trained:
            write_file(file, json.dumps(seconds / trained).encode())
        return float(json.loads(file.read_bytes())) if file.exists() else 0.0

    def _jobs(self, request: Request, budget_tokens: int) -> list[Job]:
        documents = tokenize(request.texts, self._rules.vocab_size)
        file = keep_documents(self._folder, documents)
        jobs = []
        for number in range(request.seeds):
            seed = draw.seed_of(self._block_hash, "arm", request.name, str(number)).hex()
            decided_by = f"{seed} {budget_tokens} {file.stem} {self._rules} {self._evaluation.name}"
            name = hashlib.sha256(decided_by.encode()).hexdigest()
            jobs.append(
                Job(
                    name=request.name,
                    seed=seed,
                    budget_tokens=budget_tokens,
                    documents=file,
                    evaluation=self._evaluation,
                    rules=self._rules,
                    model=self._folder / f"{name}.safetensors",
                    result=self._folder / f"{name}.arm.json",
                )
            )
        return jobs


def budget_of(texts: Sequence[str], rules: ProxyRules) -> int:
    """B: the proxy's tokens of canonical text, at most the rules' budget."""
    return min(sum(map(len, tokenize(texts, rules.vocab_size))), rules.max_tokens)


@dataclass(frozen=True)
class Contrast:
    """How many bits per byte one text is better than another, with its 95 % interval, and what the product makes of it.

    `difference` is the mean over domains before clipping. Its interval covers the noise of the seeds and the spread of
    samples: texts of one quality from other pages differ too.
    """

    difference: float
    low: float
    high: float
    effect: Effect


def contrast(candidate: Sequence[Measured], reference: Sequence[Measured], setting: Setting) -> Contrast:
    """By the product's own formula, as if the candidate's arms were a miner's and the reference's canonical."""
    measured = [*_named(candidate, score.MINER), *_named(reference, score.CANONICAL)]
    pay = setting.rules.pay
    effect = score.effect(measured, pay, draw.seed_of("00" * 32, "bench"))
    difference = score.mean(effect.by_domain)
    noise = score.spread(pay.sigma_seed, len(candidate), len(reference))
    margin = score.TWO_SIDED_95 * math.hypot(noise, score.spread(setting.sample_spread, 1, 1))
    return Contrast(difference, difference - margin, difference + margin, effect)


def arms_as(measured: Sequence[Measured], name: str) -> list[Arm]:
    return [m.arm for m in _named(measured, name)]


def _named(measured: Sequence[Measured], name: str) -> list[Measured]:
    return [m.model_copy(update={"arm": m.arm.model_copy(update={"name": name})}) for m in measured]


def _seconds_of_children() -> float:
    """User and system processor seconds of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
