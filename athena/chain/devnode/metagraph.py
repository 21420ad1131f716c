"""The subnet as clients read it: neurons, metagraph and hyperparameters, put together from storage at one block."""

from __future__ import annotations

from typing import Any

from athena.chain.devnode.pallets import subnet
from athena.chain.devnode.pallets.subnet import PALLET
from athena.chain.devnode.storage import View

_STORED = {
    "burn": "Burn",
    "commit_reveal_period": "RevealPeriodEpochs",
    "commit_reveal_weights_enabled": "CommitRevealWeightsEnabled",
    "immunity_period": "ImmunityPeriod",
    "kappa": "Kappa",
    "last_step": "LastMechansimStepBlock",
    "max_burn": "MaxBurn",
    "max_uids": "MaxAllowedUids",
    "max_validators": "MaxAllowedValidators",
    "max_weights_limit": "MaxWeightsLimit",
    "min_allowed_weights": "MinAllowedWeights",
    "min_burn": "MinBurn",
    "num_uids": "SubnetworkN",
    "owner_coldkey": "SubnetOwner",
    "owner_hotkey": "SubnetOwnerHotkey",
    "pow_registration_allowed": "NetworkPowRegistrationAllowed",
    "registration_allowed": "NetworkRegistrationAllowed",
    "rho": "Rho",
    "serving_rate_limit": "ServingRateLimit",
    "tempo": "Tempo",
    "weights_rate_limit": "WeightsSetRateLimit",
    "weights_version": "WeightsVersionKey",
}
"""Metagraph field to the storage item it shows."""
_COLUMNS = {
    "active": "Active",
    "consensus": "Consensus",
    "dividends": "Dividends",
    "emission": "Emission",
    "incentives": "Incentive",
    "last_update": "LastUpdate",
    "validator_permit": "ValidatorPermit",
}
_NO_AXON = dict.fromkeys(("block", "version", "ip", "port", "ip_type", "protocol", "placeholder1", "placeholder2"), 0)
_NO_PROMETHEUS = dict.fromkeys(("block", "version", "ip", "port", "ip_type"), 0)
_HYPERPARAMETERS = {
    "activity_cutoff": ("ActivityCutoff", "U16"),
    "commit_reveal_period": ("RevealPeriodEpochs", "U64"),
    "commit_reveal_weights_enabled": ("CommitRevealWeightsEnabled", "Bool"),
    "immunity_period": ("ImmunityPeriod", "U16"),
    "kappa": ("Kappa", "U16"),
    "max_burn": ("MaxBurn", "TaoBalance"),
    "max_validators": ("MaxAllowedValidators", "U16"),
    "max_weights_limit": ("MaxWeightsLimit", "U16"),
    "min_allowed_weights": ("MinAllowedWeights", "U16"),
    "min_burn": ("MinBurn", "TaoBalance"),
    "registration_allowed": ("NetworkRegistrationAllowed", "Bool"),
    "rho": ("Rho", "U16"),
    "serving_rate_limit": ("ServingRateLimit", "U64"),
    "tempo": ("Tempo", "U16"),
    "weights_rate_limit": ("WeightsSetRateLimit", "U64"),
    "weights_version": ("WeightsVersionKey", "U64"),
}
"""Hyperparameter to its storage item and the variant that carries it."""


def hyperparameters(view: View, netuid: int) -> list[dict[str, Any]]:
    return [
        {"name": name.encode(), "value": {variant: view.get(PALLET, item, netuid)}}
        for name, (item, variant) in _HYPERPARAMETERS.items()
    ]


def neurons_lite(view: View, netuid: int) -> list[dict[str, Any]]:
    """`NeuronInfoLite` of every uid."""
    columns = {item: subnet.column(view, item, netuid) for item in subnet.COLUMNS}
    neurons = []
    for uid, hotkey in enumerate(subnet.hotkeys(view, netuid)):
        coldkey = str(view.get(PALLET, "Owner", hotkey))
        neurons.append(
            {
                "hotkey": hotkey,
                "coldkey": coldkey,
                "uid": uid,
                "netuid": netuid,
                "active": columns["Active"][uid],
                "axon_info": _axon(view, netuid, hotkey),
                "prometheus_info": _NO_PROMETHEUS,
                "stake": [(coldkey, subnet.stake_rao(view, netuid, hotkey))],
                "rank": 0,
                "emission": columns["Emission"][uid],
                "incentive": columns["Incentive"][uid],
                "consensus": columns["Consensus"][uid],
                "trust": 0,
                "validator_trust": columns["ValidatorTrust"][uid],
                "dividends": columns["Dividends"][uid],
                "last_update": columns["LastUpdate"][uid],
                "validator_permit": columns["ValidatorPermit"][uid],
                "pruning_score": 0,
            }
        )
    return neurons


def neurons(view: View, netuid: int) -> list[dict[str, Any]]:
    """`NeuronInfo` of every uid: the above with the weights it set."""
    return [
        neuron | {"weights": view.get(PALLET, "Weights", netuid, neuron["uid"]), "bonds": []}
        for neuron in neurons_lite(view, netuid)
    ]


def _axon(view: View, netuid: int, hotkey: str) -> dict[str, int]:
    return view.get(PALLET, "Axons", netuid, hotkey) or _NO_AXON


def metagraph(view: View, netuid: int, zero: dict[str, Any]) -> dict[str, Any]:
    """`Metagraph` of the subnet; what this chain does not model keeps its value in `zero`."""
    hotkeys = subnet.hotkeys(view, netuid)
    stakes = [subnet.stake_rao(view, netuid, hotkey) for hotkey in hotkeys]
    unknown = ("pruning_score", "trust", "rank", "tao_stake")
    collateral = ("collateral_locked", "collateral_min", "collateral_earned")
    registered = [view.get(PALLET, "BlockAtRegistration", netuid, uid) for uid in range(len(hotkeys))]
    stored = {field: view.get(PALLET, item, netuid) for field, item in _STORED.items()}
    return {
        **zero,
        **stored,
        **{field: subnet.column(view, item, netuid) for field, item in _COLUMNS.items()},
        **{field: [0] * len(hotkeys) for field in (*unknown, *collateral)},
        "netuid": netuid,
        "name": list(subnet.NAME.encode()),
        "symbol": list(subnet.SYMBOL.encode()),
        "block": view.number,
        "blocks_since_last_step": view.number - stored["last_step"],
        "activity_cutoff": view.get(PALLET, "ActivityCutoff", netuid),
        "hotkeys": hotkeys,
        "coldkeys": [str(view.get(PALLET, "Owner", hotkey)) for hotkey in hotkeys],
        "identities": [None] * len(hotkeys),
        "axons": [_axon(view, netuid, hotkey) for hotkey in hotkeys],
        "block_at_registration": registered,
        "alpha_stake": stakes,
        "total_stake": stakes,
    }
