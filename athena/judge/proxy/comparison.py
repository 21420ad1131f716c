"""The proxy comparison of one case: which arms are trained on what, and what they found."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from athena import draw
from athena.durable import sha256_of, write_file
from athena.errors import Unavailable
from athena.evalpack import EvalPack
from athena.judge import score
from athena.judge.evidence import Case, Evidence, Rows
from athena.judge.gates.contamination import held_out, quotes
from athena.judge.gates.duplicates import unique
from athena.judge.proxy.arms import EvalSet, Job, Measured, ProxyWorkers, tokenize
from athena.judge.proxy.texts import keep_documents, token_file
from athena.judge.rules import ProxyRules, Rules
from athena.protocol import Arm, Hex64, Noun, Verdict

LOW = {score.MINER: "miner-low", score.CANONICAL: "canonical-low"}
"""Arms of the second protocol."""


@dataclass(frozen=True)
class Comparison:
    """What the arms of a case measured, and the jobs that did. `canaries` is None where the WARC file has too few
    canonical tokens to compare anything."""

    jobs: tuple[Job, ...]
    measured: tuple[Measured, ...]
    canaries: Verdict | None
    yield_ratio: float

    @property
    def arms(self) -> tuple[Arm, ...]:
        return tuple(measured.arm for measured in self.measured)


class Text(Noun):
    """An arm's documents as a token file, named by its `content`. `unique_tokens` are those of documents that add
    something to the ones before."""

    content: Hex64
    tokens: int
    unique_tokens: int


def compare(
    evidence: Evidence,
    raw: Callable[[str], Rows],
    workers: ProxyWorkers,
    folder: Path,
    finished: Callable[[Arm, int, int], None],
    base: Path | None = None,
) -> Comparison:
    """Trains the arms, reference and canaries first: where those are out of order, the miner's are not trained.

    `raw(path)` refines a WARC file with the raw recipe. Results lie in `folder`, named by all that decides them, so
    that a restart goes on and cases of one task share the reference. `finished(arm, done, total)` is called for each.
    `base` is the checkpoint that the rules name, if they name one. Raises Unavailable for faults of this machine or
    the crawl.
    """
    rules, warc = evidence.rules.proxy, evidence.warc
    shelf = _Shelf(evidence, folder)
    canonical = shelf.shared(score.CANONICAL, warc, lambda: shelf.texts(evidence.canonical))
    mine = shelf.keep(shelf.texts(evidence.drawn))
    yielded = score.yield_ratio(mine.unique_tokens, canonical.unique_tokens)
    if evidence.canonical.tokens < rules.least_tokens:
        return Comparison((), (), None, yielded)
    plan = _Plan(evidence, folder, min(canonical.tokens, rules.max_tokens), base)
    seed = evidence.case.reference_seed("shuffle")
    unfiltered = shelf.shared(score.RAW, warc, lambda: shelf.texts(raw(warc)))
    shuffled = shelf.shared(
        score.SHUFFLED, warc + seed.hex(), lambda: shuffled_words(shelf.texts(evidence.canonical), seed)
    )
    reference = plan.jobs(score.CANONICAL, canonical, rules.canonical_seeds)
    reference += plan.jobs(score.RAW, unfiltered, rules.canary_seeds)
    reference += plan.jobs(score.SHUFFLED, shuffled, rules.canary_seeds)
    reference += plan.low(score.CANONICAL, canonical)
    own = plan.jobs(score.MINER, mine, rules.miner_seeds, evidence.case.hotkey)
    own += plan.low(score.MINER, mine, evidence.case.hotkey)
    count, total = itertools.count(1), len(reference) + len(own)
    measured = workers.run(reference, lambda arm: finished(arm, next(count), total))
    verdict = score.canaries([m.arm for m in measured], evidence.rules)
    jobs = reference
    if verdict.outcome == "pass":
        jobs = reference + own
        measured += workers.run(own, lambda arm: finished(arm, next(count), total))
        second = second_protocol([m.arm for m in measured], evidence.rules)
        verdict = verdict.model_copy(update={"evidence": {**verdict.evidence, "second_protocol": second}})
    return Comparison(tuple(jobs), tuple(measured), verdict, yielded)


def measured_on(
    pack: EvalPack, found: Comparison, case: Case, rules: ProxyRules, workers: ProxyWorkers, folder: Path
) -> list[Measured]:
    """What the very models of a comparison, canonical and the miner's, get on documents that the case draws of `pack`.

    Their text was held against the pack of the comparison alone, so that another one never changes a model. `folder`
    is the comparison's. Raises Unavailable as `compare` does.
    """
    evaluation = _evaluation_set(pack, case.seed("evaluation"), rules, folder)
    arms = [job for job in found.jobs if job.name in (score.MINER, score.CANONICAL)]
    again = [
        job.model_copy(update={"evaluation": evaluation, "result": _result(job.model, evaluation)}) for job in arms
    ]
    return workers.run(again, lambda _: None)


def second_protocol(arms: Sequence[Arm], rules: Rules) -> JsonValue:
    """How much better than canonical the miner's text is at the low learning rate, bits per byte.

    One learning rate can turn the order of two datasets around. `disagrees` says that the difference has another sign
    than the one that counts, and that neither is chance; nothing is paid by it.
    """
    low = _difference(arms, LOW[score.CANONICAL], LOW[score.MINER], rules)
    main = _difference(arms, score.CANONICAL, score.MINER, rules)
    opposed = (low[0] > low[1] and main[0] < -main[1]) or (low[0] < -low[1] and main[0] > main[1])
    return {"difference": low[0], "chance": low[1], "disagrees": opposed}


def _difference(arms: Sequence[Arm], ours: str, theirs: str, rules: Rules) -> tuple[float, float]:
    """Mean over domains of ours less theirs, and how far from zero chance takes it in 95 of 100 cases."""
    runs = [score.arms_named(arms, name) for name in (ours, theirs)]
    means = [score.mean(score.mean_by_domain(found)) for found in runs]
    return means[0] - means[1], score.TWO_SIDED_95 * score.spread(rules.pay.sigma_seed, *map(len, runs))


class _Shelf:
    """Token files in `folder`: of rows that quote no evaluation text."""

    def __init__(self, evidence: Evidence, folder: Path) -> None:
        self._evidence, self._folder = evidence, folder

    def texts(self, rows: Rows) -> list[str]:
        leaked, at_least = held_out(self._evidence.pack), self._evidence.rules.gates.leaked_ngrams
        return [text for text in rows.texts() if not quotes(text, leaked, at_least)]

    def keep(self, texts: Sequence[str]) -> Text:
        documents = tokenize(texts, self._evidence.rules.proxy.vocab_size)
        content = keep_documents(self._folder, documents).stem
        added = sum(len(ids) for ids, new in zip(documents, unique(texts), strict=True) if new)
        return Text(content=content, tokens=sum(map(len, documents)), unique_tokens=added)

    def shared(self, kind: str, what: str, texts: Callable[[], Sequence[str]]) -> Text:
        """The validator's own text of a kind, made once for all cases of the shard."""
        evidence = self._evidence
        decided_by = f"{kind} {what} {evidence.canonical_recipe.hash} {evidence.left_out.digest} "
        decided_by += f"{evidence.pack.hash} {evidence.rules}"
        file = self._folder / f"{hashlib.sha256(decided_by.encode()).hexdigest()}.text.json"
        if file.exists():
            return Text.model_validate_json(file.read_bytes())
        text = self.keep(texts())
        write_file(file, text.canonical())
        return text


