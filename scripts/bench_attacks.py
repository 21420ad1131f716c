"""Plays every attack of `scripts.attacks.table` in simulated networks, and prints what it earned and who caught it.

    python -m scripts.bench_attacks [--quick] [--only NAME] [--seeds 3] [--jobs 2] [--work FOLDER]

A network has a real dev chain, task server, hub and validator, two honest miners and a slot for the attacker; all
networks of a seed share one made-up crawl, and proxy runs on the same text are made once. An attack's payoff is the
mean over seeds of what it earned over what an honest miner in the same slot earned. Then the gates that alone stand
between an attack and its pay are taken off the validator's list, one at a time: the attack must pay again.

What was played is kept in --work, so that an interrupted run goes on, until a run ends in which no network died.

Prints JSON lines, one for each attack as it ends; one that died says why. The last line is about the targets: payoff at
most 0.05, honest miners' loss at most 0.01. Exits with 1 where they are missed, a network died, an attack was caught
by another defence than the table says, or does not pay without its gate.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.attacks.network import ROUNDS
from scripts.attacks.payoff import MAX_HONEST_LOSS, MAX_PAYOFF, Controls, caught_by, honest_loss, mean, payoff
from scripts.attacks.play import HONEST, IDLE, Attack, Played
from scripts.attacks.runs import SCRIPTS, Died, Result, Run, Runs
from scripts.attacks.table import ATTACKS, BEYOND_THE_JUDGE, QUICK

WORK = Path(__file__).parents[1] / "build" / "bench-attacks"


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


@dataclass(frozen=True)
class Dead:
    """What is printed about an attack of which a network came to no end."""

    attack: str
    without: str | None
    died: str


class Bench:
    """Networks of some seeds. Raises RuntimeError where those without an attack die: nothing can be compared then."""

    def __init__(self, runs: Runs, seeds: Sequence[int], rounds: int) -> None:
        self._runs, self._seeds, self._rounds = runs, seeds, rounds
        for made in [runs.build(seed) for seed in seeds]:
            if (died := made.result()) is not None:
                raise RuntimeError(f"no world to play in: {died.reason}")
        honest = self._control(HONEST)  # first, so that what all networks share is made once
        self._controls = [Controls(*pair) for pair in zip(honest, self._control(IDLE), strict=True)]

    def run(self, attacks: Sequence[Attack]) -> Iterator[Line | Unguarded | Dead]:
        """A line for each attack, then one for each gate that alone stops one."""
        guarded = [(attack, None, self._start(attack, self._seeds)) for attack in attacks]
        alone = [(attack, gate) for attack in attacks for gate in attack.alone]
        unguarded = [(attack, gate, self._start(attack, self._seeds[:1], gate)) for attack, gate in alone]
        for attack, gate, futures in (*guarded, *unguarded):
            played = _ended(futures)
            if isinstance(played, Died):
                yield Dead(attack.name, gate, played.reason)
            elif gate is None:
                yield self._line(attack, played)
            else:
                earned = payoff(attack, played[0], self._controls[0])
                yield Unguarded(gate, attack.name, round(earned, 4), earned > MAX_PAYOFF)

    def _line(self, attack: Attack, played: Sequence[Played]) -> Line:
        pairs = list(zip(played, self._controls, strict=True))
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

    def _control(self, attack: Attack) -> list[Played]:
        played = _ended(self._start(attack, self._seeds))
        if isinstance(played, Died):
            raise RuntimeError(f"the network of {attack.name!r} died: {played.reason}")
        return played

    def _start(self, attack: Attack, seeds: Sequence[int], removed_gate: str | None = None) -> list[Future[Result]]:
        return [self._runs.start(Run(attack.name, seed, self._rounds, removed_gate)) for seed in seeds]


def _ended(futures: Sequence[Future[Result]]) -> list[Played] | Died:
    """What all networks of an attack found, or what the first of them died of."""
    results = [future.result() for future in futures]
    played = [result for result in results if isinstance(result, Played)]
    return played if len(played) == len(results) else next(r for r in results if isinstance(r, Died))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four attacks, one seed, one task a miner")
    parser.add_argument("--only", action="append", metavar="NAME", choices=sorted(SCRIPTS), help="may be repeated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="networks side by side, one core each")
    parser.add_argument("--work", type=Path, default=WORK, help="what was played, to go on from")
    options = parser.parse_args()
    names = options.only or (QUICK if options.quick else [attack.name for attack in ATTACKS])
    seeds, rounds = (range(1), 1) if options.quick else (range(options.seeds), ROUNDS)
    found: list[Line | Unguarded | Dead] = []
    with Runs(options.work, options.jobs) as runs:
        for line in Bench(runs, seeds, rounds).run([SCRIPTS[name] for name in names]):
            _print(asdict(line))
            found.append(line)
    died = [line for line in found if isinstance(line, Dead)]
    if not died:
        runs.forget()
    lines = [line for line in found if isinstance(line, Line)]
    shown = [line for line in found if isinstance(line, Unguarded)]
    max_payoff = max((line.payoff for line in lines), default=0.0)
    loss = max((line.honest_loss for line in lines), default=0.0)
    _print({"beyond_the_judge": BEYOND_THE_JUDGE, "died": len(died)})
    _print(
        {
            "attacks": len(lines),
            "max_payoff": max_payoff,
            "honest_loss": loss,
            "defences_shown_necessary": len({line.without for line in shown if line.profitable}),
        }
    )
    held = max_payoff <= MAX_PAYOFF and loss <= MAX_HONEST_LOSS and all(line.as_expected for line in lines)
    return 0 if held and not died and all(line.profitable for line in shown) else 1


def _print(line: Mapping[str, object]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
