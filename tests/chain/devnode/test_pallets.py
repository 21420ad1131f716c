"""Rules that take many blocks, many hotkeys or odd settings: extrinsics signed here, applied without a server."""

from __future__ import annotations

import bittensor_core
import pytest
from bittensor.sp_core import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st

from athena.chain.devnode import extrinsics
from athena.chain.devnode.chain import Chain
from athena.chain.devnode.pallets import mevshield, subnet, system


class Actor:
    """A key that signs calls for a chain."""

    def __init__(self, chain: Chain, key: Keypair) -> None:
        self.chain, self.key = chain, key
        self.address = key.ss58_address

    def sign(self, module: str, function: str, *, nonce: int | None = None, **arguments) -> bytes:
        codec = self.chain.metadata.codec
        call = bytes(codec.compose_call(module, function, arguments))
        how = {"era": "00", "nonce": self.chain.pool.next_nonce(self.address) if nonce is None else nonce}
        how |= {"tip": 0, "tip_asset_id": None}
        genesis = self.chain.block_hash(0)
        payload = bytes(codec.signature_payload(call, **how, genesis_hash=genesis, era_block_hash=genesis))
        signature = self.key.sign(payload)
        public = {"public_key": self.key.public_key, "signature_version": 1}
        return bytes(codec.encode_signed_extrinsic(call, signature=signature, **public, **how)[0])

    def submit(self, module: str, function: str, **arguments) -> None:
        self.chain.submit(self.sign(module, function, **arguments))

    def commit(self, *fields: dict[str, bytes]) -> None:
        self.submit("Commitments", "set_commitment", netuid=1, info={"fields": list(fields)})


def errors(chain: Chain) -> list[str | None]:
    """Produces a block; what became of its calls."""
    return [fields["error"] for name, fields in chain.produce().notes if name == "devchain.extrinsic"]


@pytest.fixture
def miner(chain, cast):
    owner = Actor(chain, cast.miners[0].coldkey)
    hotkey = Actor(chain, cast.miners[0].hotkey)
    owner.submit("SubtensorModule", "burned_register", netuid=1, hotkey=hotkey.address)
    assert errors(chain) == [None]
    return hotkey


def test_only_the_last_ten_reveals_are_kept(chain, miner):
    for number in range(12):
        ciphertext, _ = bittensor_core.encrypt_at_round(b"\x04%c" % (65 + number), 1000)
        sealed = {"encrypted": bytes(bittensor_core.inner_ciphertext(ciphertext)), "reveal_round": 1000}
        miner.commit({"TimelockEncrypted": sealed})
        assert errors(chain) == [None]
        for _ in range(chain.settings.reveal_blocks):
            chain.produce()
    reveals = chain.view().get("Commitments", "RevealedCommitments", 1, miner.address)
    assert [text[1:] for text, _ in reveals] == list("CDEFGHIJKL")
    assert chain.view().get("Commitments", "CommitmentOf", 1, miner.address) is None
    assert chain.num_sealed() == 0


def test_plain_part_of_a_sealed_commitment_stays(chain, miner):
    ciphertext, _ = bittensor_core.encrypt_at_round(b"\x04A", 1000)
    miner.commit({"Raw5": b"plain"}, {"TimelockEncrypted": {"encrypted": ciphertext, "reveal_round": 1000}})
    assert errors(chain) == [None]
    for _ in range(chain.settings.reveal_blocks):
        chain.produce()
    assert chain.view().get("Commitments", "CommitmentOf", 1, miner.address)["info"]["fields"] == [
        {"Raw5": "0x706c61696e"}
    ]
    assert len(chain.view().get("Commitments", "RevealedCommitments", 1, miner.address)) == 1


@given(sizes=st.lists(st.integers(0, 128), min_size=1, max_size=60))
@settings(max_examples=8, deadline=None)
def test_quota_counts_bytes_by_epoch(tmp_path_factory, settings_for, cast, sizes):
    chain = Chain(settings_for(tmp_path_factory.mktemp("quota"), tempo=20), now_ms=lambda: 1_800_000_000_000)
    owner, hotkey = Actor(chain, cast.miners[0].coldkey), Actor(chain, cast.miners[0].hotkey)
    owner.submit("SubtensorModule", "burned_register", netuid=1, hotkey=hotkey.address)
    chain.produce()
    used, epoch = 0, 0
    for size in sizes:
        fields = [{f"Raw{size}": b"x" * size}] * 3
        hotkey.commit(*fields)
        (error,) = errors(chain)
        now = chain.view().get("SubtensorModule", "SubnetEpochIndex", 1)
        used, epoch = (0, now) if now != epoch else (used, epoch)
        cost = max(100, 3 * size)
        fits = used + cost <= 3100
        assert error == (None if fits else "SpaceLimitExceeded")
        used += cost if fits else 0
    chain.close()


