"""A script for the contested slot, played in a network; what everyone earned, and who caught what."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from athena.chain.client import Neuron
from athena.judge.assess import GATES, Gates
from athena.protocol import Lease, ScoreSheet
from scripts.attacks.network import ALICE, BOB, ROUNDS, Network, Player
from scripts.attacks.world import SLOT, World

Kind = Literal["data", "commitment", "sampling", "resource", "sybil"]
Act = Callable[[Player, Lease], None]
Begin = Callable[[Player], None]
Finish = Callable[[Network], Sequence[Neuron]]


def claim_all(slot: Player) -> None:
    slot.claim()


def neurons_now(network: Network) -> Sequence[Neuron]:
    return network.validator.neurons()


@dataclass(frozen=True)
class Attack:
    """What the slot does instead of honest work, and who is to catch it.

    `row` is its place in the list of known attacks on such networks; several may share one. `caught_by` names gates, or
    parts of the network that are no gates: "reading" leaves a commitment out, "ledger" gives nothing to work on,
    "yield" and "proxy" pay next to nothing, "pay" gives the trick no more than the work is worth. `alone` are the gates
    without each of which it pays again. The `keys` earn. Where the `reference` is "honest", the slot does honest work
    too: only what it earns beyond that counts, and what others lose is counted from there. `begin` runs before the
    first round, `act` in every round, `finish` says who is registered when weights are set: `later_blocks` after the
    last round.
    """

    name: str
    row: int
    kind: Kind
    does: str
    caught_by: tuple[str, ...]
    act: Act
    begin: Begin = claim_all
    finish: Finish = neurons_now
    keys: tuple[str, ...] = (SLOT,)
    alone: tuple[str, ...] = ()
    reference: Literal["idle", "honest"] = "idle"
    later_blocks: int = 0


@dataclass(frozen=True)
class Played:
    """Weights by name, of those who earned any, and the sheets about the keys in the slot.

    `committed`: one of these has a commitment on the chain. `cpu_seconds` are of this process and of those that it
    started and that have ended.
    """

    weights: dict[str, float]
    honest_weights: dict[str, float]
    sheets: tuple[ScoreSheet, ...]
    honest_outcomes: tuple[str, ...]
    committed: bool
    cpu_seconds: float

    def earned(self, keys: Sequence[str]) -> float:
        return sum(self.weights.get(key, 0.0) for key in keys)


def without(gate: str) -> Gates:
    """The public list of gates but for one."""
    return tuple(entry for entry in GATES if entry[0] != gate)


def _idle(slot: Player, lease: Lease) -> None:
    """Nothing."""


def _work(slot: Player, lease: Lease) -> None:
    slot.work(lease)


IDLE = Attack("idle", 0, "data", "nobody is in the slot", (), _idle, begin=lambda slot: None)
HONEST = Attack("honest", 0, "data", "canonical work", (), _work)


def play(world: World, attack: Attack, gates: Gates = GATES, rounds: int = ROUNDS) -> Played:
    """One network from its first lease to the validator's weights."""
    started = _cpu_seconds()
    with Network(world, gates) as network:
        network.alice.claim()
        network.bob.claim()
        attack.begin(network.slot)
        for number in range(rounds):
            network.work_honestly(number)
            if attack is not IDLE and number < len(network.slot.leases):
                attack.act(network.slot, network.slot.leases[number])
            network.judge()
        neurons = attack.finish(network)
        weights = network.validator.weights(neurons, network.node.height + attack.later_blocks)
        committed = {entry.hotkey for entry in network.slot.chain.commitments(network.slot.chain.head().number)}
        sheets = [signed.sheet for signed in network.validator.signed()]
    names = {hotkey: name for name, hotkey in world.hotkeys.items()}
    by_name = {names[hotkey]: weight for hotkey, weight in weights.items()}
    about_honest = [sheet for sheet in sheets if names[sheet.hotkey] in (ALICE, BOB)]
    return Played(
        weights=by_name,
        honest_weights={name: by_name.get(name, 0.0) for name in (ALICE, BOB)},
        sheets=tuple(sheet for sheet in sheets if names[sheet.hotkey] in attack.keys),
        honest_outcomes=tuple(sheet.outcome for sheet in about_honest),
        committed=any(world.hotkeys[key] in committed for key in attack.keys),
        cpu_seconds=_cpu_seconds() - started,
    )


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
