"""Accounts (nonces, balances) and the fate of every extrinsic."""

from __future__ import annotations

from typing import Any

from athena.chain.devnode.execution import DispatchError, Execution
from athena.chain.devnode.extrinsics import Call
from athena.chain.devnode.storage import View

RAO_PER_TAO = 10**9
_DISPATCH_INFO = {"weight": {"ref_time": 100_000_000, "proof_size": 4_000}, "class": "Normal", "pays_fee": "No"}


def nonce(view: View, account: str) -> int:
    return int(view.get("System", "Account", account)["nonce"])


def use_nonce(block: Execution, account: str) -> None:
    record = block.storage.get("System", "Account", account)
    block.storage.put("System", "Account", account, value=record | {"nonce": record["nonce"] + 1})


def free_rao(view: View, account: str) -> int:
    return int(view.get("System", "Account", account)["data"]["free"])


def set_free(block: Execution, account: str, rao: int) -> None:
    record = block.storage.get("System", "Account", account)
    record |= {"providers": 1, "data": record["data"] | {"free": rao}}
    block.storage.put("System", "Account", account, value=record)


def remark(block: Execution, signer: str, call: Call) -> None:
    """Does nothing, as on every Substrate chain."""


def extrinsic_success(block: Execution, *, mandatory: bool = False) -> None:
    info = _DISPATCH_INFO | ({"class": "Mandatory"} if mandatory else {})
    block.deposit_event("System", "ExtrinsicSuccess", {"dispatch_info": info})


def extrinsic_failed(block: Execution, error: DispatchError) -> None:
    fields: dict[str, Any] = {
        "dispatch_error": block.storage.metadata.error(error.pallet, error.name),
        "dispatch_info": _DISPATCH_INFO,
    }
    block.deposit_event("System", "ExtrinsicFailed", fields)
