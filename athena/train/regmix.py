"""Proportions of a mixture's sources, learnt from small models on random mixtures of them.

After RegMix (Liu et al. 2024, arXiv 2407.01492): many small runs, a regression of their evaluation loss on the shares
of the sources, and the best mixture by it. The regression is convex in the shares, so that the best one is found for
sure: each source's share p adds a·p + b·√p, b ≤ 0, which says that more of a source helps less and less.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import lsq_linear, minimize

from athena import draw
from athena.durable import write_file
from athena.errors import BadInput
from athena.evalpack import EVALUATION_SEED, EvalPack
from athena.judge.proxy.arms import EvalSet, Ids, Job, Measured, ProxyWorkers, save_documents, tokenize
from athena.judge.rules import ProxyRules
from athena.protocol import Hex64, Noun
from athena.train.gather import load_mixture, read_documents
from athena.train.mixture import MixtureRules, Source, crawl_of

Floats = NDArray[np.float64]
Shares = dict[str, float]
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_TEXTS_AT_A_TIME = 256


class RegmixPlan(Noun):
    """`runs` small models, one for each random mixture, each on `run_tokens` tokens of the shared BPE."""

    seed: int = 0
    runs: Annotated[int, Field(ge=8)] = 24
    run_tokens: Annotated[int, Field(ge=10_000)] = 100_000
    documents_per_domain: Annotated[int, Field(ge=1)] = 32


class MixtureRun(Noun):
    """What a small model that learnt from a mixture made of the evaluation texts: the mean over their domains."""

    shares: Shares
    bits_per_byte: float


class Learnt(Noun):
    """regmix.json. `gain` is what the fit expects of `weights` against the `natural` shares, bits per byte; `error` the
    root mean square of its misses on runs that it was not fitted to. A gain below the error is none."""

    plan: RegmixPlan
    eval_pack: Hex64
    natural: Shares
    caps: Shares
    weights: Shares
    gain: float
    error: float
    runs: tuple[MixtureRun, ...]


def learn_weights(
    pool: Path,
    rules: MixtureRules,
    pack: EvalPack,
    plan: RegmixPlan,
    processes: int,
    progress: Callable[[int, int], None],
) -> Learnt:
    """The weights for `rules` of the sources (`rules.weighed_by`) of a mixture of all that there is.

    No source gets more than there is of it, nor a miner more than its share. `progress` takes (runs done, runs).
    What was trained lies beside `pool`: a call that was killed goes on. Raises BadInput for fewer than two sources.
    """
    info = load_mixture(pool)
    by: Source = rules.weighed_by
    available = info.tokens_by_hotkey if by == "hotkey" else info.tokens_by_crawl
    share = max(rules.max_miner_share, 1 / len(available)) if by == "hotkey" else 1.0
    budget = min(rules.max_tokens, info.tokens)
    caps = {source: min(share, tokens / budget) for source, tokens in available.items()}
    documents = (
        (row["hotkey"] if by == "hotkey" else crawl_of(row["warc_path"]), row["text"])
        for row in read_documents(pool, seed=plan.seed)
    )
    of = hashlib.sha256(
        (info.digest() + by + plan.digest()).encode()
    ).hexdigest()  # other runs are not mistaken for these
    folder = pool.with_name(f"{pool.name}.regmix-{of[:16]}")
    learnt = learn(documents, available, caps, pack, plan, folder, processes, progress)
    write_file(folder / "regmix.json", learnt.canonical())
    return learnt


def learn(
    documents: Iterable[tuple[str, str]],
    available: Mapping[str, int],
    caps: Mapping[str, float],
    pack: EvalPack,
    plan: RegmixPlan,
    folder: Path,
    processes: int,
    progress: Callable[[int, int], None],
) -> Learnt:
    """Of `documents`, (source, text) in drawn order, of which `available` counts the tokens."""
    sources = sorted(available)
    if len(sources) < 2:
        raise BadInput(f"{len(sources)} source to weigh", remedy="weigh miners or crawls, of which there are several")
    natural = np.array([available[source] / sum(available.values()) for source in sources])
    trainer = ProxyRuns(documents, sources, pack, plan, folder)
    mixtures = [natural, *(random_shares(len(sources), plan.seed, run) for run in range(1, plan.runs))]
    losses = trainer.losses(mixtures, plan.run_tokens, "mixture", processes, progress)
    shares = np.stack(mixtures)
    fit = Fit.of(shares, losses)
    best = fit.best(np.array([caps[source] for source in sources]), natural)

    def named(values: Iterable[float]) -> Shares:
        return {source: round(float(value), 6) for source, value in zip(sources, values, strict=True)}

    return Learnt(
        plan=plan,
        eval_pack=pack.hash,
        natural=named(natural),
        caps=dict(caps),
        weights=named(best),
        gain=float(fit.predict(natural) - fit.predict(best)),
        error=fit.error,
        runs=tuple(MixtureRun(shares=named(s), bits_per_byte=float(y)) for s, y in zip(shares, losses, strict=True)),
    )


def random_shares(count: int, seed: int, run: int) -> Floats:
    """A mixture of `count` sources, drawn evenly from all that there are."""
    stream = draw.seed_of("", "regmix", str(seed), str(run))
    parts = np.array([-math.log((draw.integer(stream, i) + 1) / (2**64 + 1)) for i in range(count)])
    shares: Floats = parts / parts.sum()
    return shares


class ProxyRuns:
    """Small models on mixtures of some sources' documents, of which it keeps at most `keep_tokens` of each."""

    def __init__(
        self,
        documents: Iterable[tuple[str, str]],
        sources: Sequence[str],
        pack: EvalPack,
        plan: RegmixPlan,
        folder: Path,
        keep_tokens: int | None = None,
    ) -> None:
        self._rules = replace(ProxyRules(), documents_per_domain=plan.documents_per_domain)
        self._seed = plan.seed
        self._folder = folder
        self._sources = sources
        self._documents = _tokens_of(documents, sources, keep_tokens or plan.run_tokens, self._rules.vocab_size)
        self._evaluation = folder / f"{pack.hash[:16]}.eval.json"
        chosen = pack.draw(EVALUATION_SEED, plan.documents_per_domain)
        EvalSet.of(chosen, self._rules).save(self._evaluation)

    def losses(
        self,
        mixtures: Sequence[Floats],
        tokens: int,
        name: str,
        processes: int,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Floats:
        """Mean bits per byte over the evaluation domains of one model for each mixture, each from its own seed."""
        jobs = [self._job(shares, tokens, f"{name}-{tokens}-{i}") for i, shares in enumerate(mixtures)]
        done = 0

        def finished(_: object) -> None:
            nonlocal done
            done += 1
            progress(done, len(jobs))

        with ProxyWorkers(min(processes, len(jobs))) as workers:
            measured: list[Measured] = workers.run(jobs, finished)
        return np.array([np.mean(list(m.arm.bits_per_byte.values())) for m in measured])

    def _job(self, shares: Floats, tokens: int, name: str) -> Job:
        path = self._folder / f"{name}.tokens"
        if not path.exists():
            save_documents(path, self._mixed(shares, tokens))
        return Job(
            name=name,
            seed=draw.seed_of("", "regmix", str(self._seed), name).hex(),
            budget_tokens=tokens,
            documents=path,
            evaluation=self._evaluation,
            rules=self._rules,
            model=self._folder / f"{name}.safetensors",
            result=self._folder / f"{name}.arm.json",
        )

    def _mixed(self, shares: Floats, tokens: int) -> list[Ids]:
        """Documents of each source up to its share; where a source has fewer, they come again."""
        mixed: list[Ids] = []
        for source, share in zip(self._sources, shares, strict=True):
            room, documents, place = int(share * tokens), self._documents[source], 0
            while room > 0 and documents:
                document = documents[place % len(documents)][:room]
                mixed.append(document)
                room -= len(document) + 1
                place += 1
        return mixed


def _tokens_of(
    documents: Iterable[tuple[str, str]], sources: Sequence[str], most: int, vocab_size: int
) -> dict[str, list[Ids]]:
    """The first documents of each source, until they have `most` tokens."""
    kept: dict[str, list[Ids]] = {source: [] for source in sources}
    room = dict.fromkeys(sources, most)
    waiting: dict[str, list[str]] = defaultdict(list)
    for source, text in documents:
        if room[source] > 0:
            waiting[source].append(text)
        if len(waiting[source]) >= _TEXTS_AT_A_TIME:
            _keep(kept[source], waiting.pop(source), room, source, vocab_size)
        if all(tokens <= 0 for tokens in room.values()):
            break
    for source, texts in waiting.items():
        _keep(kept[source], texts, room, source, vocab_size)
    return kept


def _keep(kept: list[Ids], texts: list[str], room: dict[str, int], source: str, vocab_size: int) -> None:
    for ids in tokenize(texts, vocab_size):
        if room[source] > 0 and len(ids):
            kept.append(ids)
            room[source] -= len(ids)


class Fit:
    """The loss as a convex function of the shares: mean + Σ a·p + Σ b·√p, b ≤ 0, by ridge regression."""

    def __init__(self, mean: float, linear: Floats, root: Floats, error: float) -> None:
        self._mean, self._linear, self._root = mean, linear, root
        self.error = error

    @classmethod
    def of(cls, shares: Floats, losses: Floats) -> Fit:
        """Fitted with the ridge that predicts best what it was not fitted to."""
        errors = [_root_mean_square([_miss(shares, losses, i, r) for i in range(len(losses))]) for r in _RIDGES]
        best = int(np.argmin(errors))
        return cls(*_solved(shares, losses, _RIDGES[best]), error=errors[best])

    def predict(self, shares: Floats) -> float:
        return float(self._mean + self._linear @ shares + self._root @ np.sqrt(np.maximum(shares, 0)))

    def best(self, caps: Floats, start: Floats) -> Floats:
        """The shares of the lowest loss, none over its cap; all caps where they do not add up to one."""
        if caps.sum() <= 1:
            full: Floats = caps / caps.sum()
            return full
        floor = 1e-6  # where the slope of the root is finite
        found = minimize(
            self.predict,
            _within(start, caps),
            jac=lambda p: self._linear + self._root / (2 * np.sqrt(np.maximum(p, floor))),
            method="SLSQP",
            bounds=[(min(floor, cap), cap) for cap in caps],
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like},
        )
        shares: Floats = found.x / found.x.sum()
        return shares


def _within(shares: Floats, caps: Floats) -> Floats:
    """Shares with what is over a cap given to the others, in proportion to the room they have."""
    kept = np.minimum(shares, caps)
    room = caps - kept
    within: Floats = kept + room * (1 - kept.sum()) / room.sum()
    return within


def _solved(shares: Floats, losses: Floats, ridge: float) -> tuple[float, Floats, Floats]:
    count = shares.shape[1]
    features = np.hstack([shares, np.sqrt(shares)])
    padded = np.vstack([features, math.sqrt(ridge) * np.eye(2 * count)])
    mean = float(losses.mean())
    highest = np.concatenate([np.full(count, np.inf), np.zeros(count)])
    found = lsq_linear(padded, np.concatenate([losses - mean, np.zeros(2 * count)]), bounds=(-np.inf, highest)).x
    return mean, found[:count], found[count:]


def _miss(shares: Floats, losses: Floats, left_out: int, ridge: float) -> float:
    kept = np.arange(len(losses)) != left_out
    fit = Fit(*_solved(shares[kept], losses[kept], ridge), error=0.0)
    return fit.predict(shares[left_out]) - float(losses[left_out])


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))
