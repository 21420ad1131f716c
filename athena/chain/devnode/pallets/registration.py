"""Registration of hotkeys by burning TAO: the coldkey pays, the hotkey gets a uid."""

from __future__ import annotations

from athena.chain.devnode.execution import DispatchError, Execution
from athena.chain.devnode.extrinsics import Call
from athena.chain.devnode.pallets import subnet, system
from athena.chain.devnode.pallets.subnet import PALLET


def burned_register(block: Execution, coldkey: str, call: Call) -> None:
    _register(block, coldkey, int(call.args["netuid"]), str(call.args["hotkey"]))


def register_limit(block: Execution, coldkey: str, call: Call) -> None:
    """Like burned_register, unless it costs more than the caller's limit."""
    netuid = int(call.args["netuid"])
    _ensure_subnet(block, netuid)
    if block.storage.get(PALLET, "Burn", netuid) > int(call.args["limit_price"]):
        raise DispatchError(PALLET, "RegistrationPriceLimitExceeded")
    _register(block, coldkey, netuid, str(call.args["hotkey"]))


def _ensure_subnet(block: Execution, netuid: int) -> None:
    if netuid == 0:
        raise DispatchError(PALLET, "RegistrationNotPermittedOnRootSubnet")
    if not block.storage.get(PALLET, "NetworksAdded", netuid):
        raise DispatchError(PALLET, "SubnetNotExists")


def _register(block: Execution, coldkey: str, netuid: int, hotkey: str) -> None:
    storage = block.storage
    _ensure_subnet(block, netuid)
    if not storage.get(PALLET, "NetworkRegistrationAllowed", netuid):
        raise DispatchError(PALLET, "SubNetRegistrationDisabled")
    if subnet.uid_of(storage, netuid, hotkey) is not None:
        raise DispatchError(PALLET, "HotKeyAlreadyRegisteredInSubNet")
    burn, free = int(storage.get(PALLET, "Burn", netuid)), system.free_rao(storage, coldkey)
    existential_rao = int(storage.metadata.codec.constant("Balances", "ExistentialDeposit"))
    if free < burn + existential_rao:
        raise DispatchError(PALLET, "NotEnoughBalanceToStake")
    owner = str(storage.get(PALLET, "Owner", hotkey))
    if owner not in (subnet.NOBODY, coldkey):
        raise DispatchError(PALLET, "NonAssociatedColdKey")
    uid = _append(block, netuid, hotkey)
    if owner == subnet.NOBODY:
        storage.put(PALLET, "Owner", hotkey, value=coldkey)
        owned = storage.get(PALLET, "OwnedHotkeys", coldkey)
        storage.put(PALLET, "OwnedHotkeys", coldkey, value=[*owned, hotkey])
    system.set_free(block, coldkey, free - burn)
    block.deposit_event("Balances", "Withdraw", {"who": coldkey, "amount": burn})
    block.deposit_event(PALLET, "NeuronRegistered", (netuid, uid, hotkey))


def _append(block: Execution, netuid: int, hotkey: str) -> int:
    """A new uid with its entry in every column. Nobody is pruned: a full subnet takes no more."""
    storage = block.storage
    uid = subnet.num_uids(storage, netuid)
    if uid >= storage.get(PALLET, "MaxAllowedUids", netuid):
        raise DispatchError(PALLET, "NoNeuronIdAvailable")
    storage.put(PALLET, "SubnetworkN", netuid, value=uid + 1)
    storage.put(PALLET, "Uids", netuid, hotkey, value=uid)
    storage.put(PALLET, "Keys", netuid, uid, value=hotkey)
    storage.put(PALLET, "BlockAtRegistration", netuid, uid, value=block.number)
    storage.put(PALLET, "IsNetworkMember", hotkey, netuid, value=True)
    for item, first in subnet.COLUMNS.items():
        value = block.number if item == "LastUpdate" else first
        storage.put(PALLET, item, netuid, value=[*subnet.column(storage, item, netuid), value])
    # The chain grants permits at epochs; here a validator may set weights from its registration on.
    storage.put(PALLET, "ValidatorPermit", netuid, value=subnet.permits(storage, netuid))
    return uid