def shuffled_words(texts: Sequence[str], seed: bytes) -> list[str]:
    """Each text with its words in drawn order: the worst canary, with the very words of canonical work."""
    result = []
    for index, text in enumerate(texts):
        words = text.split()
        order = draw.sample(draw.seed_of(seed.hex(), str(index)), len(words), len(words))
        result.append(" ".join(words[i] for i in order))
    return result


class _Plan:
    """Makes jobs, with their token files and the evaluation set written to `folder`.

    Where canonical text has fewer tokens than a run from scratch needs, arms go on from the base checkpoint, the
    learning rate falling to zero from the first step: micro-annealing (OLMo 2, 2025).
    """

    def __init__(self, evidence: Evidence, folder: Path, budget_tokens: int, base: Path | None) -> None:
        self._case, self._folder, self._budget = evidence.case, folder, budget_tokens
        self._rules = evidence.rules.proxy
        self._base: Path | None = None
        self._evaluation = _evaluation_set(evidence.pack, evidence.case.seed("evaluation"), self._rules, folder)
        if evidence.canonical.tokens < self._rules.min_tokens:
            self._base = _checked_base(base, self._rules)
            self._rules = self._rules.annealing

    def jobs(self, name: str, text: Text, seeds: int, owner: str = "") -> list[Job]:
        """One job a seed. Seeds differ between arms, tasks and hotkeys; arms that nobody owns are shared by the task's
        cases, which only measure them anew."""
        return [self._job(name, text, number, owner, self._rules, self._budget) for number in range(seeds)]

    def low(self, name: str, text: Text, owner: str = "") -> list[Job]:
        """The arm of the second protocol."""
        budget = math.ceil(self._budget * self._rules.low_budget_share)
        return [self._job(LOW[name], text, 0, owner, self._rules.low, budget)]

    def _job(self, name: str, text: Text, number: int, owner: str, rules: ProxyRules, budget: int) -> Job:
        seed = self._case.arm_seed(name, number, owner)
        trained = hashlib.sha256(
            f"{seed} {budget} {text.content} {rules} {self._base is not None}".encode()
        ).hexdigest()
        model = self._folder / f"{trained}.safetensors"
        return Job(
            name=name,
            seed=seed,
            budget_tokens=budget,
            documents=token_file(self._folder, text.content),
            evaluation=self._evaluation,
            rules=rules,
            model=model,
            result=_result(model, self._evaluation),
            base=self._base,
        )


def _evaluation_set(pack: EvalPack, seed: bytes, rules: ProxyRules, folder: Path) -> Path:
    """The file of the documents and cloze items that `seed` draws of a pack."""
    identity = hashlib.sha256(f"{pack.hash} {rules}".encode() + seed)
    file = folder / f"{identity.hexdigest()}.eval.json"
    if not file.exists():
        documents, cloze = pack.draw(seed, rules.documents_per_domain), pack.draw_cloze(seed, rules.cloze_per_domain)
        EvalSet.of(documents, rules, cloze).save(file)
    return file


def _result(model: Path, evaluation: Path) -> Path:
    """What a model got on an evaluation set lies beside it."""
    measured = hashlib.sha256(f"{model.stem} {evaluation.name}".encode()).hexdigest()
    return model.with_name(f"{measured}.arm.json")


def _checked_base(base: Path | None, rules: ProxyRules) -> Path:
    """The file, if it is what the rules name. Raises Unavailable: without it this validator can not tell."""
    if base is None or not base.exists() or sha256_of(base) != rules.base_sha256:
        raise Unavailable(
            "the base checkpoint of the rules is not here",
            remedy=f"fetch the file with sha256 {rules.base_sha256} and set proxy_base to it",
        )
    return base
