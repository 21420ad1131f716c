"""The proxy comparison of one case: which arms are trained on what, and what they found."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from athena import draw
from athena.durable import write_file
from athena.judge import score
from athena.judge.evidence import Evidence, Rows
from athena.judge.gates.contamination import held_out, quotes
from athena.judge.gates.duplicates import unique
from athena.judge.proxy.arms import EvalSet, Job, ProxyWorkers, save_documents, tokenize
from athena.protocol import Arm, Hex64, Noun, Verdict


@dataclass(frozen=True)
class Comparison:
    """Arms of a case. `canaries` is None where the WARC file has too few canonical tokens to compare anything."""

    arms: tuple[Arm, ...]
    canaries: Verdict | None
    yield_ratio: float


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
) -> Comparison:
    """Trains the arms, reference and canaries first: where those are out of order, the miner's are not trained.

    `raw(path)` refines a WARC file with the raw recipe. Results lie in `folder`, named by all that decides them, so
    that a restart goes on and cases of one task share the reference. `finished(arm, done, total)` is called for each.
    Raises Unavailable for faults of this machine or the crawl.
    """
    rules, warc = evidence.rules.proxy, evidence.warc
    shelf = _Shelf(evidence, folder)
    canonical = shelf.shared(score.CANONICAL, warc, lambda: shelf.texts(evidence.canonical))
    mine = shelf.keep(shelf.texts(evidence.drawn))
    yielded = score.yield_ratio(mine.unique_tokens, canonical.unique_tokens)
    if evidence.canonical.tokens < rules.min_tokens:
        return Comparison((), None, yielded)
    plan = _Plan(evidence, folder, min(canonical.tokens, rules.max_tokens))
    seed = evidence.case.reference_seed("shuffle")
    unfiltered = shelf.shared(score.RAW, warc, lambda: shelf.texts(raw(warc)))
    shuffled = shelf.shared(
        score.SHUFFLED, warc + seed.hex(), lambda: shuffled_words(shelf.texts(evidence.canonical), seed)
    )
    reference = plan.jobs(score.CANONICAL, canonical, rules.canonical_seeds)
    reference += plan.jobs(score.RAW, unfiltered, rules.canary_seeds)
    reference += plan.jobs(score.SHUFFLED, shuffled, rules.canary_seeds)
    own = plan.jobs(score.MINER, mine, rules.miner_seeds, evidence.case.hotkey)
    count, total = itertools.count(1), len(reference) + len(own)
    arms = workers.run(reference, lambda arm: finished(arm, next(count), total))
    verdict = score.canaries(arms, evidence.rules)
    if verdict.outcome == "pass":
        arms += workers.run(own, lambda arm: finished(arm, next(count), total))
    return Comparison(tuple(arms), verdict, yielded)


class _Shelf:
    """Token files in `folder`: of rows that quote no evaluation text."""

    def __init__(self, evidence: Evidence, folder: Path) -> None:
        self._evidence, self._folder = evidence, folder

    def texts(self, rows: Rows) -> list[str]:
        leaked, at_least = held_out(self._evidence.pack), self._evidence.rules.gates.leaked_ngrams
        return [text for text in rows.texts() if not quotes(text, leaked, at_least)]

    def keep(self, texts: Sequence[str]) -> Text:
        documents = tokenize(texts, self._evidence.rules.proxy.vocab_size)
        content = hashlib.sha256(b"".join(ids.tobytes() + b"\xff\xff\xff\xff" for ids in documents)).hexdigest()
        path = token_file(self._folder, content)
        if not path.exists():
            save_documents(path, documents)
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


def token_file(folder: Path, content: str) -> Path:
    return folder / f"{content}.tokens"


def shuffled_words(texts: Sequence[str], seed: bytes) -> list[str]:
    """Each text with its words in drawn order: the worst canary, with the very words of canonical work."""
    result = []
    for index, text in enumerate(texts):
        words = text.split()
        order = draw.sample(draw.seed_of(seed.hex(), str(index)), len(words), len(words))
        result.append(" ".join(words[i] for i in order))
    return result


class _Plan:
    """Makes jobs, with their token files and the evaluation set written to `folder`."""

    def __init__(self, evidence: Evidence, folder: Path, budget_tokens: int) -> None:
        self._case, self._rules = evidence.case, evidence.rules.proxy
        self._folder, self._budget = folder, budget_tokens
        drawn = evidence.pack.draw(evidence.case.seed("evaluation"), self._rules.documents_per_domain)
        identity = hashlib.sha256(f"{evidence.pack.hash} {self._rules}".encode() + evidence.case.seed("evaluation"))
        self._evaluation = folder / f"{identity.hexdigest()}.eval.json"
        if not self._evaluation.exists():
            EvalSet.of(drawn, self._rules).save(self._evaluation)

    def jobs(self, name: str, text: Text, seeds: int, owner: str = "") -> list[Job]:
        """One job a seed. Seeds differ between arms, tasks and hotkeys; arms that nobody owns are shared by the task's
        cases, which only measure them anew."""
        seed_of = self._case.seed if owner else self._case.reference_seed
        result = []
        for number in range(seeds):
            seed = seed_of("arm", name, owner, str(number)).hex()
            trained = hashlib.sha256(f"{seed} {self._budget} {text.content} {self._rules}".encode()).hexdigest()
            measured = hashlib.sha256(f"{trained} {self._evaluation.name}".encode()).hexdigest()
            result.append(
                Job(
                    name=name,
                    seed=seed,
                    budget_tokens=self._budget,
                    documents=token_file(self._folder, text.content),
                    evaluation=self._evaluation,
                    rules=self._rules,
                    model=self._folder / f"{trained}.safetensors",
                    result=self._folder / f"{measured}.arm.json",
                )
            )
        return result
