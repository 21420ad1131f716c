"""The client against a real node process: the unmodified SDK over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time

import bittensor
import bittensor_core
import pytest

from athena.chain.client import Chain, ChainRefused, Committed, Head
from athena.chain.wallets import hotkey_of, open_wallet
from athena.errors import BadInput, Misconfigured, NotFound, Unavailable


def wait_blocks(chain: Chain, count: int) -> None:
    for passed, _ in enumerate(chain.heads()):
        if passed == count:
            return


def entry_of(chain: Chain, name: str, wallet_of, block: int | None = None) -> Committed:
    block = chain.head().number if block is None else block
    [entry] = [entry for entry in chain.commitments(block) if entry.hotkey == hotkey_of(wallet_of(name))]
    return entry


def test_register_gives_a_uid_once(chain_of, wallet_of):
    chain = chain_of("alice")
    uid = chain.register()
    [neuron] = [neuron for neuron in chain.neurons() if neuron.hotkey == hotkey_of(wallet_of("alice"))]
    assert (neuron.uid, neuron.coldkey) == (uid, wallet_of("alice").coldkeypub.ss58_address)
    assert 0 < neuron.registered_block <= chain.head().number and not neuron.validator_permit
    assert chain.register() == uid
    assert chain.neurons()[uid].registered_block == neuron.registered_block
    assert all(n.hotkey != neuron.hotkey for n in chain.neurons(neuron.registered_block - 1)), "archive read"


def test_register_asks_for_an_unlocked_coldkey(node, tmp_path, monkeypatch):
    wallet = open_wallet("dave", path=tmp_path, create=True)
    coldkey = tmp_path / "dave" / "coldkey"
    with contextlib.closing(Chain(node.address, 1, wallet)) as chain:
        coldkey.unlink()
        with pytest.raises(Misconfigured, match="no coldkey here"):
            chain.register()
        coldkey.write_bytes(b"$NACL" + bytes(100))  # how an encrypted keyfile begins
        with pytest.raises(Misconfigured, match="is locked"):
            chain.register()
        monkeypatch.setenv("BT_WALLET_PASSWORD_FILE", str(tmp_path / "absent"))
        with pytest.raises(Misconfigured, match="cannot unlock"):
            chain.register()


def test_register_without_funds_is_refused_by_name(node, wallet_of, chain_of):
    with pytest.raises(ChainRefused) as caught:
        chain_of("poor").register()
    assert caught.value.name in ("NotEnoughBalanceToStake", "Payment", "FundsUnavailable")


def test_plain_commitment_and_its_past(chain_of, wallet_of):
    chain = chain_of("alice")
    uid = chain.register()
    before = chain.head().number
    chain.commit("first", sealed=False)
    first = entry_of(chain, "alice", wallet_of)
    assert first == Committed(
        hotkey_of(wallet_of("alice")), uid, first.commit_block, first.commit_block, "first", "plain"
    )
    assert before < first.commit_block <= chain.head().number
    chain.commit("ü" * 192, sealed=False)
    second = entry_of(chain, "alice", wallet_of)
    assert second.text == "ü" * 192 and second.commit_block > first.commit_block
    assert entry_of(chain, "alice", wallet_of, second.commit_block - 1) == first
    assert all(entry.hotkey != first.hotkey for entry in chain.commitments(first.commit_block - 1))


@pytest.mark.parametrize("reveal_in_blocks", [0, 4, 7200])
def test_sealed_commitment_keeps_its_commit_block(chain_of, wallet_of, reveal_in_blocks):
    chain = chain_of("bob")
    uid = chain.register()
    text = f"ath1|{reveal_in_blocks}|" + "s" * 300
    chain.commit(text, sealed=True, reveal_in_blocks=reveal_in_blocks)
    committed = entry_of(chain, "bob", wallet_of).commit_block
    wait_blocks(chain, 6)
    bob = hotkey_of(wallet_of("bob"))
    sealed = Committed(bob, uid, committed, 0, None, "sealed")
    revealed = Committed(bob, uid, committed, committed + 4, text, "revealed")  # the node's reveal_blocks
    assert entry_of(chain, "bob", wallet_of) == revealed
    past = [entry_of(chain, "bob", wallet_of, committed + blocks) for blocks in range(5)]
    assert past == [sealed] * 4 + [revealed]


def test_poisoned_reveal_harms_nobody_else(node, chain_of, wallet_of):
    alice, mallory = chain_of("alice"), chain_of("mallory")
    alice.register(), mallory.register()
    alice.commit("honest", sealed=False)
    sealed, _ = bittensor_core.encrypt_at_round(b"0xzz", 1000)
    field = {"TimelockEncrypted": {"encrypted": bytes(bittensor_core.inner_ciphertext(sealed)), "reveal_round": 1000}}
    call = bittensor.calls.Commitments.set_commitment(netuid=1, info={"fields": [[field]]})

    async def submit() -> None:
        async with bittensor.Client(node.address) as sdk:
            (await sdk.submit_call(call, wallet_of("mallory"), signer="hotkey")).raise_for_failure()

    async def read_with_the_sdk() -> None:
        async with bittensor.Client(node.address) as sdk:
            await sdk.subnets.commitments(1)

    asyncio.run(submit())
    wait_blocks(alice, 6)
    with pytest.raises(ValueError):
        asyncio.run(read_with_the_sdk())  # why the client decodes by itself
    assert entry_of(alice, "alice", wallet_of).text == "honest"
    assert (entry_of(alice, "mallory", wallet_of).status, entry_of(alice, "mallory", wallet_of).text) == (
        "revealed",
        None,
    )
    assert len(alice.neurons()) >= 2


def test_text_that_does_not_fit_is_refused_before_anything_is_sent(wallet_of):
    chain = Chain("ws://127.0.0.1:9", 1, wallet_of("alice"))
    for sealed in (False, True):
        with pytest.raises(BadInput):
            chain.commit("x" * 385, sealed=sealed)
    chain.close()


def test_commitment_of_an_unregistered_hotkey_is_refused_by_name(chain_of):
    with pytest.raises(ChainRefused) as caught:
        chain_of("stranger").commit("text", sealed=False)
    assert caught.value.name == "AccountNotAllowedCommit"


def test_quota_is_refused_by_name(chain_of):
    chain = chain_of("carol")
    chain.register()
    with pytest.raises(ChainRefused) as caught:
        for number in range(40):
            chain.commit(f"{number} " + "x" * 380, sealed=False)
    assert caught.value.name == "SpaceLimitExceeded"


def test_two_processes_of_one_hotkey_do_not_trip_over_the_nonce(chain_of, wallet_of):
    one, other = chain_of("alice"), chain_of("alice")
    one.register()
    for number in range(3):
        one.commit(f"one {number}", sealed=False)
        other.commit(f"other {number}", sealed=False)
        assert entry_of(one, "alice", wallet_of).text == f"other {number}"


def test_weights_by_hotkey_become_incentive(start_node, chain_of, wallet_of):
    node = start_node(tempo=40)  # weights every 11 blocks at most
    val, alice, bob = (chain_of(name, node) for name in ("val", "alice", "bob"))
    for chain in (val, alice, bob):
        chain.register()
    keys = {name: hotkey_of(wallet_of(name)) for name in ("val", "alice", "bob", "carol")}
    stake = {neuron.hotkey: neuron.stake for neuron in val.neurons()}
    assert stake[keys["val"]] == pytest.approx(2000) and stake[keys["alice"]] == 0
    with pytest.raises(ChainRefused) as caught:  # the limit counts from registration too
        for _ in range(5):
            val.set_weights({keys["alice"]: 1.0})
    assert caught.value.name == "RATE_LIMITED"
    wait_blocks(val, 12)
    val.set_weights({keys["alice"]: 3.0, keys["bob"]: 1.0, keys["carol"]: 9.0, "5Nobody": 1.0})
    wait_blocks(val, 41)
    incentive = {neuron.hotkey: neuron.incentive for neuron in val.neurons()}
    assert incentive[keys["alice"]] == pytest.approx(0.75, abs=1e-3)
    assert incentive[keys["bob"]] == pytest.approx(0.25, abs=1e-3)
    with pytest.raises(ChainRefused) as caught:
        alice.set_weights({keys["bob"]: 1.0})
    assert caught.value.name == "NotEnoughStakeToSetWeights"


def test_a_subnet_without_an_owner_names_the_account_that_nobody_has(chain_of):
    chain = chain_of(None)
    assert chain.owner_hotkey() == chain.owner_hotkey(0) == bittensor_core.ss58_encode(bytes(32))
    assert chain.owner_hotkey() not in {neuron.hotkey for neuron in chain.neurons()}
    with pytest.raises(NotFound):
        chain.owner_hotkey(chain.head().number + 1000)


def test_what_nobody_earned_goes_to_the_owner_who_may_vote_for_itself(start_node, chain_of, wallet_of):
    owner = hotkey_of(wallet_of("val"))
    node = start_node(tempo=10, owner_hotkey=owner)  # weights every 2 blocks at most
    alice, val = (chain_of(name, node) for name in ("alice", "val"))
    alice.register(), val.register()
    assert val.owner_hotkey() == val.owner_hotkey(0) == owner
    wait_blocks(val, 3)
    val.set_weights({owner: 1.0})
    wait_blocks(val, 11)
    assert {neuron.hotkey: neuron.incentive for neuron in val.neurons()}[owner] == 1.0


@pytest.mark.parametrize("weights", [{}, {"5Nobody": 1.0}, {"alice": 0.0}, {"alice": -1.0}, {"alice": float("nan")}])
def test_weights_that_say_nothing(chain_of, wallet_of, weights):
    weights = {hotkey_of(wallet_of(key)) if key == "alice" else key: weight for key, weight in weights.items()}
    with pytest.raises(BadInput):
        chain_of("val").set_weights(weights)


def test_weights_without_registration_are_refused(chain_of, wallet_of):
    chain_of("alice").register()
    with pytest.raises(ChainRefused) as caught:
        chain_of("stranger").set_weights({hotkey_of(wallet_of("alice")): 1.0})
    assert caught.value.name == "NOT_REGISTERED"


def test_head_is_final_and_refuses_the_future(chain_of):
    chain = chain_of(None)
    head = chain.head()
    assert chain.head(head.number) == head and len(bytes.fromhex(head.hash.removeprefix("0x"))) == 32
    assert chain.head(0).number == 0
    for number in (head.number + 1000, -1):
        for verb in (chain.head, chain.commitments, chain.neurons):
            with pytest.raises(NotFound):
                verb(number)


def test_heads_come_each_once_and_in_order(chain_of):
    chain, heads = chain_of(None), []
    for head in chain.heads():
        heads.append(head)
        if len(heads) == 3:
            time.sleep(1)  # a slow reader
        if len(heads) == 20:
            break
    assert [head.number for head in heads] == list(range(heads[0].number, heads[0].number + 20))
    assert all(chain.head(head.number) == head for head in heads)


def test_what_needs_a_wallet_or_a_subnet_says_so(chain_of):
    for verb in (lambda c: c.register(), lambda c: c.commit("x", sealed=False), lambda c: c.set_weights({"a": 1.0})):
        with pytest.raises(Misconfigured, match="wallet"):
            verb(chain_of(None))
    with pytest.raises(Misconfigured, match="no subnet 77"):
        chain_of(None, netuid=77).neurons()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_node_is_waited_for(start_node, chain_of, wallet_of, number):
    node = start_node()
    chain, follower = chain_of("alice", node), chain_of(None, node)
    chain.register()
    chain.commit("before", sealed=False)
    seen: list[Head] = []
    done = threading.Event()

    def follow() -> None:
        for head in follower.heads():
            seen.append(head)
            if done.is_set() and len(seen) > 10:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    wait_blocks(chain, 3)
    node.kill(number)
    for verb in (chain.head, chain.neurons, lambda: chain.commit("lost", sealed=False)):
        with pytest.raises(Unavailable):
            verb()
    node.start()
    assert entry_of(chain, "alice", wallet_of).text == "before"
    chain.commit("after", sealed=False)
    assert entry_of(chain, "alice", wallet_of).text == "after"
    done.set()
    thread.join(60)
    assert [head.number for head in seen] == list(range(seen[0].number, seen[0].number + len(seen)))
    assert all(chain.head(head.number) == head for head in seen)


def test_node_killed_while_a_commitment_is_under_way(start_node, chain_of):
    node = start_node(block_seconds=60)  # nothing is included before the kill
    chain = chain_of("alice", node)
    chain.head()
    killer = threading.Timer(1, node.kill)
    killer.start()
    with pytest.raises(Unavailable, match="may already be on chain"):
        chain.commit("text", sealed=False)
    killer.join()


def test_a_process_that_uses_the_chain_prints_nothing(node, wallet_of):
    wallet = wallet_of("bob")
    program = f"""
from pathlib import Path
from athena.chain.client import Chain
from athena.chain.wallets import open_wallet
chain = Chain({node.address!r}, 1, open_wallet({wallet.name!r}, path=Path({wallet.path!r})))
chain.register()
chain.commit("text", sealed=True)
chain.commitments(chain.head().number)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
