"""What miners committed to, as every validator reads it alike: at every multiple of the read interval.

A commitment is taken at the first such block after it became visible. That block's hash seeds every draw about it, so
nobody knew the draws when the data was fixed, and all validators draw the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from athena.chain.client import Chain
from athena.client import LedgerClient
from athena.errors import BadInput
from athena.judge.evidence import Found
from athena.judge.rules import BLOCKS_PER_DAY
from athena.protocol import Commitment

log = logging.getLogger("athena.validator")
CATCH_UP_BLOCKS = 7 * BLOCKS_PER_DAY
"""How far back a validator that was away reads; older work is other validators' to judge. Every read in between counts:
the chain keeps only a miner's last commitment, and which block is the first to show one decides its draws."""


def due_blocks(last_read: int | None, head: int, every: int) -> range:
    """The multiples of `every` up to `head` that have not been read yet, of the last CATCH_UP_BLOCKS."""
    newest = head - head % every
    oldest = newest if last_read is None else last_read + every
    most = max(1, CATCH_UP_BLOCKS // every)
    return range(max(oldest, newest - (most - 1) * every), newest + 1, every)


def read_commitments(chain: Chain, ledger: LedgerClient, block: int, every: int) -> Iterator[Found]:
    """The commitments that became visible in the `every` blocks before `block`, as of `block`.

    What is malformed, names another hotkey than its signer, was made before its signer registered, rests on no lease,
    or came after its lease's deadline is left out. Raises Unavailable when the chain or the task server cannot be
    asked: the block is then to be read again; and StateGone where the node does not have the block's state any more.
    """
    registered = {neuron.hotkey: neuron.registered_block for neuron in chain.neurons(block)}
    block_hash = chain.head(block).hash
    for entry in chain.commitments(block):
        if entry.text is None or not block - every <= entry.visible_block < block:
            continue
        if entry.commit_block < registered.get(entry.hotkey, block):
            continue
        try:
            commitment = Commitment.parse(entry.text, signer=entry.hotkey)
        except BadInput as error:
            log.info("commitment of %s left out: %s", entry.hotkey, error)
            continue
        leases = ledger.leases(hotkey=entry.hotkey, task_id=commitment.task_id)
        if not leases:
            log.info("commitment of %s left out: no lease of task %s", entry.hotkey, commitment.task_id)
            continue
        lease = min(leases, key=lambda lease: lease.issued_block)
        if lease.task.id != commitment.task_id:  # the id derives from the content: a server cannot swap shards
            log.warning("the task server names another shard for task %s", commitment.task_id)
            continue
        if entry.commit_block > lease.deadline_block:
            log.info("commitment of %s left out: task %s was over", entry.hotkey, commitment.task_id)
            continue
        yield Found(
            commitment=commitment,
            task=lease.task,
            issued_block=lease.issued_block,
            deadline_block=lease.deadline_block,
            commit_block=entry.commit_block,
            seed_block=block,
            block_hash=block_hash,
            visible_block=entry.visible_block,
        )
