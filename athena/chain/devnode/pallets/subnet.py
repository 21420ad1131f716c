"""The one subnet: its hyperparameters at block 0 and its columns, one entry per uid."""

from __future__ import annotations

from typing import Any

from athena.chain.devnode.execution import Execution
from athena.chain.devnode.pallets.system import RAO_PER_TAO, set_free
from athena.chain.devnode.settings import MIN_VALIDATOR_TAO, DevnodeSettings
from athena.chain.devnode.storage import View

PALLET = "SubtensorModule"
NOBODY = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"
"""The account of 32 zero bytes: owner of a subnet that has none, and of hotkeys that were never registered."""
NAME, SYMBOL = "athena", "α"
MAX_UIDS = 256
MAX_VALIDATORS = 64
BURN_RAO = RAO_PER_TAO // 10
COLUMNS: dict[str, Any] = {
    "Active": True,
    "Consensus": 0,
    "Dividends": 0,
    "Emission": 0,
    "Incentive": 0,
    "LastUpdate": 0,
    "ValidatorPermit": False,
    "ValidatorTrust": 0,
}
"""Storage items that hold one entry per uid, and what a new neuron starts with."""

_MAINNET_TEMPO, _MAINNET_WEIGHTS_RATE_LIMIT = 360, 100


def weights_rate_limit(tempo: int) -> int:
    """Blocks between two weight settings of one hotkey: the chain's 100 at tempo 360, in proportion for a shorter."""
    return max(1, min(_MAINNET_WEIGHTS_RATE_LIMIT, tempo * _MAINNET_WEIGHTS_RATE_LIMIT // _MAINNET_TEMPO))


def genesis(block: Execution) -> None:
    """Block 0: the subnet with the values that a new subnet gets, balances and stakes from the settings."""
    settings, storage = block.settings, block.storage
    for item, value in _hyperparameters(settings).items():
        storage.put(PALLET, item, settings.netuid, value=value)
    storage.put(PALLET, "TotalNetworks", value=1)
    storage.put(PALLET, "StakeThreshold", value=round(MIN_VALIDATOR_TAO * RAO_PER_TAO))
    for coldkey, tao in settings.balances.items():
        set_free(block, coldkey, round(tao * RAO_PER_TAO))
    for hotkey, tao in settings.stakes.items():
        storage.put(PALLET, "TotalHotkeyAlpha", hotkey, settings.netuid, value=round(tao * RAO_PER_TAO))


def _hyperparameters(settings: DevnodeSettings) -> dict[str, Any]:
    return {
        "NetworksAdded": True,
        "NetworkRegistrationAllowed": True,
        "NetworkPowRegistrationAllowed": False,
        "SubtokenEnabled": True,
        "FirstEmissionBlockNumber": 1,
        "SubnetMechanism": 1,
        "SubnetOwner": NOBODY,
        "SubnetOwnerHotkey": settings.owner_hotkey or NOBODY,
        "TokenSymbol": SYMBOL.encode(),
        "Burn": BURN_RAO,
        "Tempo": settings.tempo,
        "MaxAllowedUids": MAX_UIDS,
        "MaxAllowedValidators": MAX_VALIDATORS,
        "MinAllowedWeights": 1,
        "MaxWeightsLimit": 0xFFFF,
        "WeightsSetRateLimit": weights_rate_limit(settings.tempo),
        "CommitRevealWeightsEnabled": settings.commit_reveal,
        "SubnetEpochConsensus": 0,
        "ImmunityPeriod": 5000,
        "SubnetworkN": 0,
    }


def column(view: View, item: str, netuid: int) -> list[Any]:
    return list(view.get(PALLET, item, netuid))


def set_entry(block: Execution, item: str, netuid: int, uid: int, value: Any) -> None:
    entries = column(block.storage, item, netuid)
    entries[uid] = value
    block.storage.put(PALLET, item, netuid, value=entries)


def uid_of(view: View, netuid: int, hotkey: str) -> int | None:
    uid = view.get(PALLET, "Uids", netuid, hotkey)
    return None if uid is None else int(uid)


def num_uids(view: View, netuid: int) -> int:
    return int(view.get(PALLET, "SubnetworkN", netuid))


def hotkeys(view: View, netuid: int) -> list[str]:
    """Hotkeys in the order of their uids."""
    return [str(view.get(PALLET, "Keys", netuid, uid)) for uid in range(num_uids(view, netuid))]


def stake_rao(view: View, netuid: int, hotkey: str) -> int:
    """Stake behind a hotkey. TAO and the subnet's alpha count the same here: there is no pool between them."""
    return int(view.get(PALLET, "TotalHotkeyAlpha", hotkey, netuid))


def permits(view: View, netuid: int) -> list[bool]:
    """Who holds a validator permit: the `MaxAllowedValidators` largest stakes above zero, ties to the lower uid."""
    stakes = [stake_rao(view, netuid, hotkey) for hotkey in hotkeys(view, netuid)]
    largest = sorted(range(len(stakes)), key=lambda uid: (-stakes[uid], uid))
    holders = set(largest[: view.get(PALLET, "MaxAllowedValidators", netuid)])
    return [uid in holders and stake > 0 for uid, stake in enumerate(stakes)]
