"""Arms to effect, yield, time factor and units. Pure: no clock, network, disk or torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from athena.judge.rules import PayRules, Rules
from athena.protocol import Arm, Effect, Verdict

CANONICAL, MINER, RAW, SHUFFLED = "canonical", "miner", "canary-raw", "canary-shuffled"
_TWO_SIDED_95 = 1.96


def arms_named(arms: Sequence[Arm], name: str) -> list[Arm]:
    return [arm for arm in arms if arm.name == name]


def mean_by_domain(arms: Sequence[Arm]) -> dict[str, float]:
    """Bits per byte of each domain, averaged over seeds. All arms must have the same domains."""
    domains = sorted(arms[0].bits_per_byte)
    return {domain: math.fsum(arm.bits_per_byte[domain] for arm in arms) / len(arms) for domain in domains}


def mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / len(values)


def clip(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))


def spread(sigma: float, first: int, second: int) -> float:
    """Standard error of the difference of two means over `first` and `second` seeds."""
    return sigma * math.sqrt(1 / first + 1 / second)


def effect(arms: Sequence[Arm], rules: PayRules) -> Effect:
    """δ = mean over domains of clip(bpb_canonical − bpb_miner, ±clip), with a 95 % interval from σ_B and the seeds.

    `by_domain` holds the differences before clipping. Order of the arms does not matter.
    """
    miner, canonical = arms_named(arms, MINER), arms_named(arms, CANONICAL)
    theirs, ours = mean_by_domain(miner), mean_by_domain(canonical)
    by_domain = {domain: ours[domain] - theirs[domain] for domain in ours}
    delta = mean({domain: clip(value, -rules.clip, rules.clip) for domain, value in by_domain.items()})
    margin = _TWO_SIDED_95 * spread(rules.sigma_seed, len(miner), len(canonical))
    return Effect(mean=delta, low=delta - margin, high=delta + margin, by_domain=by_domain)


def credited(found: Effect, rules: Rules) -> float:
    """The δ that pay uses: no bonus if any domain is significantly worse (5 %, Bonferroni over the domains)."""
    seeds = rules.proxy.miner_seeds, rules.proxy.canonical_seeds
    bound = _normal_quantile(1 - 0.05 / max(1, len(found.by_domain)))
    worst = min(found.by_domain.values(), default=0.0)
    harmed = worst < -bound * spread(rules.pay.sigma_domain, *seeds)
    return min(found.mean, 0.0) if harmed else found.mean


def _normal_quantile(probability: float) -> float:
    """Inverse of the standard normal distribution function, by bisection of math.erf (error below 1e-9)."""
    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        if (1 + math.erf(middle / math.sqrt(2))) / 2 < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def canaries(arms: Sequence[Arm], rules: Rules) -> Verdict:
    """Whether this validator's proxy ranks arms of known order rightly: canonical first, raw and shuffled words behind.

    Abstains (outcome none) when raw text beats canonical by more than chance, or canonical does not beat its own words
    in shuffled order by more than chance. Raw and shuffled are not compared with each other: raw text may be clean, or
    all in another language.
    """
    raw, shuffled = (mean(mean_by_domain(arms_named(arms, name))) for name in (RAW, SHUFFLED))
    ours = mean(mean_by_domain(arms_named(arms, CANONICAL)))
    seeds = rules.proxy.canary_seeds, rules.proxy.canonical_seeds
    chance = rules.pay.confidence * spread(rules.pay.sigma_seed, *seeds)
    evidence: dict[str, JsonValue] = {"canonical": ours, "raw": raw, "shuffled": shuffled, "chance": chance}
    if raw < ours - chance or shuffled < ours + chance:
        reason = "the proxy ranks arms of known order wrongly, so it measures nothing here"
        return Verdict(gate="canaries", outcome="none", reason=reason, evidence=evidence)
    return Verdict(gate="canaries", outcome="pass", evidence=evidence)


def yield_ratio(unique_tokens: int, canonical_tokens: int) -> float:
    """y = min(1, unique tokens / canonical tokens) of the drawn WARC file; 1 where canonical finds nothing."""
    return min(1.0, unique_tokens / canonical_tokens) if canonical_tokens else 1.0


def time_factor(elapsed_blocks: int, median_blocks: int, limit_blocks: int, rules: PayRules) -> float:
    """τ: 1 up to the median time from lease to commitment, falling to 1 − max_time_penalty at the deadline."""
    room = limit_blocks - median_blocks
    late = clip((elapsed_blocks - median_blocks) / room, 0.0, 1.0) if room > 0 else float(elapsed_blocks > limit_blocks)
    return 1.0 - rules.max_time_penalty * late


def units(num_warcs: int, yielded: float, time: float) -> float:
    """u = n_warcs · y · τ, for a dataset that passed every gate."""
    return num_warcs * yielded * time
