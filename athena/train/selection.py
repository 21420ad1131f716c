"""Which datasets consensus pays for: the trainer's view of chain and score sheets at one block."""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from athena.chain.client import Chain, Neuron
from athena.chain.wallets import verify
from athena.errors import NotFound, Unauthorized
from athena.protocol import ScoreSheet, SignedSheet
from athena.train.mixture import AcceptedDataset

log = logging.getLogger(__name__)
MAX_EPOCHS = 300  # two weeks at the default tempo; each takes a request


@dataclass(frozen=True)
class Selection:
    """`accepted`: passed by most of the stake, and their miners earn. `judged`: datasets with a majority verdict."""

    accepted: tuple[AcceptedDataset, ...]
    judged: int


def genuine(signed: Iterable[SignedSheet]) -> Iterator[ScoreSheet]:
    """The sheets that bear their validator's signature. Whoever keeps them could have made up the others."""
    for each in signed:
        try:
            verify(each.sheet.validator, each.sheet.canonical(), each.signature)
        except Unauthorized as error:
            log.warning("score sheet left out: %s", error)
        else:
            yield each.sheet


def epochs_since(chain: Chain, since_block: int, epoch_blocks: int) -> list[list[Neuron]]:
    """The registered hotkeys at the newest finalized block and one epoch apart before it, the newest first.

    As far back as the first epoch after `since_block`, or as the node keeps the chain's state. Raises as the chain.
    """
    newest = chain.head().number
    epochs = [chain.neurons(newest)]
    for block in range(newest - epoch_blocks, since_block, -epoch_blocks)[: MAX_EPOCHS - 1]:
        try:
            epochs.append(chain.neurons(block))
        except NotFound:
            log.warning("the node keeps no state of block %d: incentive is averaged from there on", block)
            break
    return epochs


def averaged(epochs: Sequence[Sequence[Neuron]]) -> list[Neuron]:
    """Every hotkey of any epoch with its mean incentive over all of them, 0 where it was not registered.

    Stake and permit are those of the first, the newest: who is gone by then has no vote.
    """
    total: defaultdict[str, float] = defaultdict(float)
    latest: dict[str, Neuron] = {}
    for age, neurons in enumerate(epochs):
        for neuron in neurons:
            total[neuron.hotkey] += neuron.incentive
            latest.setdefault(neuron.hotkey, neuron if age == 0 else replace(neuron, stake=0.0, validator_permit=False))
    return [replace(neuron, incentive=total[hotkey] / len(epochs)) for hotkey, neuron in latest.items()]


def select(neurons: Iterable[Neuron], sheets: Iterable[ScoreSheet]) -> Selection:
    """Counts each validator's verdict on each dataset by its stake; sheets without a verdict or a permit do not count.

    A dataset is accepted when validators with more than half of the permitted stake passed it and its miner has
    incentive, so that one validator alone can neither add data to a model nor keep it out.
    """
    known = {neuron.hotkey: neuron for neuron in neurons}
    stakes = {n.hotkey: n.stake for n in known.values() if n.validator_permit}
    majority = sum(stakes.values()) / 2
    support: dict[tuple[str, str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    passed: dict[tuple[str, str, str], list[ScoreSheet]] = defaultdict(list)
    datasets = {}
    voted = set()
    for sheet in sheets:
        key = (sheet.hotkey, sheet.task_id, sheet.dataset.root)
        if sheet.outcome == "none" or (key, sheet.validator) in voted:
            continue
        voted.add((key, sheet.validator))
        datasets[key] = sheet.dataset
        stake = stakes.get(sheet.validator, 0.0)
        support[key][sheet.outcome] += stake
        if sheet.outcome == "pass" and stake > 0:
            passed[key].append(sheet)
    judged = [key for key, votes in support.items() if max(votes.values()) > majority]
    accepted = tuple(
        AcceptedDataset(
            hotkey=key[0],
            task_id=key[1],
            dataset=datasets[key],
            incentive=known[key[0]].incentive,
            forecast=_forecast(passed[key]),
            rule_version=passed[key][0].rule_version,
        )
        for key in sorted(judged)
        if support[key]["pass"] > majority and key[0] in known and known[key[0]].incentive > 0
    )
    return Selection(accepted, len(judged))


def _forecast(sheets: Iterable[ScoreSheet]) -> float | None:
    """The median effect that these sheets give a dataset, all validators alike."""
    effects = [sheet.effect.mean for sheet in sheets if sheet.effect is not None]
    return statistics.median(effects) if effects else None
