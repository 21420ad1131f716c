"""Commitments as the chain stores them: what to store for a text, and what a stored thing says.

Whoever registers may store anything here, so reading is strict and total: a commitment that is not exactly what
`plain_fields` or `sealed_fields` makes has no text, and never an effect on the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import bittensor_core

from athena.errors import BadInput, TooLarge
from athena.protocol import MAX_COMMITMENT_BYTES

RAW_BYTES = 128  # one `Raw` field of the commitments pallet; it takes three (runtime 461, MaxFields)

Status = Literal["plain", "sealed", "revealed", "failed"]


@dataclass(frozen=True)
class Committed:
    """One hotkey's commitment, its last, as of one block.

    `uid` is None for a key that is no longer registered. `commit_block` is the block that took the commitment in,
    for a revealed one too. `visible_block` is the block from which anyone could read the text, 0 while none could.
    `text` is None while sealed, after a failed reveal, and where what was stored is not a text of at most 384 bytes.
    """

    hotkey: str
    uid: int | None
    commit_block: int
    visible_block: int
    text: str | None
    status: Status


def plain_fields(text: str) -> list[dict[str, Any]]:
    """The pallet's fields for a text that all may read at once. Raises BadInput unless 1 to 384 bytes."""
    payload = _payload(text)
    chunks = (payload[i : i + RAW_BYTES] for i in range(0, len(payload), RAW_BYTES))
    return [{f"Raw{len(chunk)}": chunk} for chunk in chunks]


def sealed_fields(text: str, reveal_round: int) -> list[dict[str, Any]]:
    """The pallet's fields for a text that nobody can read before the beacon's `reveal_round`.

    The chain decodes what it reveals as a SCALE byte string, so the plaintext carries its compact length: without
    it the first characters would be taken for one. Raises BadInput unless 1 to 384 bytes.
    """
    payload = _payload(text)
    sealed, _ = bittensor_core.encrypt_at_round(_compact(len(payload)) + payload, reveal_round)
    inner = bytes(bittensor_core.inner_ciphertext(sealed))
    return [{"TimelockEncrypted": {"encrypted": inner, "reveal_round": reveal_round}}]


def reveal_round(beacon: Mapping[str, Any], now: datetime, delay_seconds: float) -> int:
    """The beacon's first round at or after `now + delay_seconds`, by the chain's own clock and beacon settings.

    Round r is published at `genesis_time + (r - 1) · period` (drand's definition; unix seconds).
    """
    since_genesis = now.timestamp() + delay_seconds - int(beacon["genesis_time"])
    return 1 + max(0, math.ceil(since_genesis / int(beacon["period"])))


def read_commitments(
    stored: Iterable[tuple[Any, Any]],
    reveals: Iterable[tuple[Any, Any]],
    last_blocks: Mapping[str, int],
    uids: Mapping[str, int],
) -> list[Committed]:
    """All commitments of a subnet from the pallet's storage at one block, by commit block, then hotkey.

    `stored` are the entries of CommitmentOf and `reveals` of RevealedCommitments, as (hotkey, value); `last_blocks`
    is LastCommitment of the keys that have reveals but nothing stored.
    """
    by_hotkey = {str(hotkey): _reveals(entries) for hotkey, entries in reveals}
    found = {str(hotkey): _standing(value, by_hotkey.get(str(hotkey), ())) for hotkey, value in stored}
    # The pallet drops what it has revealed in full, and keeps only the block in which that had been taken in.
    for hotkey in by_hotkey.keys() - found.keys():
        found[hotkey] = _dropped(last_blocks.get(hotkey), by_hotkey[hotkey])
    committed = [Committed(hotkey, uids.get(hotkey), *state) for hotkey, state in found.items() if state is not None]
    return sorted(committed, key=lambda entry: (entry.commit_block, entry.hotkey))


_State = tuple[int, int, str | None, Status]  # commit_block, visible_block, text, status
_Reveal = tuple[int, str | None]  # reveal block, text


def _standing(registration: Any, reveals: Sequence[_Reveal]) -> _State | None:
    """What an entry of CommitmentOf says; None for one that has no form at all."""
    try:
        block = int(registration["block"])
        fields = list(registration["info"]["fields"])
    except (KeyError, TypeError, ValueError):
        return None
    kinds = {kind for field in fields if isinstance(field, dict) for kind in field}
    if "TimelockRevealFailed" in kinds:
        return block, 0, None, "failed"
    if "TimelockEncrypted" in kinds:
        return block, 0, None, "sealed"
    # A reveal after the commit block came out of this very commitment: it mixed open and sealed fields, so which
    # text it stands for is open to choice. One in the same block belongs to its predecessor: blocks begin with reveals.
    is_mixed = any(reveal_block > block for reveal_block, _ in reveals)
    return block, block, None if is_mixed else _raw_text(fields), "plain"


def _dropped(commit_block: int | None, reveals: Sequence[_Reveal]) -> _State | None:
    """What a commitment said whose entry is gone from CommitmentOf; None where its commit block is unknown."""
    if commit_block is None:
        return None
    since = [reveal for reveal in reveals if reveal[0] > commit_block]
    if not since:
        return None
    visible_block = min(reveal_block for reveal_block, _ in since)
    return commit_block, visible_block, since[0][1] if len(since) == 1 else None, "revealed"


def _raw_text(fields: list[Any]) -> str | None:
    payload = b""
    for field in fields:
        [(kind, value)] = field.items() if isinstance(field, dict) and len(field) == 1 else [("", "")]
        if not re.fullmatch(r"Raw\d{1,3}", kind) or not re.fullmatch(r"0x(?:[0-9a-f]{2})*", str(value)):
            return None
        payload += bytes.fromhex(value[2:])
    return _text(payload)


def _reveals(entries: Any) -> list[_Reveal]:
    reveals = []
    for data, block in entries or ():
        payload = _bytes(data)
        count, start = _compact_prefix(payload)
        reveals.append((int(block), _text(payload[start:]) if count == len(payload) - start else None))
    return reveals


def _bytes(data: str) -> bytes:
    """The bytes of a `Vec<u8>` as the SDK's codec hands it over: text if they are UTF-8, else 0x and hex.

    So hex whose bytes are UTF-8 was written as such by its author, who meant these characters.
    """
    if re.fullmatch(r"0x(?:[0-9a-f]{2})+", data):
        payload = bytes.fromhex(data[2:])
        try:
            payload.decode()
        except UnicodeDecodeError:
            return payload
    return data.encode()


def _text(payload: bytes) -> str | None:
    if not 1 <= len(payload) <= MAX_COMMITMENT_BYTES:
        return None
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def _payload(text: str) -> bytes:
    payload = text.encode()
    if not payload:
        raise BadInput("a commitment cannot be empty")
    if len(payload) > MAX_COMMITMENT_BYTES:
        raise TooLarge(f"commitment of {len(payload)} bytes, over {MAX_COMMITMENT_BYTES}")
    return payload


def _compact(length: int) -> bytes:
    """SCALE's compact form of a length below 2^14: one byte (mode 0) or two (mode 1), little-endian."""
    return (length << 2).to_bytes(1) if length < 1 << 6 else (length << 2 | 1).to_bytes(2, "little")


def _compact_prefix(payload: bytes) -> tuple[int, int]:
    """The compact length that `payload` begins with and the bytes that it takes; (-1, 0) for another mode or none."""
    if payload and payload[0] & 3 == 0:
        return payload[0] >> 2, 1
    if len(payload) > 1 and payload[0] & 3 == 1:
        return int.from_bytes(payload[:2], "little") >> 2, 2
    return -1, 0