def test_permits_go_to_the_largest_stakes(tmp_path, settings_for, cast):
    keys = [Keypair.create_from_uri(f"//{number}") for number in range(subnet.MAX_VALIDATORS + 1)]
    stakes = {key.ss58_address: 1000.0 + number for number, key in enumerate(keys)}
    chain = Chain(settings_for(tmp_path, stakes=stakes), now_ms=lambda: 1_800_000_000_000)
    owner = Actor(chain, cast.validator.coldkey)
    for key in keys:
        owner.submit("SubtensorModule", "burned_register", netuid=1, hotkey=key.ss58_address)
    assert errors(chain) == [None] * len(keys)
    assert chain.view().get("SubtensorModule", "ValidatorPermit", 1) == [False] + [True] * subnet.MAX_VALIDATORS
    for _ in range(subnet.weights_rate_limit(chain.settings.tempo)):
        chain.produce()
    arguments = {"netuid": 1, "dests": [5], "weights": [1], "version_key": 0}
    for key in keys[:2]:
        Actor(chain, key).submit("SubtensorModule", "set_weights", **arguments)
    assert errors(chain) == ["NeuronNoValidatorPermit", None]
    chain.close()


def test_registration_of_another_coldkeys_hotkey(chain, cast, miner):
    other = Actor(chain, cast.miners[1].coldkey)
    other.submit("SubtensorModule", "burned_register", netuid=1, hotkey=miner.address)
    assert errors(chain) == ["HotKeyAlreadyRegisteredInSubNet"]


def test_sealed_weights_are_stored_where_commit_reveal_is_on(tmp_path, settings_for, cast):
    chain = Chain(settings_for(tmp_path, commit_reveal=True), now_ms=lambda: 1_800_000_000_000)
    owner, hotkey = Actor(chain, cast.validator.coldkey), Actor(chain, cast.validator.hotkey)
    owner.submit("SubtensorModule", "burned_register", netuid=1, hotkey=hotkey.address)
    for _ in range(12):
        chain.produce()
    hotkey.submit("SubtensorModule", "set_weights", netuid=1, dests=[0], weights=[1], version_key=0)
    assert errors(chain) == ["CommitRevealEnabled"]
    commit = {"netuid": 1, "mecid": 0, "commit": b"\xff\0sealed", "reveal_round": 30_000_000}
    for version, error in ((4, None), (3, "IncorrectCommitRevealVersion"), (4, "CommittingWeightsTooFast")):
        hotkey.submit("SubtensorModule", "commit_timelocked_mechanism_weights", **commit, commit_reveal_version=version)
        assert errors(chain) == [error]
    epoch = chain.view().get("SubtensorModule", "SubnetEpochIndex", 1)
    ((who, _, sealed, round_),) = chain.view().get("SubtensorModule", "TimelockedWeightCommits", 1, epoch)
    assert (who, sealed, round_) == (hotkey.address, "0x" + commit["commit"].hex(), 30_000_000)
    chain.close()


def test_pool_orders_by_nonce_and_waits_for_gaps(chain, miner):
    later, sooner = (miner.sign("System", "remark", nonce=nonce, remark=b"x") for nonce in (1, 0))
    assert chain.submit(later)[1] is False
    assert errors(chain) == []
    assert chain.submit(sooner)[1] is True
    assert chain.pool.next_nonce(miner.address) == 2
    assert errors(chain) == [None, None]
    assert system.nonce(chain.view(), miner.address) == 2
    with pytest.raises(extrinsics.Invalid, match="Invalid Transaction"):
        chain.submit(later)


def test_one_extrinsic_a_nonce(chain, miner):
    chain.submit(miner.sign("System", "remark", nonce=0, remark=b"first"))
    with pytest.raises(extrinsics.Invalid, match="Priority is too low"):
        chain.submit(miner.sign("System", "remark", nonce=0, remark=b"second"))


def test_a_failed_call_leaves_nothing_but_its_nonce(chain, miner, cast):
    poor = Actor(chain, cast.stranger.coldkey)
    poor.submit("SubtensorModule", "burned_register", netuid=1, hotkey=cast.stranger.hotkey.ss58_address)
    assert errors(chain) == ["NotEnoughBalanceToStake"]
    assert system.nonce(chain.view(), poor.address) == 1
    assert subnet.num_uids(chain.view(), 1) == 1
    assert chain.view().get("SubtensorModule", "Owner", cast.stranger.hotkey.ss58_address) == subnet.NOBODY


@pytest.mark.parametrize("inner_nonce", [0, 5])
def test_a_shielded_extrinsic_out_of_turn_is_left_out(chain, miner, inner_nonce):
    inner = miner.sign("System", "remark", nonce=inner_nonce, remark=b"inner")
    blob = bytes(bittensor_core.encrypt_mlkem768(mevshield.NEXT_KEY, inner, include_key_hash=True))
    miner.submit("MevShield", "submit_encrypted", ciphertext=blob)
    assert errors(chain) == [None]


def test_shields_do_not_nest(chain, miner):
    blob = bytes(bittensor_core.encrypt_mlkem768(mevshield.NEXT_KEY, b"x", include_key_hash=True))
    inner = miner.sign("MevShield", "submit_encrypted", nonce=1, ciphertext=blob)
    outer = bytes(bittensor_core.encrypt_mlkem768(mevshield.NEXT_KEY, inner, include_key_hash=True))
    miner.submit("MevShield", "submit_encrypted", ciphertext=outer)
    assert errors(chain) == [None]
