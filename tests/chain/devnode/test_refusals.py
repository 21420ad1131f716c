"""What the chain refuses comes back by the chain's own name, through the unmodified SDK."""

from __future__ import annotations

import time

import bittensor as bt
import pytest

set_commitment = bt.calls.Commitments.set_commitment
PLAIN = set_commitment(netuid=1, info={"fields": [{"Raw5": b"hello"}]})


def refusal(result) -> str:
    assert not result.success
    return result.error.name


def wait_blocks(subtensor, count: int) -> None:
    until = subtensor.block + count
    while subtensor.block < until:
        time.sleep(0.05)


def signed_later(subtensor, wallet, **how):
    """A prepared commitment and the signature of its hotkey, not yet submitted."""
    unsigned = subtensor.prepare_call(PLAIN, address=wallet.hotkey.ss58_address, **how)
    return unsigned, wallet.hotkey.sign(unsigned.payload)


def test_forged_signature(subtensor, registered):
    victim, forger = registered.miners
    unsigned = subtensor.prepare_call(PLAIN, address=victim.hotkey.ss58_address)
    forged = forger.hotkey.sign(unsigned.payload)
    assert refusal(subtensor.submit_signature(unsigned, forged)) == "BadProof"
    assert refusal(subtensor.submit_signature(unsigned, bytes(64))) == "BadProof"


def test_signature_of_another_chain(subtensor, registered):
    unsigned, _ = signed_later(subtensor, registered.miners[0])
    genesis = bytes.fromhex(unsigned.genesis_hash.removeprefix("0x"))
    elsewhere = registered.miners[0].hotkey.sign(unsigned.payload.replace(genesis, bytes(32)))
    assert refusal(subtensor.submit_signature(unsigned, elsewhere)) == "BadProof"


def test_used_nonce(subtensor, registered):
    subtensor.submit_call(PLAIN, registered.miners[0], signer="hotkey").raise_for_failure()
    unsigned, signature = signed_later(subtensor, registered.miners[0], nonce=0)
    assert refusal(subtensor.submit_signature(unsigned, signature)) == "Stale"


def test_nonce_of_the_future_waits_until_its_era_is_over(subtensor, registered):
    unsigned, signature = signed_later(subtensor, registered.miners[0], nonce=10_000, period=4)
    assert refusal(subtensor.submit_signature(unsigned, signature)) == "Invalid"


def test_expired_era(subtensor, registered):
    unsigned, signature = signed_later(subtensor, registered.miners[0], period=4)
    wait_blocks(subtensor, 5)
    assert refusal(subtensor.submit_signature(unsigned, signature)) == "AncientBirthBlock"


def test_era_still_open(subtensor, registered):
    unsigned, signature = signed_later(subtensor, registered.miners[0], period=64)
    wait_blocks(subtensor, 5)
    assert subtensor.submit_signature(unsigned, signature).success


def test_same_extrinsic_twice(subtensor, registered):
    unsigned, signature = signed_later(subtensor, registered.miners[0])
    assert subtensor.submit_signature(
        unsigned, signature, wait_for_inclusion=False, wait_for_finalization=False
    ).success
    again = subtensor.submit_signature(unsigned, signature)
    assert refusal(again) in {"AlreadyImported", "Stale"}  # Stale once a block took the first


def test_exceeded_quota(subtensor, registered):
    subtensor.wait_for_epoch(1)
    field = {"Raw128": b"x" * 128}
    call = set_commitment(netuid=1, info={"fields": [field] * 3})
    results = []
    while not results or results[-1].success:
        results.append(subtensor.submit_call(call, registered.miners[1], signer="hotkey"))
    assert refusal(results[-1]) == "SpaceLimitExceeded"
    assert len(results) == 3100 // 384 + 1
    subtensor.wait_for_epoch(1)
    assert subtensor.submit_call(call, registered.miners[1], signer="hotkey").success


def test_commitment_of_a_hotkey_without_uid(subtensor, registered):
    result = subtensor.submit_call(PLAIN, registered.stranger, signer="hotkey")
    assert refusal(result) == "AccountNotAllowedCommit"
    by_coldkey = subtensor.submit_call(PLAIN, registered.stranger)
    assert refusal(by_coldkey) == "AccountNotAllowedCommit"


def test_too_many_fields(subtensor, registered):
    call = set_commitment(netuid=1, info={"fields": [{"Raw1": b"x"}] * 4})
    result = subtensor.submit_call(call, registered.miners[0], signer="hotkey")
    assert refusal(result) == "TooManyFieldsInCommitmentInfo"


