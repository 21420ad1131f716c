"""The public rules by which the task server draws: anyone who knows the chain can recompute who was due which shard.

A lease goes to the first eligible task in `lease_positions`. A task is eligible while it has a free slot and neither
this hotkey nor its coldkey ever held a lease of it. Audit duplicates are drawn from a block after the lease.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from athena import draw
from athena.errors import BadInput

AUDIT_COPIES = 2  # an audited task goes to a second and a third miner
# At 99 % filled, 256 draws still find a free shard 92 times in 100; after them the walk is sequential, so that the
# last shard of a large crawl costs no more than the first.
MAX_DRAWS = 256

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_KEY_BYTES = 32
_CHECKSUM_BYTES = 2


def public_key(address: str) -> bytes:
    """The 32-byte key inside an ss58 address. Raises BadInput for anything that is not one.

    Format: https://docs.polkadot.com/polkadot-protocol/parachain-basics/accounts/#account-address-format
    """
    number = 0
    for character in address[:64]:
        digit = _BASE58.find(character)
        if digit < 0:
            raise BadInput("an ss58 address holds base58 characters only")
        number = number * 58 + digit
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    raw = bytes(len(address) - len(address.lstrip("1"))) + raw  # a leading "1" is a zero byte
    prefix_bytes = len(raw) - _KEY_BYTES - _CHECKSUM_BYTES
    if len(address) > 64 or prefix_bytes not in (1, 2) or (raw[0] >= 64) != (prefix_bytes == 2):
        raise BadInput("not the ss58 address of a 32-byte key")
    body, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if hashlib.blake2b(b"SS58PRE" + body).digest()[:_CHECKSUM_BYTES] != checksum:
        raise BadInput("the ss58 address fails its checksum")
    return body[prefix_bytes:]


def drawn_position(block_hash: str, key: bytes, index: int, num_tasks: int) -> int:
    """blake2b-256(block hash ‖ 32-byte hotkey ‖ draw index as u32 big-endian) mod the number of listed tasks."""
    message = bytes.fromhex(block_hash.removeprefix("0x")) + key + index.to_bytes(4, "big")
    return int.from_bytes(hashlib.blake2b(message, digest_size=32).digest(), "big") % num_tasks


def lease_positions(block_hash: str, hotkey: str, num_tasks: int) -> Iterator[int]:
    """The order in which one hotkey is offered the tasks listed at one block, by position.

    A filled or conflicting task steps to the next draw index; after MAX_DRAWS draws, to the next position. Positions
    may repeat; every position comes up. Empty if no task is listed.
    """
    if num_tasks == 0:
        return
    key = public_key(hotkey)
    position = 0
    for index in range(MAX_DRAWS):
        position = drawn_position(block_hash, key, index, num_tasks)
        yield position
    for step in range(1, num_tasks + 1):
        yield (position + step) % num_tasks


def is_audited(block_hash: str, task_id: str, audit_share: float) -> bool:
    """Whether a task gets AUDIT_COPIES more miners, by the hash of the block after its first lease's block."""
    return draw.integer(draw.seed_of(block_hash, "audit", task_id), 0) < int(audit_share * 2**64)
