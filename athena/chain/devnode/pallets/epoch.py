"""Epochs: every `tempo` blocks, stake-weighted weights become consensus, incentive and dividends.

Yuma consensus without its memory: bonds are those of this epoch alone, and nothing decays. There is no emission of
money; the column `Emission` only says how the epoch would have been shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from athena.chain.devnode.execution import Execution
from athena.chain.devnode.pallets import subnet
from athena.chain.devnode.pallets.subnet import PALLET

U16_MAX = 0xFFFF
RAO_PER_BLOCK = 10**9
_KAPPA = 0.5


@dataclass(frozen=True)
class Shares:
    """One entry per uid: `consensus` in [0, 1], `incentive` and `dividends` summing to 1, or all zero."""

    consensus: list[float]
    incentive: list[float]
    dividends: list[float]
    validator_trust: list[float]


def initialize(block: Execution) -> None:
    """Runs the subnet's epoch when it is due."""
    netuid, storage = block.settings.netuid, block.storage
    last = storage.get(PALLET, "LastEpochBlock", netuid)
    if block.number - last < storage.get(PALLET, "Tempo", netuid):
        return
    storage.put(PALLET, "LastEpochBlock", netuid, value=block.number)
    storage.put(PALLET, "LastMechansimStepBlock", netuid, value=block.number)
    index = storage.get(PALLET, "SubnetEpochIndex", netuid) + 1
    storage.put(PALLET, "SubnetEpochIndex", netuid, value=index)
    shares = _run(block, netuid, num_blocks=block.number - last)
    block.note("devchain.epoch", epoch=index, block=block.number, incentive=[round(i, 6) for i in shares.incentive])


def _run(block: Execution, netuid: int, *, num_blocks: int) -> Shares:
    storage = block.storage
    hotkeys, permits = subnet.hotkeys(storage, netuid), subnet.permits(storage, netuid)
    stakes = [
        float(subnet.stake_rao(storage, netuid, hotkey)) if permit else 0.0
        for hotkey, permit in zip(hotkeys, permits, strict=True)
    ]
    owner = subnet.uid_of(storage, netuid, str(storage.get(PALLET, "SubnetOwnerHotkey", netuid)))
    weights = [
        _row(storage.get(PALLET, "Weights", netuid, uid), None if uid == owner else uid, len(hotkeys))
        for uid in range(len(hotkeys))
    ]
    shares = share(stakes, weights)
    paid = num_blocks * RAO_PER_BLOCK
    columns = {
        "ValidatorPermit": permits,
        "Consensus": [_u16(value) for value in shares.consensus],
        "Incentive": [_u16(value) for value in shares.incentive],
        "Dividends": [_u16(value) for value in shares.dividends],
        "ValidatorTrust": [_u16(value) for value in shares.validator_trust],
        "Emission": [round(paid * (i + d) / 2) for i, d in zip(shares.incentive, shares.dividends, strict=True)],
    }
    for item, value in columns.items():
        storage.put(PALLET, item, netuid, value=value)
    return shares


def _row(pairs: Sequence[tuple[int, int]], uid: int | None, num_uids: int) -> list[float]:
    """One validator's weights as a dense row that sums to 1, without its weight on itself: `uid`.

    None for the owner's own, which may: how else would it burn?
    """
    row = [0.0] * num_uids
    for target, value in pairs:
        if target != uid and target < num_uids:
            row[target] = float(value)
    return _normalized(row)


def share(stakes: Sequence[float], weights: Sequence[Sequence[float]]) -> Shares:
    """Who gets which part of an epoch; `weights[i]` is what uid i gave to each uid: a row that sums to 1, or all 0.

    Consensus on a uid is the largest weight that validators with at least half of the stake give it or more. What a
    validator gives beyond is cut off. Incentive is the stake-weighted sum of what is left; a validator's dividends are
    its part in the sums, each counted with the incentive it led to.
    """
    uids = range(len(stakes))
    voting = _normalized([stake if any(row) else 0.0 for stake, row in zip(stakes, weights, strict=True)])
    consensus = [_consensus(voting, [row[uid] for row in weights]) for uid in uids]
    clipped = [[min(value, cap) for value, cap in zip(row, consensus, strict=True)] for row in weights]
    ranks = [sum(voting[i] * clipped[i][uid] for i in uids) for uid in uids]
    incentive = _normalized(ranks)
    dividends = [
        sum(voting[i] * clipped[i][uid] / ranks[uid] * incentive[uid] for uid in uids if ranks[uid]) for i in uids
    ]
    return Shares(consensus, incentive, _normalized(dividends), [sum(row) for row in clipped])


def _consensus(voting: Sequence[float], given: Sequence[float]) -> float:
    support = 0.0
    for value, stake in sorted(zip(given, voting, strict=True), reverse=True):
        support += stake
        if support >= _KAPPA - 1e-9:
            return value
    return 0.0


def _normalized(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values] if total > 0 else [0.0] * len(values)


def _u16(value: float) -> int:
    return round(min(value, 1.0) * U16_MAX)
