"""The unmodified SDK against a running dev chain: what a miner and a validator do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math

import bittensor as bt
import bittensor_core
import pytest

RAW = bt.calls.Commitments.set_commitment


def commit_plain(subtensor, wallet, text: str):
    data = text.encode()
    fields = [{f"Raw{len(data[i : i + 128])}": data[i : i + 128]} for i in range(0, len(data), 128)]
    return subtensor.submit_call(RAW(netuid=1, info={"fields": fields}), wallet, signer="hotkey")


def reveal_round(subtensor, blocks: int) -> int:
    """The rule that is the same on finney."""
    config = subtensor.query(bt.storage.Drand.BeaconConfig)
    reveal = subtensor.time.timestamp() + blocks * subtensor.block_time()
    return 1 + math.ceil((reveal - config["genesis_time"]) / config["period"])


def seal(text: str, round_: int) -> dict[str, object]:
    data = text.encode()
    prefixed = (bytes([len(data) << 2]) if len(data) < 64 else (len(data) << 2 | 1).to_bytes(2, "little")) + data
    ciphertext, actual = bittensor_core.encrypt_at_round(prefixed, round_)
    encrypted = bytes(bittensor_core.inner_ciphertext(ciphertext))
    return {"TimelockEncrypted": {"encrypted": encrypted, "reveal_round": actual}}


def test_blocks_come_at_the_configured_pace(subtensor):
    assert subtensor.block_time() == 0.05
    first = subtensor.block
    heads = []
    with contextlib.closing(subtensor.blocks(finalized=True)) as stream:
        for head in itertools.islice(stream, 5):
            heads.append(head.number)
    assert heads == list(range(heads[0], heads[0] + 5))
    assert heads[0] >= first


def test_burned_register_burns_and_gives_uids_in_order(subtensor, registered):
    neurons = subtensor.neurons.all(1)
    assert [n.hotkey for n in neurons] == [
        wallet.hotkey.ss58_address for wallet in (registered.validator, *registered.miners)
    ]
    assert [n.uid for n in neurons] == [0, 1, 2]
    assert [n.validator_permit for n in neurons] == [True, False, False]
    for wallet in (registered.validator, *registered.miners):
        assert subtensor.balances.get(wallet.coldkeypub.ss58_address).tao == pytest.approx(9.9)
    graph = subtensor.subnets.metagraph(1)
    assert [n.coldkey for n in graph] == [
        wallet.coldkeypub.ss58_address for wallet in (registered.validator, *registered.miners)
    ]
    assert graph.neurons[0].total_stake.rao == 2000 * 10**9
    assert 0 < graph.neurons[0].block_at_registration < graph.neurons[1].block_at_registration


def test_the_burn_is_that_of_the_map_too(subtensor):
    (info,) = subtensor.subnets.all()
    assert (info.netuid, info.tempo, info.burn.tao) == (1, 40, 0.1)


@pytest.mark.parametrize("length", [5, 128, 384])
def test_plain_commitment_is_readable_and_its_past_stays(subtensor, registered, length):
    wallet = registered.miners[0]
    before = subtensor.block
    text = "c" * length
    result = commit_plain(subtensor, wallet, text)
    assert result.success, result.message
    now = subtensor.at(subtensor.block).subnets.commitments(1)[wallet.hotkey.ss58_address]
    assert (now.uid, now.value, now.status) == (1, text, "plain")
    assert now.block == int(result.extrinsic_id.split("-")[0]) > before
    earlier = subtensor.at(before).subnets.commitments(1)[wallet.hotkey.ss58_address]
    assert earlier is None or earlier.value != text


def test_sealed_commitment_opens_after_its_blocks(subtensor, registered, node):
    wallet = registered.miners[1]
    hotkey = wallet.hotkey.ss58_address
    text = "ath1|hf:athena/sealed|" + "0" * 40
    round_ = reveal_round(subtensor, 100)
    assert round_ == 1000
    result = subtensor.submit_call(
        RAW(netuid=1, info={"fields": [seal(text, round_)]}), wallet, signer="hotkey"
    ).raise_for_failure()
    commit_block = int(result.extrinsic_id.split("-")[0])
    sealed = subtensor.at(commit_block).subnets.commitments(1)[hotkey]
    assert (sealed.status, sealed.value, sealed.block) == ("sealed", None, commit_block)
    subtensor.wait_for_block(commit_block + node.settings.reveal_blocks)
    revealed = subtensor.at(commit_block + node.settings.reveal_blocks).subnets.commitments(1)[hotkey]
    assert (revealed.status, revealed.value) == ("revealed", text)
    last = subtensor.query(bt.storage.Commitments.LastCommitment, [1, hotkey])
    assert int(last) == commit_block
    assert subtensor.at(commit_block + 5).subnets.commitments(1)[hotkey].status == "sealed"


def test_what_is_no_ciphertext_fails_to_open(subtensor, registered, node):
    wallet = registered.miners[1]
    field = {"TimelockEncrypted": {"encrypted": b"no ciphertext", "reveal_round": 1000}}
    result = subtensor.submit_call(RAW(netuid=1, info={"fields": [field]}), wallet, signer="hotkey").raise_for_failure()
    block = int(result.extrinsic_id.split("-")[0]) + node.settings.reveal_blocks
    subtensor.wait_for_block(block)
    assert subtensor.at(block).subnets.commitments(1)[wallet.hotkey.ss58_address].status == "failed"


def test_an_expired_pulse_fails_at_once_and_a_later_one_never_comes(subtensor, registered):
    wallet = registered.miners[1]
    hotkey = wallet.hotkey.ss58_address
    for round_, status in ((999, "failed"), (1001, "sealed")):
        call = RAW(netuid=1, info={"fields": [seal("x", round_)]})
        result = subtensor.submit_call(call, wallet, signer="hotkey").raise_for_failure()
        block = int(result.extrinsic_id.split("-")[0]) + 8
        subtensor.wait_for_block(block)
        assert subtensor.at(block).subnets.commitments(1)[hotkey].status == status


def test_weights_become_incentive_at_the_epoch(subtensor, registered, node):
    subtensor.wait_for_block(subtensor.query(bt.storage.SubtensorModule.LastUpdate, [1])[0] + 12)
    result = subtensor.execute(bt.SetWeights(netuid=1, weights={1: 0.75, 2: 0.25}), registered.validator)
    result.raise_for_failure()
    event = subtensor.wait_for_epoch(1)
    graph = subtensor.at(event.block).subnets.metagraph(1)
    assert [n.incentive for n in graph] == pytest.approx([0, 0.75, 0.25], abs=1e-4)
    assert [n.dividends for n in graph] == pytest.approx([1, 0, 0], abs=1e-4)
    assert graph.last_step == event.block
    status = subtensor.at(event.block).read("epoch_status", netuid=1)
    assert status["next_epoch_start_block"] == event.block + node.settings.tempo


def test_served_endpoint_is_in_the_metagraph(subtensor, registered):
    subtensor.execute(bt.ServeAxon(netuid=1, ip="203.0.113.7", port=8091), registered.miners[0]).raise_for_failure()
    assert subtensor.subnets.metagraph(1).neurons[1].axon == "203.0.113.7:8091"


def test_hyperparameters_and_prices(subtensor):
    parameters = subtensor.read("subnet_hyperparameters", netuid=1)
    assert (parameters["tempo"], parameters["weights_rate_limit"]) == (40, 11)
    assert subtensor.read("alpha_prices") == {1: 1.0}


def test_pipelined_commitments_share_a_block(node, registered):
    calls = [RAW(netuid=1, info={"fields": [{"Raw1": digit.encode()}]}) for digit in "12"]

    async def run() -> list[str]:
        async with bt.Subtensor(node.url) as client:
            await client.block_info()
            submitted = [client.submit_call(call, registered.miners[0], signer="hotkey") for call in calls]
            return [result.extrinsic_id for result in await asyncio.gather(*submitted)]

    # Two submissions can straddle the end of a block: of a few pairs, one shares it.
    pairs = [[extrinsic.split("-") for extrinsic in asyncio.run(run())] for _ in range(5)]
    shared = [(first, second) for first, second in pairs if first[0] == second[0]]
    assert shared and all(first[1] != second[1] for first, second in shared)


def test_weights_are_committed_sealed_where_the_subnet_asks_for_it(own_node, connect, cast):
    own_node.settings = own_node.settings.model_copy(update={"commit_reveal": True})
    own_node.start()
    with connect(own_node.url) as subtensor:
        subtensor.execute(bt.BurnedRegister(netuid=1), cast.validator).raise_for_failure()
        subtensor.wait_for_block(subtensor.block + 12)
        result = subtensor.execute(bt.SetWeights(netuid=1, weights={0: 1.0}), cast.validator).raise_for_failure()
        assert result.data["reveal_round"] > 20_000_000
        epoch = subtensor.query(bt.storage.SubtensorModule.SubnetEpochIndex, [1])
        waiting = [
            entry
            for index in (epoch - 1, epoch)
            if index >= 0
            for entry in subtensor.query(bt.storage.SubtensorModule.TimelockedWeightCommits, [1, index])
        ]
        assert [entry[0] for entry in waiting] == [cast.validator.hotkey.ss58_address]
