"""The suites beside the ruler, by name, and one evaluation of all that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from athena.evaluate import evaluate
from athena.evaluation import CHEAP_SUITES, Evaluation, SuiteResult, known_suites
from athena.evaluations.bias import bias
from athena.evaluations.cloze import cloze
from athena.evaluations.generation import generation
from athena.evaluations.lm_eval import local_tasks, standard_tasks
from athena.evaluations.memorisation import memorisation
from athena.evaluations.speed import speed
from athena.evaluations.subject import Subject
from athena.evaluations.toxicity import toxicity

Suite: TypeAlias = Callable[[Subject], SuiteResult]
_RUN: Mapping[str, Suite] = {
    "cloze": cloze,
    "bias": bias,
    "generation": generation,
    "toxicity": toxicity,
    "memorisation": memorisation,
    "speed": speed,
    "lm-eval": local_tasks,
    "standard": standard_tasks,
}


def measure(subject: Subject, suites: Iterable[str] = CHEAP_SUITES) -> Evaluation:
    """The ruler and these suites. Raises BadInput where the model is broken, or a suite is not known."""
    *_, last = measuring(subject, suites)
    return last


def measuring(subject: Subject, suites: Iterable[str], begun: Evaluation | None = None) -> Iterator[Evaluation]:
    """The evaluation as it grows: after the ruler, then after each suite.

    `begun` is what an earlier call gave last for the same model and pack: what it holds is not measured again, but for
    suites that did not run then.
    """
    names = known_suites(suites)
    evaluation = begun if begun is not None else ruled(subject)
    yield evaluation
    for name in names:
        held = evaluation.suites.get(name)
        if held is None or held.not_run is not None:
            evaluation = evaluation.with_suites({name: _RUN[name](subject)})
            yield evaluation


def ruled(subject: Subject) -> Evaluation:
    """The ruler's evaluation, with the digest of the model's files where there are some."""
    found = evaluate(
        subject.model, subject.tokenizer, subject.pack, per_domain=subject.per_domain, window=subject.window
    )
    return found if subject.files is None else found.model_copy(update={"model": subject.files.digest})