@pytest.mark.parametrize(
    "field",
    [{"BigRaw": b"x" * 513}, {"TimelockEncrypted": {"encrypted": b"x" * 1025, "reveal_round": 1000}}],
    ids=["raw", "sealed"],
)
def test_field_over_its_size_is_not_an_extrinsic(subtensor, registered, field):
    call = set_commitment(netuid=1, info={"fields": [field]})
    result = subtensor.submit_call(call, registered.miners[0], signer="hotkey")
    assert not result.success
    assert "invalid format" in result.message


def test_registration_without_money(connect, node, registered):
    with connect(node.url) as subtensor:
        result = subtensor.execute(bt.BurnedRegister(netuid=1), registered.stranger)
    assert refusal(result) == "NotEnoughBalanceToStake"


@pytest.mark.parametrize(
    ("netuid", "name"),
    [(1, "HotKeyAlreadyRegisteredInSubNet"), (7, "SubnetNotExists"), (0, "RegistrationNotPermittedOnRootSubnet")],
)
def test_registration_refused(connect, node, registered, netuid, name):
    wallet = registered.miners[0]
    call = bt.calls.SubtensorModule.burned_register(netuid=netuid, hotkey=wallet.hotkey.ss58_address)
    with connect(node.url) as subtensor:
        assert refusal(subtensor.submit_call(call, wallet)) == name


def test_hotkey_of_another_coldkey(connect, node, registered):
    call = bt.calls.SubtensorModule.burned_register(netuid=1, hotkey=registered.validator.hotkey.ss58_address)
    with connect(node.url) as subtensor:
        # The SDK's own check is by netuid; the chain's is by owner, and comes after that of the uid.
        assert refusal(subtensor.submit_call(call, registered.miners[0])) == "HotKeyAlreadyRegisteredInSubNet"


def weights(uids: list[int], values: list[int]):
    return bt.calls.SubtensorModule.set_mechanism_weights(netuid=1, mecid=0, dests=uids, weights=values, version_key=0)


def test_weights_without_stake(subtensor, registered):
    result = subtensor.submit_call(weights([0], [1]), registered.miners[0], signer="hotkey")
    assert refusal(result) == "NotEnoughStakeToSetWeights"


def test_weights_without_uid(subtensor, registered):
    result = subtensor.submit_call(weights([0], [1]), registered.stranger, signer="hotkey")
    assert refusal(result) == "HotKeyNotRegisteredInSubNet"


@pytest.mark.parametrize(
    ("uids", "values", "name"),
    [
        ([1, 2], [1], "WeightVecNotEqualSize"),
        ([0, 1, 2, 3], [1, 1, 1, 1], "UidsLengthExceedUidsInSubNet"),
        ([1, 1], [1, 1], "DuplicateUids"),
        ([9], [1], "UidVecContainInvalidOne"),
        ([], [], "WeightVecLengthIsLow"),
    ],
)
def test_malformed_weights(subtensor, registered, uids, values, name):
    last = subtensor.query(bt.storage.SubtensorModule.LastUpdate, [1])[0]
    subtensor.wait_for_block(last + 11)
    result = subtensor.submit_call(weights(uids, values), registered.validator, signer="hotkey")
    assert refusal(result) == name


def test_weights_set_too_fast(subtensor, registered):
    last = subtensor.query(bt.storage.SubtensorModule.LastUpdate, [1])[0]
    subtensor.wait_for_block(last + 11)
    call = weights([1], [1])
    assert subtensor.submit_call(call, registered.validator, signer="hotkey").success
    assert refusal(subtensor.submit_call(call, registered.validator, signer="hotkey")) == "SettingWeightsTooFast"


def test_commits_of_weights_are_off(subtensor, registered):
    call = bt.calls.SubtensorModule.commit_timelocked_mechanism_weights(
        netuid=1, mecid=0, commit=b"sealed", reveal_round=1000, commit_reveal_version=4
    )
    assert refusal(subtensor.submit_call(call, registered.validator, signer="hotkey")) == "CommitRevealDisabled"


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [({"ip": "127.0.0.1", "port": 80}, "InvalidIpAddress"), ({"ip": "203.0.113.9", "port": 0}, "InvalidPort")],
)
def test_endpoint_refused(subtensor, registered, endpoint, name):
    result = subtensor.execute(bt.ServeAxon(netuid=1, **endpoint), registered.miners[1])
    assert refusal(result) == name


def test_calls_that_this_chain_does_not_have(subtensor, registered):
    call = bt.calls.Balances.transfer_keep_alive(dest=registered.stranger.coldkeypub.ss58_address, value=1)
    assert refusal(subtensor.submit_call(call, registered.miners[0], signer="hotkey")) == "CallFiltered"
