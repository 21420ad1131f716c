"""Which calls this chain has, and how an extrinsic is applied: nonce used, call dispatched, its fate in the events."""

from __future__ import annotations

from collections.abc import Callable

from athena.chain.devnode.execution import DispatchError, Execution
from athena.chain.devnode.extrinsics import Call, Signed, bad_format
from athena.chain.devnode.pallets import commitments, mevshield, registration, serving, system, weights
from athena.errors import BadInput

Handler = Callable[[Execution, str, Call], None]

CALLS: dict[tuple[str, str], Handler] = {
    ("Commitments", "set_commitment"): commitments.set_commitment,
    ("MevShield", "submit_encrypted"): mevshield.submit_encrypted,
    ("SubtensorModule", "burned_register"): registration.burned_register,
    ("SubtensorModule", "commit_timelocked_mechanism_weights"): weights.commit_timelocked_mechanism_weights,
    ("SubtensorModule", "commit_timelocked_weights"): weights.commit_timelocked_weights,
    ("SubtensorModule", "register_limit"): registration.register_limit,
    ("SubtensorModule", "serve_axon"): serving.serve_axon,
    ("SubtensorModule", "set_mechanism_weights"): weights.set_mechanism_weights,
    ("SubtensorModule", "set_weights"): weights.set_weights,
    ("System", "remark"): system.remark,
}
"""Every other call fails with System.CallFiltered."""
_BOUNDED: dict[tuple[str, str], Callable[[Call], object]] = {
    ("Commitments", "set_commitment"): commitments.fields_of,
    ("MevShield", "submit_encrypted"): mevshield.ciphertext_of,
    ("SubtensorModule", "commit_timelocked_mechanism_weights"): weights.commit_of,
    ("SubtensorModule", "commit_timelocked_weights"): weights.commit_of,
}


def _filtered(block: Execution, signer: str, call: Call) -> None:
    raise DispatchError("System", "CallFiltered")


def apply(block: Execution, extrinsic: Signed, index: int) -> DispatchError | None:
    """Applies an extrinsic as number `index` of the block; returns the error that its call failed with, if any."""
    block.phase = {"ApplyExtrinsic": index}
    system.use_nonce(block, extrinsic.signer)
    num_events = len(block.events)
    error = None
    try:
        with block.storage.transaction():
            handler = CALLS.get((extrinsic.call.module, extrinsic.call.function), _filtered)
            handler(block, extrinsic.signer, extrinsic.call)
        system.extrinsic_success(block)
    except DispatchError as refusal:
        error = refusal
        del block.events[num_events:]
        block.carried = None
        system.extrinsic_failed(block, error)
    block.note(
        "devchain.extrinsic",
        block=block.number,
        call=str(extrinsic.call),
        hotkey=extrinsic.signer,
        ok=error is None,
        error=error and error.name,
    )
    return error


def ensure_decodable(call: Call) -> None:
    """Raises Invalid for arguments that the codec lets pass and the runtime's bounded types do not."""
    check = _BOUNDED.get((call.module, call.function))
    if check is not None:
        try:
            check(call)
        except BadInput as error:
            raise bad_format(error.message) from error
