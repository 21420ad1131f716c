"""Weights that validators set, with the chain's checks in the chain's order."""

from __future__ import annotations

from athena.chain.devnode.block import blake2b_256
from athena.chain.devnode.execution import DispatchError, Execution
from athena.chain.devnode.extrinsics import Call
from athena.chain.devnode.pallets import drand, subnet
from athena.chain.devnode.pallets.subnet import PALLET
from athena.chain.devnode.scale import Reader, compact, length_prefixed

U16_MAX = 0xFFFF
MAX_COMMIT_BYTES = 5000
MAX_UNREVEALED_COMMITS = 10


def set_weights(block: Execution, hotkey: str, call: Call) -> None:
    _set(block, hotkey, call)


def set_mechanism_weights(block: Execution, hotkey: str, call: Call) -> None:
    _ensure_main_mechanism(call)
    _set(block, hotkey, call)


def _set(block: Execution, hotkey: str, call: Call) -> None:
    storage, netuid = block.storage, int(call.args["netuid"])
    uids, values = [int(uid) for uid in call.args["dests"]], [int(value) for value in call.args["weights"]]
    if storage.get(PALLET, "CommitRevealWeightsEnabled", netuid):
        raise DispatchError(PALLET, "CommitRevealEnabled")
    if len(uids) != len(values):
        raise DispatchError(PALLET, "WeightVecNotEqualSize")
    if not storage.get(PALLET, "NetworksAdded", netuid):
        raise DispatchError(PALLET, "SubnetNotExists")
    if len(uids) > subnet.num_uids(storage, netuid):
        raise DispatchError(PALLET, "UidsLengthExceedUidsInSubNet")
    uid = _ensure_staked(block, netuid, hotkey)
    required = storage.get(PALLET, "WeightsVersionKey", netuid)
    if required and int(call.args["version_key"]) < required:
        raise DispatchError(PALLET, "IncorrectWeightVersionKey")
    _ensure_rate(block, netuid, uid, "SettingWeightsTooFast")
    is_self_weight = uids == [uid]
    if not is_self_weight and not subnet.column(storage, "ValidatorPermit", netuid)[uid]:
        raise DispatchError(PALLET, "NeuronNoValidatorPermit")
    if len(set(uids)) != len(uids):
        raise DispatchError(PALLET, "DuplicateUids")
    if any(target >= subnet.num_uids(storage, netuid) for target in uids):
        raise DispatchError(PALLET, "UidVecContainInvalidOne")
    fewest = min(storage.get(PALLET, "MinAllowedWeights", netuid), subnet.num_uids(storage, netuid))
    if not is_self_weight and len(values) < fewest:
        raise DispatchError(PALLET, "WeightVecLengthIsLow")
    limit = storage.get(PALLET, "MaxWeightsLimit", netuid)
    if not is_self_weight and max(values, default=0) * U16_MAX > limit * sum(values):
        raise DispatchError(PALLET, "MaxWeightExceeded")
    top = max(values, default=0)
    upscaled = [round(value * U16_MAX / top) if top else 0 for value in values]
    storage.put(PALLET, "Weights", netuid, uid, value=list(zip(uids, upscaled, strict=True)))
    subnet.set_entry(block, "LastUpdate", netuid, uid, block.number)
    block.deposit_event(PALLET, "WeightsSet", (netuid, uid))


def commit_of(call: Call) -> bytes:
    """The sealed weights of a call, after netuid and mechanism."""
    return Reader(call.data[3 if "mecid" in call.args else 2 :]).vector(max_bytes=MAX_COMMIT_BYTES)


def commit_timelocked_weights(block: Execution, hotkey: str, call: Call) -> None:
    _commit(block, hotkey, call)


def commit_timelocked_mechanism_weights(block: Execution, hotkey: str, call: Call) -> None:
    _ensure_main_mechanism(call)
    _commit(block, hotkey, call)


def _commit(block: Execution, hotkey: str, call: Call) -> None:
    """Stores sealed weights by epoch. They name a round of the real beacon, so they stay sealed here."""
    storage, netuid = block.storage, int(call.args["netuid"])
    commit, reveal_round = commit_of(call), int(call.args["reveal_round"])
    if not storage.get(PALLET, "NetworksAdded", netuid):
        raise DispatchError(PALLET, "SubnetNotExists")
    if not storage.get(PALLET, "CommitRevealWeightsEnabled", netuid):
        raise DispatchError(PALLET, "CommitRevealDisabled")
    if int(call.args["commit_reveal_version"]) != storage.get(PALLET, "CommitRevealWeightsVersion"):
        raise DispatchError(PALLET, "IncorrectCommitRevealVersion")
    if reveal_round < drand.ROUND - 1:
        raise DispatchError(PALLET, "InvalidRevealRound")
    uid = _ensure_staked(block, netuid, hotkey)
    _ensure_rate(block, netuid, uid, "CommittingWeightsTooFast")
    epoch = storage.get(PALLET, "SubnetEpochIndex", netuid)
    waiting = storage.get(PALLET, "TimelockedWeightCommits", netuid, epoch)
    if sum(1 for entry in waiting if entry[0] == hotkey) >= MAX_UNREVEALED_COMMITS:
        raise DispatchError(PALLET, "TooManyUnrevealedCommits")
    _append_commit(block, netuid, epoch, len(waiting), hotkey, commit, reveal_round)
    subnet.set_entry(block, "LastUpdate", netuid, uid, block.number)
    block.deposit_event(PALLET, "TimelockedWeightsCommitted", (hotkey, netuid, blake2b_256(commit), reveal_round))


def _append_commit(
    block: Execution, netuid: int, epoch: int, count: int, hotkey: str, commit: bytes, reveal_round: int
) -> None:
    """Appends (who, block, commit, round) to `TimelockedWeightCommits`, byte-exact: a commit may look like text."""
    storage, item = block.storage, "TimelockedWeightCommits"
    entry = storage.metadata.encode_storage(PALLET, "Owner", hotkey) + block.number.to_bytes(8, "little")
    entry += length_prefixed(commit) + reveal_round.to_bytes(8, "little")
    raw = storage.get_raw(PALLET, item, netuid, epoch) or b"\0"
    reader = Reader(raw)
    reader.compact()
    storage.put_raw(PALLET, item, netuid, epoch, value=compact(count + 1) + reader.rest() + entry)


def _ensure_main_mechanism(call: Call) -> None:
    if int(call.args["mecid"]) != 0:
        raise DispatchError(PALLET, "MechanismDoesNotExist")


def _ensure_staked(block: Execution, netuid: int, hotkey: str) -> int:
    """The hotkey's uid, if it is registered and has the stake that setting weights takes."""
    uid = subnet.uid_of(block.storage, netuid, hotkey)
    if uid is None:
        raise DispatchError(PALLET, "HotKeyNotRegisteredInSubNet")
    if subnet.stake_rao(block.storage, netuid, hotkey) < block.storage.get(PALLET, "StakeThreshold"):
        raise DispatchError(PALLET, "NotEnoughStakeToSetWeights")
    return uid


def _ensure_rate(block: Execution, netuid: int, uid: int, error: str) -> None:
    last = subnet.column(block.storage, "LastUpdate", netuid)[uid]
    if last and block.number - last < block.storage.get(PALLET, "WeightsSetRateLimit", netuid):
        raise DispatchError(PALLET, error)
