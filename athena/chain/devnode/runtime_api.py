"""Runtime APIs (`state_call`): what clients ask the runtime to work out, as of one block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from athena.chain.devnode import metagraph
from athena.chain.devnode.metadata import SPEC_VERSION, TRANSACTION_VERSION, Metadata
from athena.chain.devnode.pallets import system
from athena.chain.devnode.pallets.subnet import PALLET
from athena.chain.devnode.pallets.system import RAO_PER_TAO
from athena.chain.devnode.scale import Reader, length_prefixed
from athena.chain.devnode.storage import View
from athena.errors import NotFound

RUNTIME_VERSION: dict[str, Any] = {
    "specName": "node-subtensor",
    "implName": "athena-devchain",
    "authoringVersion": 1,
    "specVersion": SPEC_VERSION,
    "implVersion": 1,
    "apis": [],
    "transactionVersion": TRANSACTION_VERSION,
    "stateVersion": 1,
}
_METADATA_VERSION = 15
_DISPATCH_INFO = {"weight": {"ref_time": 100_000_000, "proof_size": 4_000}, "class": "Normal", "partial_fee": 0}


def call(name: str, parameters: bytes, view: View) -> bytes:
    """SCALE answer of the runtime API `Api_method` as of the view's block.

    Raises NotFound for an API that this chain does not have, BadInput or ValueError for parameters that are none.
    """
    if name == "Metadata_metadata_at_version":
        version = Reader(parameters).number(4)
        return b"\1" + length_prefixed(view.metadata.raw) if version == _METADATA_VERSION else b"\0"
    if name == "TransactionPaymentApi_query_info":  # no fees are taken here, whatever the extrinsic
        return _encode(view.metadata, name, _DISPATCH_INFO)
    api = _APIS.get(name)
    if api is None:
        raise NotFound(f"Exported method {name} is not found")
    inputs = [type_string for _, type_string in view.metadata.runtime_apis[name]["inputs"]]
    if len(inputs) == 1:
        return _encode(view.metadata, name, api(view, view.metadata.codec.decode(inputs[0], parameters, True)))
    return _encode(view.metadata, name, api(view, None))


def _encode(metadata: Metadata, name: str, value: Any) -> bytes:
    """None is the 00 of an `Option`."""
    return b"\0" if value is None else bytes(metadata.codec.encode(metadata.runtime_apis[name]["output"], value))


def _exists(view: View, netuid: int) -> bool:
    return bool(view.get(PALLET, "NetworksAdded", netuid))


def _metagraph(view: View, netuid: int) -> dict[str, Any] | None:
    if not _exists(view, netuid):
        return None
    output = view.metadata.runtime_apis["SubnetInfoRuntimeApi_get_metagraph"]["output"]
    return metagraph.metagraph(view, netuid, view.metadata.zero(view.metadata.optional_type(output)))


def _next_epoch(view: View, netuid: int) -> int | None:
    if not _exists(view, netuid):
        return None
    return int(view.get(PALLET, "LastEpochBlock", netuid)) + int(view.get(PALLET, "Tempo", netuid))


def _prices(view: View, argument: None) -> list[dict[str, int]]:
    """One TAO for one alpha: there is no pool to make a price."""
    del argument
    return [{"netuid": netuid, "price": RAO_PER_TAO} for netuid in view.netuids()]


_APIS: dict[str, Callable[[View, Any], Any]] = {
    "AccountNonceApi_account_nonce": system.nonce,
    "NeuronInfoRuntimeApi_get_neurons": metagraph.neurons,
    "NeuronInfoRuntimeApi_get_neurons_lite": metagraph.neurons_lite,
    "SubnetInfoRuntimeApi_get_metagraph": _metagraph,
    "SubnetInfoRuntimeApi_get_next_epoch_start_block": _next_epoch,
    "SubnetInfoRuntimeApi_get_subnet_hyperparams_v3": lambda view, netuid: (
        metagraph.hyperparameters(view, netuid) if _exists(view, netuid) else None
    ),
    "SwapRuntimeApi_current_alpha_price": lambda view, netuid: RAO_PER_TAO,
    "SwapRuntimeApi_current_alpha_price_all": _prices,
}
"""APIs with one parameter or none; the handler gets the view and the decoded parameter."""
