"""Simulates what the pay formula pays under the measured noise: honest and better work, rings of keys, cherry-picking.

    python scripts/bench_pay.py [--rules 1] [--draws 2000]

Each draw gives every task a true effect and the noise of the proxies by domain, as the constants say, and
asks the product's own `judge.score` what is credited, and `judge.weights` what the keys earn. Pay is per unit of work,
relative to canonical work that is measured without noise. Prints JSON lines; the last one holds what the targets are
about.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from athena.judge.rules import Rules, rules_of
from athena.judge.score import credited, spread
from athena.judge.weights import Judged, abandoned, account, pay
from athena.protocol import Effect

TASKS = 10
RING_TASKS = 60
RING_KEYS = (1, 2, 3, 5, 10, 20, 30, 60)
HONEST_MINERS = 20
BETTER = 0.01  # bits per byte
ABANDONED_SHARE = 0.5
DOMAINS = 8


class Network:
    """Draws of observed effects, from one generator so that a seed tells everything.

    A seed moves all domains of an arm together and each alone, so that one domain spreads by σ_domain and the mean of
    all by σ_B.
    """

    def __init__(self, rules: Rules, seed: int) -> None:
        pay, proxies = rules.pay, rules.proxy
        self.rules = rules
        self._random = np.random.default_rng(seed)
        alone = max(0.0, (pay.sigma_domain**2 - pay.sigma_seed**2) * DOMAINS / (DOMAINS - 1))
        together = max(0.0, pay.sigma_seed**2 - alone / DOMAINS)
        self._alone, self._together = (
            spread(math.sqrt(part), proxies.miner_seeds, proxies.canonical_seeds) for part in (alone, together)
        )

    def effects(self, mean: float, count: int) -> list[float]:
        """Credited effects of `count` tasks of a recipe whose true effect is `mean` on average over tasks."""
        together = math.hypot(self.rules.pay.sigma_task, self._together)
        observed = self._random.normal(mean, together, (count, 1)) + self._random.normal(
            0, self._alone, (count, DOMAINS)
        )
        return [self._credited(row) for row in observed]

    def _credited(self, observed: NDArray[np.float64]) -> float:
        limit = self.rules.pay.clip
        mean = float(observed.clip(-limit, limit).mean())
        by_domain = {f"domain-{number}": float(value) for number, value in enumerate(observed)}
        return credited(Effect(mean=mean, low=mean, high=mean, by_domain=by_domain), self.rules)

    def multiplier(self, entries: Sequence[Judged]) -> float:
        return account(entries, self.rules, now_block=0).multiplier


def passed(effects: Sequence[float]) -> list[Judged]:
    return [Judged(f"{number:032x}", 0, "pass", units=1.0, effect=effect) for number, effect in enumerate(effects)]


def multipliers(network: Network, mean: float, draws: int) -> list[float]:
    """Of keys with TASKS tasks each."""
    return [network.multiplier(passed(network.effects(mean, TASKS))) for _ in range(draws)]


def ring_shares(network: Network, mean: float, draws: int) -> dict[int, float]:
    """Share of pay over share of work of one operator's RING_TASKS tasks, by the number of keys that they lie on.

    The same tasks with the same noise are split each way, so that the numbers of keys compare pairwise.
    """
    work = RING_TASKS / (RING_TASKS + HONEST_MINERS * TASKS)
    shares = dict.fromkeys(RING_KEYS, 0.0)
    for _ in range(draws):
        honest = {f"honest-{number}": passed(network.effects(0.0, TASKS)) for number in range(HONEST_MINERS)}
        own = passed(network.effects(mean, RING_TASKS))
        for keys in RING_KEYS:
            ring = {f"ring-{number}": own[number::keys] for number in range(keys)}
            weights = pay({**honest, **ring}, network.rules, now_block=0).weights
            shares[keys] += math.fsum(weights.get(key, 0.0) for key in ring) / work / draws
    return shares


def half_leases_pay(network: Network, draws: int) -> float:
    """What a miner earns that knows the observed effects beforehand and submits the best half, over submitting all."""
    whole = half = 0.0
    for _ in range(draws):
        effects = sorted(network.effects(0.0, TASKS), reverse=True)
        kept = passed(effects[: round(TASKS * (1 - ABANDONED_SHARE))])
        given_up = [abandoned(f"{number:032x}", 0, network.rules) for number in range(len(kept), TASKS)]
        whole += account(passed(effects), network.rules, now_block=0).weight
        half += account([*kept, *given_up], network.rules, now_block=0).weight
    return half / whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", default="1", help="rule version whose constants hold")
    parser.add_argument("--draws", type=int, default=2000, help="simulated networks")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    network = Network(rules_of(options.rules), options.seed)
    null, better = (multipliers(network, mean, options.draws) for mean in (0.0, BETTER))
    print(json.dumps({"null_quantiles": _quantiles(null), "plus_01_quantiles": _quantiles(better)}))
    rings = {mean: ring_shares(network, mean, max(1, options.draws // 20)) for mean in (0.0, BETTER)}
    for mean, shares in rings.items():
        print(json.dumps({"ring_effect": mean, "share_by_keys": {n: round(s, 4) for n, s in shares.items()}}))
    result = {
        "canonical_unit_pay": round(float(np.mean(null)), 4),
        "plus_01_pay": round(float(np.mean(better)), 4),
        "ring_share_max": round(max(rings[0.0].values()), 4),
        "half_leases_pay": round(half_leases_pay(network, options.draws), 4),
        "null_p99": round(float(np.quantile(null, 0.99)), 4),
    }
    print(json.dumps(result))


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": round(float(np.percentile(values, percent)), 4) for percent in (1, 5, 50, 95, 99)}


if __name__ == "__main__":
    main()
