"""Signed extrinsics: decoded, and checked as the runtime's transaction extensions do before pool or block take one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bittensor_core

from athena.chain.devnode.block import blake2b_256
from athena.chain.devnode.metadata import SS58_FORMAT, Metadata
from athena.chain.devnode.scale import Reader, length_prefixed
from athena.errors import BadInput

MAX_EXTRINSIC_BYTES = 64 * 1024
_CRYPTO = {0: bittensor_core.CRYPTO_ED25519, 1: bittensor_core.CRYPTO_SR25519}
_HASHED_PAYLOAD_BYTES = 256
_MAX_PAST_ERAS = 64
_SIGNED_BY_ACCOUNT_ID = b"\x84\0"  # version 4 with the signed bit, then the tag of MultiAddress::Id


class Invalid(BadInput):
    """The pool refuses an extrinsic. `rpc_code`, `message` and `data` are what a Substrate node answers."""

    def __init__(self, data: str, *, message: str = "Invalid Transaction", rpc_code: int = 1010) -> None:
        super().__init__(message)
        self.data = data
        self.rpc_code = rpc_code


def bad_format(reason: str) -> Invalid:
    return Invalid(reason, message="Extrinsic has invalid format", rpc_code=1001)


def bad_proof() -> Invalid:
    return Invalid("Transaction has a bad signature")


def stale() -> Invalid:
    return Invalid("Transaction is outdated")


def ancient_birth_block() -> Invalid:
    return Invalid("Transaction has an ancient birth block")


@dataclass(frozen=True)
class Call:
    """A pallet call. `args` are decoded values; `data` is the SCALE of the arguments, exact to the byte."""

    module: str
    function: str
    args: dict[str, Any]
    data: bytes

    def __str__(self) -> str:
        return f"{self.module}.{self.function}"


@dataclass(frozen=True)
class Signed:
    """A signed extrinsic whose signature was verified. `last_block`: the last that may include it; None: immortal."""

    raw: bytes
    signer: str
    nonce: int
    call: Call
    last_block: int | None

    @property
    def hash(self) -> bytes:
        return blake2b_256(self.raw)


@dataclass(frozen=True)
class _Envelope:
    """A decoded extrinsic before anyone looked at its signature; `rest` is the extensions, then the call."""

    signer: str
    scheme: int
    signature: bytes
    rest: bytes
    era: dict[str, int] | None
    nonce: int
    tip: int
    call: dict[str, Any]

    def call_if_signed(self, metadata: Metadata, genesis: bytes, birth_hash: bytes) -> bytes | None:
        """The call's bytes, if the signature covers them for an era whose birth block has this hash."""
        extra, additional = metadata.codec.signature_payload_parts(
            era=self.era or "00",
            nonce=self.nonce,
            tip=self.tip,
            tip_asset_id=None,
            genesis_hash=genesis,
            era_block_hash=birth_hash,
            metadata_hash=None,
        )
        if not self.rest.startswith(bytes(extra)):
            return None
        call = self.rest[len(extra) :]
        payload = call + bytes(extra) + bytes(additional)
        if len(payload) > _HASHED_PAYLOAD_BYTES:
            payload = blake2b_256(payload)
        return call if bittensor_core.verify(payload, self.signature, self.signer, self.scheme) else None


def verify(raw: bytes, metadata: Metadata, number: int, block_hash: Callable[[int], bytes | None]) -> Signed:
    """The extrinsic, if its signer signed it for this chain, this runtime and an era that block `number` lies in.

    Raises Invalid: bad format, bad signature, ancient birth block (a mortal era that is over). Nonces are not
    compared with the account's; that is for the pool and the block. A Substrate node cannot tell an era that is over
    from a forgery and says "bad signature" for both, unless the birth block is out of its sight; this one retries the
    signature with the birth blocks before and says which it is.
    """
    envelope = _decode(raw, metadata)
    genesis = block_hash(0) or b""
    if envelope.era is None:
        birth, last_block, period = 0, None, 0
    else:
        period, phase = envelope.era["period"], envelope.era["phase"]
        birth = (max(number, phase) - phase) // period * period + phase
        last_block = birth + period - 1
    birth_hash = block_hash(birth)
    if birth_hash is None:
        raise ancient_birth_block()
    call = envelope.call_if_signed(metadata, genesis, birth_hash)
    if call is None:
        past = range(birth - period, -1, -period)[:_MAX_PAST_ERAS] if period else ()
        hashes = (block_hash(birth) or b"" for birth in past)
        expired = any(envelope.call_if_signed(metadata, genesis, birth_hash) is not None for birth_hash in hashes)
        raise ancient_birth_block() if expired else bad_proof()
    decoded = envelope.call
    args = {argument["name"]: argument["value"] for argument in decoded["call_args"]}
    return Signed(
        raw=raw,
        signer=envelope.signer,
        nonce=envelope.nonce,
        call=Call(decoded["call_module"], decoded["call_function"], args, call[2:]),
        last_block=last_block,
    )


def _decode(raw: bytes, metadata: Metadata) -> _Envelope:
    """Raises Invalid for what is no signed extrinsic of version 4 by an account id."""
    if len(raw) > MAX_EXTRINSIC_BYTES:
        raise bad_format(f"{len(raw)} bytes, {MAX_EXTRINSIC_BYTES} at most")
    try:
        reader = Reader(Reader(raw).vector())
        prefix, public_key, scheme = reader.take(2), reader.take(32), _CRYPTO.get(reader.number(1))
        signature, rest = reader.take(64), reader.rest()
        decoded = metadata.codec.decode_extrinsic(raw, True)
        call, era, nonce, tip = decoded["call"], decoded["era"], int(decoded["nonce"]), int(decoded["tip"])
    except (BadInput, ValueError, KeyError, TypeError, OverflowError) as error:
        raise bad_format(str(error)) from error
    if prefix != _SIGNED_BY_ACCOUNT_ID or scheme is None:
        raise bad_format("not an extrinsic of version 4, signed with sr25519 or ed25519 by an account id")
    return _Envelope(
        signer=bittensor_core.ss58_encode(public_key, SS58_FORMAT),
        scheme=scheme,
        signature=signature,
        rest=rest,
        era=None if isinstance(era, str) else {"period": int(era[0]), "phase": int(era[1])},
        nonce=nonce,
        tip=tip,
        call=call,
    )


def inherent(metadata: Metadata, timestamp_ms: int) -> bytes:
    """The unsigned Timestamp.set that begins every block."""
    call = metadata.codec.compose_call("Timestamp", "set", {"now": timestamp_ms})
    return length_prefixed(b"\x04" + bytes(call))
