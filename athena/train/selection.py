"""Which datasets consensus pays for: the trainer's view of chain and score sheets at one block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from athena.chain.client import Neuron
from athena.protocol import ScoreSheet
from athena.train.mixture import AcceptedDataset


@dataclass(frozen=True)
class Selection:
    """`accepted`: passed by most of the stake, and their miners earn. `judged`: datasets with a majority verdict."""

    accepted: tuple[AcceptedDataset, ...]
    judged: int


def select(neurons: Iterable[Neuron], sheets: Iterable[ScoreSheet]) -> Selection:
    """Counts each validator's verdict on each dataset by its stake; sheets without a verdict or a permit do not count.

    A dataset is accepted when validators with more than half of the permitted stake passed it and its miner has
    incentive, so that one validator alone can neither add data to a model nor keep it out.
    """
    known = {neuron.hotkey: neuron for neuron in neurons}
    stakes = {n.hotkey: n.stake for n in known.values() if n.validator_permit}
    majority = sum(stakes.values()) / 2
    support: dict[tuple[str, str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    datasets = {}
    voted = set()
    for sheet in sheets:
        key = (sheet.hotkey, sheet.task_id, sheet.dataset.root)
        if sheet.outcome == "none" or (key, sheet.validator) in voted:
            continue
        voted.add((key, sheet.validator))
        datasets[key] = sheet.dataset
        support[key][sheet.outcome] += stakes.get(sheet.validator, 0.0)
    judged = [key for key, votes in support.items() if max(votes.values()) > majority]
    accepted = tuple(
        AcceptedDataset(hotkey=key[0], task_id=key[1], dataset=datasets[key], incentive=known[key[0]].incentive)
        for key in sorted(judged)
        if support[key]["pass"] > majority and key[0] in known and known[key[0]].incentive > 0
    )
    return Selection(accepted, len(judged))
