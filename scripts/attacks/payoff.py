"""What attacks are worth, out of who earned what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.attacks.play import HONEST, Attack, Played
from scripts.attacks.world import SLOT

MAX_PAYOFF = 0.05
MAX_HONEST_LOSS = 0.01


@dataclass(frozen=True)
class Controls:
    """One world's networks with an honest miner in the slot, and with nobody."""

    honest: Played
    idle: Played


def payoff(attack: Attack, played: Played, controls: Controls) -> float:
    """What the attack's keys earned, over what an honest miner in the slot earns.

    Of those who work honestly beside their trick, what they earned beyond that miner.
    """
    fair = controls.honest.earned(HONEST.keys)
    earned = played.earned(attack.keys)
    beside_work = attack.reference == "honest" and SLOT in attack.keys
    return max(0.0, earned - fair if beside_work else earned) / fair


def honest_loss(attack: Attack, played: Played, controls: Controls) -> float:
    """The largest share of its pay that an honest miner lost by the slot's doing.

    Pay is shared out, so it is compared with a network in which the slot does nothing; where it does honest work
    beside its trick, with one in which it does only that.
    """
    control = controls.honest if attack.reference == "honest" else controls.idle
    fair = control.honest_weights
    return max(0.0, *(1.0 - earned / fair[name] for name, earned in played.honest_weights.items()))


def caught_by(attack: Attack, played: Played) -> str:
    """The gate that stopped the keys' last dataset, or what else kept them from earning."""
    stopped = [sheet.gates[-1] for sheet in played.sheets if sheet.outcome != "pass"]
    if stopped:
        return stopped[-1].gate
    if not played.sheets and SLOT in attack.keys:
        return "reading" if played.committed else "ledger"
    if any(sheet.yield_ratio < MAX_PAYOFF for sheet in played.sheets):
        return "yield"
    if any(sheet.effect is not None and sheet.effect.high < 0 for sheet in played.sheets):
        return "proxy"
    return "pay"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
