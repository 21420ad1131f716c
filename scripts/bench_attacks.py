"""Plays every attack of `scripts.attacks.table` in simulated networks, and prints what it earned and who caught it.

    python -m scripts.bench_attacks [--quick] [--only NAME] [--seeds 3] [--jobs 2]

A network has a real dev chain, task server, hub and validator, two honest miners and a slot for the attacker; all
networks of a seed share one made-up crawl, and proxy runs on the same text are made once. An attack's payoff is the
mean over seeds of what it earned over what an honest miner in the same slot earned. Then the gates that alone stand
between an attack and its pay are taken off the validator's list, one at a time: the attack must pay again.

Prints JSON lines. The last one is about the targets: payoff at most 0.05, honest miners' loss at most 0.01.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from scripts.attacks.network import ROUNDS
from scripts.attacks.payoff import MAX_HONEST_LOSS, MAX_PAYOFF, Controls, caught_by, honest_loss, mean, payoff
from scripts.attacks.play import HONEST, IDLE, Attack, Played, play, without
from scripts.attacks.table import ATTACKS, BEYOND_THE_JUDGE, QUICK
from scripts.attacks.world import World, build_world

SCRIPTS = {attack.name: attack for attack in (IDLE, HONEST, *ATTACKS)}


@lru_cache
def world_of(folder: Path, seed: int) -> World:
    return World(folder / str(seed), seed)


def make_world(folder: Path, seed: int) -> None:
    build_world(folder / str(seed), seed)


def play_by_name(folder: Path, seed: int, name: str, removed_gate: str | None, rounds: int) -> Played:
    """`play` for another process, which cannot be handed functions."""
    world = world_of(folder, seed)
    if removed_gate is None:
        return play(world, SCRIPTS[name], rounds=rounds)
    return play(world, SCRIPTS[name], without(removed_gate), rounds)


@dataclass(frozen=True)
class Line:
    """What is printed about one attack. Its sheets of all seeds name the gates in `caught_by`."""

    attack: str
    row: int
    kind: str
    does: str
    payoff: float
    payoff_by_seed: dict[int, float]
    honest_loss: float
    honest_outcomes: tuple[str, ...]
    caught_by: tuple[str, ...]
    as_expected: bool
    cpu_seconds: float


@dataclass(frozen=True)
class Unguarded:
    """What is printed about an attack on a validator that lacks one gate."""

    without: str
    attack: str
    payoff: float
    profitable: bool


class Bench:
    """Networks of some seeds, played by a pool of processes."""

    def __init__(self, folder: Path, seeds: Sequence[int], rounds: int, pool: ProcessPoolExecutor) -> None:
        self._folder, self._seeds, self._rounds, self._pool = folder, seeds, rounds, pool
        self.cpu_seconds = 0.0
        for made in [pool.submit(make_world, folder, seed) for seed in seeds]:
            made.result()
        honest = self._start(HONEST)  # first, so that what all networks share is made once
        fair = [self._finish(future) for future in honest]
        idle = [self._finish(future) for future in self._start(IDLE)]
        self.controls = [Controls(*pair) for pair in zip(fair, idle, strict=True)]

    def run(self, attacks: Sequence[Attack]) -> list[Line]:
        """A line for each attack, printed as it comes."""
        started = [(attack, self._start(attack)) for attack in attacks]
        lines = []
        for attack, futures in started:
            lines.append(self._line(attack, futures))
            _print(asdict(lines[-1]))
        return lines

    def run_without_gates(self, attacks: Sequence[Attack]) -> list[Unguarded]:
        """A line for each gate that alone stops an attack, with what the attack earns once it is gone."""
        pairs = [(attack, gate) for attack in attacks for gate in attack.alone]
        started = [(attack, gate, self._start(attack, gate, self._seeds[:1])) for attack, gate in pairs]
        lines = []
        for attack, gate, [future] in started:
            earned = payoff(attack, self._finish(future), self.controls[0])
            lines.append(Unguarded(gate, attack.name, round(earned, 4), earned > MAX_PAYOFF))
            _print(asdict(lines[-1]))
        return lines

    def _line(self, attack: Attack, futures: Sequence[Future[Played]]) -> Line:
        played = [self._finish(future) for future in futures]
        pairs = list(zip(played, self.controls, strict=True))
        payoffs = [payoff(attack, *pair) for pair in pairs]
        caught = tuple(sorted({caught_by(attack, one) for one in played}))
        return Line(
            attack=attack.name,
            row=attack.row,
            kind=attack.kind,
            does=attack.does,
            payoff=round(mean(payoffs), 4),
            payoff_by_seed={seed: round(value, 4) for seed, value in zip(self._seeds, payoffs, strict=True)},
            honest_loss=round(mean([honest_loss(attack, *pair) for pair in pairs]), 4),
            honest_outcomes=tuple(sorted({outcome for one in played for outcome in one.honest_outcomes})),
            caught_by=caught,
            as_expected=set(caught) <= set(attack.caught_by),
            cpu_seconds=round(sum(one.cpu_seconds for one in played), 1),
        )

    def _start(
        self, attack: Attack, removed_gate: str | None = None, seeds: Sequence[int] | None = None
    ) -> list[Future[Played]]:
        return [
            self._pool.submit(play_by_name, self._folder, seed, attack.name, removed_gate, self._rounds)
            for seed in (self._seeds if seeds is None else seeds)
        ]

    def _finish(self, future: Future[Played]) -> Played:
        played = future.result()
        self.cpu_seconds += played.cpu_seconds
        return played


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one of each sort, one seed, one task a miner")
    parser.add_argument("--only", action="append", metavar="NAME", help="this attack; may be given several times")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="networks side by side, one core each")
    options = parser.parse_args()
    names = options.only or (QUICK if options.quick else [attack.name for attack in ATTACKS])
    attacks = [SCRIPTS[name] for name in names]
    seeds = range(1 if options.quick else options.seeds)
    with tempfile.TemporaryDirectory(prefix="athena-attacks-") as name:
        os.environ["BITTENSOR_RUNTIME_CACHE_DIR"] = str(Path(name) / "runtime-cache")
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
            bench = Bench(Path(name), seeds, 1 if options.quick else ROUNDS, pool)
            lines = bench.run(attacks)
            shown = bench.run_without_gates(attacks)
    _print({"beyond_the_judge": BEYOND_THE_JUDGE, "cpu_seconds": round(bench.cpu_seconds)})
    max_payoff, loss = max(line.payoff for line in lines), max(line.honest_loss for line in lines)
    necessary = {line.without for line in shown if line.profitable}
    _print(
        {
            "attacks": len(lines),
            "max_payoff": max_payoff,
            "honest_loss": loss,
            "defences_shown_necessary": len(necessary),
        }
    )
    held = max_payoff <= MAX_PAYOFF and loss <= MAX_HONEST_LOSS
    return 0 if held and all(line.profitable for line in shown) else 1


def _print(line: Mapping[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
