"""How noisy a rule version's proxy is, from arms of many seeds on many tasks: the σ of the pay formula. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from athena.judge import score
from athena.judge.proxy.measured import Measured
from athena.judge.rules import Rules
from athena.protocol import Arm, Hex64, Noun, RuleVersion

HONEST = (score.CANONICAL, score.MINER)
"""Sets whose seeds tell the noise: raw text is noisier, as each seed meets another part of its rubbish."""


class Contrast(Noun):
    """How one set of texts stands to canonical, bits per byte, positive is better.

    `effects` by task, unclipped; `sigma_seed` is the spread of an arm over its seeds.
    """

    name: str
    effects: tuple[float, ...]
    sigma_seed: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.effects)


class Calibration(Noun):
    """What was measured, in bits per byte.

    `sigma_seed`, `sigma_domain` and `sigma_task` are the constants of the same names, `seed_freedom` and
    `task_freedom` the degrees of freedom that they rest on: an estimate's own standard error is about
    σ / √(2 · freedom). `by_domain` is what `sigma_domain` is the root mean square of, `document_error` what the drawn
    documents add to a domain's difference (root mean square). `abstained` counts the tasks whose canaries would have
    made a validator abstain.
    """

    rule_version: RuleVersion
    eval_pack: Hex64
    tasks: int
    sigma_seed: float
    sigma_domain: float
    by_domain: dict[str, float]
    seed_freedom: int
    sigma_task: float
    task_freedom: int
    document_error: float
    contrasts: tuple[Contrast, ...]
    abstained: int

    @property
    def constants(self) -> str:
        """What to write into the version's PayRules: rounded up to two digits, so that the noise is not understated."""
        names = ("sigma_seed", "sigma_domain", "sigma_task")
        return ", ".join(f"{name}={rounded_up(getattr(self, name)):g}" for name in names)


def calibrate(tasks: Sequence[Sequence[Measured]], rules: Rules, eval_pack: str) -> Calibration:
    """The variance components of arms, at least two of each name in each task, by the methods of moments.

    Of every task: canonical text, that of one honest recipe as the miner's, raw text, and shuffled words. Where tasks
    have documents of their own, their choice is part of σ_task, as it is of a miner's tasks.
    """
    arms = [{name: score.arms_named([m.arm for m in task], name) for name in score.NAMES} for task in tasks]
    honest = [task[name] for task in arms for name in HONEST]
    sigma_seed = pooled(map(means, honest))
    domains = sorted({domain for group in honest for domain in group[0].bits_per_byte})
    by_domain = {domain: pooled(_of_domain(group, domain) for group in honest) for domain in domains}
    contrasts = tuple(
        Contrast(
            name=name,
            effects=tuple(_mean(task[score.CANONICAL]) - _mean(task[name]) for task in arms),
            sigma_seed=pooled(means(task[name]) for task in arms),
        )
        for name in score.NAMES
        if name != score.CANONICAL
    )
    effects = next(contrast.effects for contrast in contrasts if contrast.name == score.MINER)
    of_seeds = [score.spread(sigma_seed, *(len(task[name]) for name in HONEST)) ** 2 for task in arms]
    over_tasks = statistics.variance(effects) - statistics.fmean(of_seeds) if len(tasks) > 1 else 0.0
    errors = [error for task in tasks for error in _document_errors(task, rules)]
    return Calibration(
        rule_version=rules.version,
        eval_pack=eval_pack,
        tasks=len(tasks),
        sigma_seed=sigma_seed,
        sigma_domain=math.sqrt(statistics.fmean(sigma**2 for sigma in by_domain.values())),
        by_domain=by_domain,
        seed_freedom=sum(len(group) - 1 for group in honest),
        sigma_task=math.sqrt(max(0.0, over_tasks)),
        task_freedom=len(tasks) - 1,
        document_error=math.sqrt(statistics.fmean(error**2 for error in errors)),
        contrasts=contrasts,
        abstained=sum(_abstains(task, rules) for task in arms),
    )


def means(arms: Sequence[Arm]) -> list[float]:
    """Each arm's mean over domains."""
    return [score.mean(arm.bits_per_byte) for arm in arms]


def pooled(groups: Iterable[Sequence[float]]) -> float:
    """Standard deviation within groups, whatever their means: the root of the pooled unbiased variance."""
    kept = [group for group in groups if len(group) > 1]
    squares = math.fsum(statistics.variance(group) * (len(group) - 1) for group in kept)
    return math.sqrt(squares / sum(len(group) - 1 for group in kept))


def rounded_up(sigma: float) -> float:
    """The next number of two significant digits."""
    if sigma <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(sigma)) - 1)
    return math.ceil(round(sigma / unit, 9)) * unit


def _mean(arms: Sequence[Arm]) -> float:
    return statistics.fmean(means(arms))


def _of_domain(arms: Sequence[Arm], domain: str) -> list[float]:
    return [arm.bits_per_byte[domain] for arm in arms]


def _document_errors(task: Sequence[Measured], rules: Rules) -> Iterable[float]:
    """By domain, of a comparison with as many seeds as the rules say."""
    miner, canonical = ([m for m in task if m.arm.name == name] for name in (score.MINER, score.CANONICAL))
    proxy = rules.proxy
    return score.document_errors(
        miner[: proxy.miner_seeds], canonical[: proxy.canonical_seeds], rules.pay.bootstrap_draws, bytes(32)
    ).values()


def _abstains(arms: Mapping[str, Sequence[Arm]], rules: Rules) -> bool:
    """Whether canaries of as many seeds as the rules say would be out of order."""
    proxy = rules.proxy
    drawn = [*arms[score.CANONICAL][: proxy.canonical_seeds]]
    for name in (score.RAW, score.SHUFFLED):
        drawn += arms[name][: proxy.canary_seeds]
    return score.canaries(drawn, rules).outcome == "none"
