"""Arms to effect, yield, time factor and units. Pure: no clock, network, disk or torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from athena import draw
from athena.judge.proxy.measured import Measured
from athena.judge.rules import PayRules, Rules
from athena.protocol import MAX_BITS_PER_BYTE, Arm, Effect, Verdict

NAMES = CANONICAL, MINER, RAW, SHUFFLED = "canonical", "miner", "canary-raw", "canary-shuffled"
TWO_SIDED_95 = 1.96
"""Standard errors to each side of a 95 % interval."""


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


def effect(measured: Sequence[Measured], rules: PayRules, seed: bytes) -> Effect:
    """The miner's effect with its document errors, which `seed` draws. The order of the arms does not matter.

    At least one arm of the miner and one canonical one; others are left aside.
    """
    miner, canonical = (
        sorted((m for m in measured if m.arm.name == name), key=lambda m: m.arm.seed) for name in (MINER, CANONICAL)
    )
    errors = document_errors(miner, canonical, rules.bootstrap_draws, seed)
    return effect_of_arms([m.arm for m in measured], errors, rules)


def effect_of_arms(arms: Sequence[Arm], errors: Mapping[str, float], rules: PayRules) -> Effect:
    """δ = mean over domains of clip(bpb_canonical − bpb_miner, ±clip), with a 95 % interval from σ_B and the seeds.

    Of what a score sheet holds, so that anyone can do it again. `by_domain` are the differences before clipping.
    """
    miner, canonical = arms_named(arms, MINER), arms_named(arms, CANONICAL)
    theirs, ours = mean_by_domain(miner), mean_by_domain(canonical)
    by_domain = {domain: ours[domain] - theirs[domain] for domain in ours}
    delta = mean({domain: clip(value, -rules.clip, rules.clip) for domain, value in by_domain.items()})
    margin = TWO_SIDED_95 * spread(rules.sigma_seed, len(miner), len(canonical))
    return Effect(mean=delta, low=delta - margin, high=delta + margin, by_domain=by_domain, errors=dict(errors))


def document_errors(
    miner: Sequence[Measured], canonical: Sequence[Measured], draws: int, seed: bytes
) -> dict[str, float]:
    """Standard error of each domain's difference over the choice of its documents, in bits per byte.

    A cluster bootstrap: whole documents, which hold tokens that go together, are drawn with replacement as often as
    the domain has some; the spread of the `draws` differences, each a sum of bits over a sum of bytes, is the error.
    A domain of one document shows none.
    """
    errors = {}
    for domain, sizes in sorted(canonical[0].document_bytes.items()):
        gained = _mean_bits(canonical, domain) - _mean_bits(miner, domain)
        picked = resamples(draw.seed_of(seed.hex(), "documents", domain), len(sizes), draws)
        resampled = gained[picked].sum(axis=1) / np.array(sizes)[picked].sum(axis=1)
        errors[domain] = min(float(resampled.std(ddof=1)), MAX_BITS_PER_BYTE)
    return errors


def resamples(seed: bytes, count: int, draws: int) -> NDArray[np.uint64]:
    """[draws, count] indices below `count`, with replacement. Off by less than count · 2⁻⁶⁴ from uniform."""
    stream = hashlib.shake_256(seed).digest(8 * draws * count)
    return (np.frombuffer(stream, dtype="<u8") % np.uint64(count)).reshape(draws, count)


def _mean_bits(measured: Sequence[Measured], domain: str) -> NDArray[np.float64]:
    """Bits of each document of a domain, averaged over seeds."""
    bits: NDArray[np.float64] = np.mean([m.document_bits[domain] for m in measured], axis=0, dtype=np.float64)
    return bits


def domain_errors(found: Effect, rules: Rules) -> dict[str, float]:
    """Standard error of each domain's difference, of the seeds (σ_domain) and of the drawn documents together."""
    seeds = spread(rules.pay.sigma_domain, rules.proxy.miner_seeds, rules.proxy.canonical_seeds)
    return {domain: math.hypot(seeds, found.errors.get(domain, 0.0)) for domain in found.by_domain}


def harmed(found: Effect, rules: Rules) -> list[str]:
    """Domains that are significantly worse than canonical: one-sided, `harm_level` over all of them (Bonferroni)."""
    if not found.by_domain:
        return []
    bound = NormalDist().inv_cdf(1 - rules.pay.harm_level / len(found.by_domain))
    errors = domain_errors(found, rules)
    return sorted(domain for domain, value in found.by_domain.items() if value < -bound * errors[domain])


def credited(found: Effect, rules: Rules) -> float:
    """The δ that pay uses: no bonus where a domain is harmed."""
    return min(found.mean, 0.0) if harmed(found, rules) else found.mean


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
