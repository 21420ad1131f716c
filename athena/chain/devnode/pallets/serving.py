"""Endpoints that neurons publish: ServeAxon."""

from __future__ import annotations

from athena.chain.devnode.execution import DispatchError, Execution
from athena.chain.devnode.extrinsics import Call
from athena.chain.devnode.pallets import subnet
from athena.chain.devnode.pallets.subnet import PALLET

_FIELDS = ("version", "ip", "port", "ip_type", "protocol", "placeholder1", "placeholder2")
_LOCALHOST = {4: 0x7F000001, 6: 1}
_BROADCAST = {4: 2**32 - 1, 6: 2**128 - 1}


def serve_axon(block: Execution, hotkey: str, call: Call) -> None:
    """Publishes the hotkey's address; loopback addresses are refused, as on the real chain."""
    storage, netuid = block.storage, int(call.args["netuid"])
    if not storage.get(PALLET, "NetworksAdded", netuid):
        raise DispatchError(PALLET, "SubnetNotExists")
    if subnet.uid_of(storage, netuid, hotkey) is None:
        raise DispatchError(PALLET, "HotKeyNotRegisteredInNetwork")
    axon = {name: int(call.args[name]) for name in _FIELDS}
    if axon["ip_type"] not in _LOCALHOST:
        raise DispatchError(PALLET, "InvalidIpType")
    if axon["ip"] == _LOCALHOST[axon["ip_type"]] or axon["ip"] >= _BROADCAST[axon["ip_type"]]:
        raise DispatchError(PALLET, "InvalidIpAddress")
    before = storage.get(PALLET, "Axons", netuid, hotkey)
    limit = storage.get(PALLET, "ServingRateLimit", netuid)
    if before and before["block"] and block.number - before["block"] < limit:
        raise DispatchError(PALLET, "ServingRateLimitExceeded")
    if axon["port"] == 0:
        raise DispatchError(PALLET, "InvalidPort")
    storage.put(PALLET, "Axons", netuid, hotkey, value=axon | {"block": block.number})
    block.deposit_event(PALLET, "AxonServed", (netuid, hotkey))
