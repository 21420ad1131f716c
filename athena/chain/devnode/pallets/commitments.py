"""Commitments: what registered hotkeys publish, plain or sealed, within a quota of bytes per epoch.

Rules as of subtensor spec 461: three fields at most; 3100 bytes per hotkey and epoch, every commitment at least 100;
only the last commitment is kept, with its block; of reveals the last ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bittensor_core

from athena.chain.devnode.execution import DispatchError, Execution
from athena.chain.devnode.extrinsics import Call
from athena.chain.devnode.pallets import drand
from athena.chain.devnode.scale import Reader, compact, length_prefixed
from athena.errors import BadInput

PALLET = "Commitments"
MAX_FIELDS = 3
MIN_BYTES_CHARGED = 100
MAX_REVEALS = 10
_MAX_RAW, _SHA3, _SEALED, _RESET_BONDS, _BIG_RAW, _FAILED = 129, 133, 134, 135, 136, 137


@dataclass(frozen=True)
class Field:
    """One field of a commitment: its SCALE bytes, the bytes it costs, and what is sealed in it, if anything."""

    raw: bytes
    cost: int
    kind: int
    sealed: bytes = b""
    reveal_round: int = 0

    def failed(self) -> Field:
        """The field after a reveal that did not work out."""
        return Field(bytes([_FAILED]) + self.raw[1:], self.cost, _FAILED, self.sealed, self.reveal_round)


def fields_of(call: Call) -> list[Field]:
    """The fields of a set_commitment call, after the netuid; raises BadInput for one over its size."""
    return parse_fields(call.data[2:])


def parse_fields(data: bytes) -> list[Field]:
    """The fields of a `CommitmentInfo`; raises BadInput for bytes that are none."""
    reader = Reader(data)
    count = reader.compact()
    if count > len(data):
        raise BadInput(f"{count} fields in {len(data)} bytes")
    fields = [_parse_field(reader, data) for _ in range(count)]
    reader.end()
    return fields


def _parse_field(reader: Reader, data: bytes) -> Field:
    start = reader.offset
    kind = reader.number(1)
    cost, sealed, reveal_round = 0, b"", 0
    if 1 <= kind <= _MAX_RAW:
        cost = len(reader.take(kind - 1))
    elif _MAX_RAW < kind <= _SHA3:
        cost = len(reader.take(32))
    elif kind in (_SEALED, _FAILED):
        sealed = reader.vector(max_bytes=1024)
        reveal_round = reader.number(8)
        cost = len(sealed)
    elif kind == _BIG_RAW:
        cost = len(reader.vector(max_bytes=512))
    elif kind not in (0, _RESET_BONDS):
        raise BadInput(f"unknown commitment field {kind}")
    return Field(data[start : reader.offset], cost, kind, sealed, reveal_round)


def encode_fields(fields: Sequence[Field]) -> bytes:
    return compact(len(fields)) + b"".join(field.raw for field in fields)


def _registration(block_number: int, fields: Sequence[Field]) -> bytes:
    """`Registration`: deposit (none is taken), block, info."""
    return bytes(8) + block_number.to_bytes(4, "little") + encode_fields(fields)


def set_commitment(block: Execution, signer: str, call: Call) -> None:
    netuid = int(call.args["netuid"])
    storage = block.storage
    if storage.get_raw("SubtensorModule", "Uids", netuid, signer) is None:
        raise DispatchError(PALLET, "AccountNotAllowedCommit")
    fields = fields_of(call)
    if len(fields) > MAX_FIELDS:
        raise DispatchError(PALLET, "TooManyFieldsInCommitmentInfo")
    if any(field.kind == _FAILED for field in fields):
        raise DispatchError(PALLET, "TimelockRevealFailedNotAllowed")
    _charge(block, netuid, signer, max(MIN_BYTES_CHARGED, sum(field.cost for field in fields)))

    storage.put_raw(PALLET, "CommitmentOf", netuid, signer, value=_registration(block.number, fields))
    storage.put(PALLET, "LastCommitment", netuid, signer, value=block.number)
    sealed = next((field for field in fields if field.kind == _SEALED), None)
    _mark_sealed(block, netuid, signer, sealed is not None)
    if sealed is None:
        block.deposit_event(PALLET, "Commitment", {"netuid": netuid, "who": signer})
    else:
        round_ = {"reveal_round": sealed.reveal_round}
        block.deposit_event(PALLET, "TimelockCommitment", {"netuid": netuid, "who": signer} | round_)


def _charge(block: Execution, netuid: int, who: str, num_bytes: int) -> None:
    epoch = block.storage.get("SubtensorModule", "SubnetEpochIndex", netuid)
    usage = block.storage.get(PALLET, "UsedSpaceOf", netuid, who)
    used = usage["used_space"] if usage and usage["last_epoch"] == epoch else 0
    if used + num_bytes > block.storage.get(PALLET, "MaxSpace"):
        raise DispatchError(PALLET, "SpaceLimitExceeded")
    usage = {"last_epoch": epoch, "used_space": used + num_bytes}
    block.storage.put(PALLET, "UsedSpaceOf", netuid, who, value=usage)


def sealed_accounts(block: Execution) -> list[tuple[int, str]]:
    """(netuid, hotkey) of every commitment that holds something sealed."""
    return [(int(netuid), str(who)) for netuid, who in block.storage.get(PALLET, "TimelockedIndex")]


def _mark_sealed(block: Execution, netuid: int, who: str, is_sealed: bool) -> None:
    before = set(sealed_accounts(block))
    after = before | {(netuid, who)} if is_sealed else before - {(netuid, who)}
    if after != before:
        by_key = sorted(after, key=lambda entry: (entry[0], bytes(bittensor_core.ss58_decode(entry[1]))))
        block.storage.put(PALLET, "TimelockedIndex", value=by_key)


def initialize(block: Execution) -> None:
    """Opens what was sealed to round 1000 at least `reveal_blocks` blocks ago; earlier rounds are expired pulses."""
    for netuid, who in sealed_accounts(block):
        raw = block.storage.get_raw(PALLET, "CommitmentOf", netuid, who)
        if raw is None:
            _mark_sealed(block, netuid, who, False)
            continue
        commit_block, fields = int.from_bytes(raw[8:12], "little"), parse_fields(raw[12:])
        rounds = [field.reveal_round for field in fields if field.kind == _SEALED]
        is_due = drand.ROUND in rounds and block.number - commit_block >= block.settings.reveal_blocks
        if is_due:
            drand.store_pulse(block)
        if is_due or any(round_ < drand.ROUND for round_ in rounds):
            _reveal(block, netuid, who, commit_block, fields, is_due=is_due)


def _reveal(
    block: Execution, netuid: int, who: str, commit_block: int, fields: Sequence[Field], *, is_due: bool
) -> None:
    whose = {"netuid": netuid, "who": who}
    remaining: list[Field] = []
    opened: list[bytes] = []
    for field in fields:
        expired = field.reveal_round < drand.ROUND
        if field.kind != _SEALED or not (expired or (is_due and field.reveal_round == drand.ROUND)):
            remaining.append(field)
            continue
        plaintext = None if expired else open_sealed(field.sealed)
        if plaintext is None:
            remaining.append(field.failed())
            failure = {"reveal_round": field.reveal_round, "error": "PulseExpired" if expired else "Decrypt"}
            block.deposit_event(PALLET, "CommitmentRevealFailed", whose | failure)
        else:
            opened.append(plaintext)
            block.deposit_event(PALLET, "CommitmentRevealed", whose)
    if opened:
        _keep_reveals(block, netuid, who, opened)
    if remaining:
        block.storage.put_raw(PALLET, "CommitmentOf", netuid, who, value=_registration(commit_block, remaining))
    else:
        block.storage.remove(PALLET, "CommitmentOf", netuid, who)
    _mark_sealed(block, netuid, who, any(field.kind == _SEALED for field in remaining))
    block.note("devchain.revealed", hotkey=who, commit_block=commit_block, block=block.number, ok=bool(opened))


def _keep_reveals(block: Execution, netuid: int, who: str, opened: Sequence[bytes]) -> None:
    """Appends to RevealedCommitments (`Vec<(Vec<u8>, u64)>`), byte-exact."""
    reveals: list[bytes] = []
    raw = block.storage.get_raw(PALLET, "RevealedCommitments", netuid, who)
    if raw is not None:
        reader = Reader(raw)
        reveals = [length_prefixed(reader.vector()) + reader.take(8) for _ in range(reader.compact())]
    reveals += [length_prefixed(plaintext) + block.number.to_bytes(8, "little") for plaintext in opened]
    kept = reveals[-MAX_REVEALS:]
    value = compact(len(kept)) + b"".join(kept)
    block.storage.put_raw(PALLET, "RevealedCommitments", netuid, who, value=value)


def open_sealed(ciphertext: bytes) -> bytes | None:
    """What is sealed in a ciphertext (bare, or in the SDK's envelope) for round 1000; None if it does not open."""
    envelope = length_prefixed(ciphertext) + drand.ROUND.to_bytes(8, "little")
    for candidate in (envelope, ciphertext):
        try:
            plaintext = bytes(bittensor_core.decrypt_with_signature(candidate, drand.SIGNATURE.hex()))
        except ValueError:
            continue
        if plaintext:
            return plaintext
    return None
