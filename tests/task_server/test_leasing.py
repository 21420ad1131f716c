"""The public draw rules, pinned: another implementation must get the same numbers."""

from __future__ import annotations

import hashlib
from itertools import islice

import pytest
from bittensor.sp_core import Keypair

from athena.errors import BadInput
from athena.leasing import MAX_DRAWS, drawn_position, is_audited, lease_positions, public_key

# Substrate's well-known development key //Alice.
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ALICE_KEY = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")
BLOCK = "0x" + "ab" * 32


def test_an_address_decodes_to_its_key():
    assert public_key(ALICE) == ALICE_KEY
    for uri in ("//Bob", "//Charlie"):
        pair = Keypair.create_from_uri(uri)
        assert public_key(pair.ss58_address) == bytes(pair.public_key)


@pytest.mark.parametrize(
    "address", ["", "0", ALICE[:-1], ALICE[:-1] + "Z", "1" * 48, "5" * 48, "z" * 9999, ALICE + "1"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(BadInput):
        public_key(address)


def test_a_draw_is_what_the_rule_says():
    message = bytes.fromhex("ab" * 32) + ALICE_KEY + (3).to_bytes(4, "big")
    expected = int.from_bytes(hashlib.blake2b(message, digest_size=32).digest(), "big") % 1000
    assert drawn_position(BLOCK, ALICE_KEY, 3, 1000) == expected
    assert list(islice(lease_positions(BLOCK, ALICE, 1000), 4))[3] == expected
    assert list(islice(lease_positions(BLOCK, ALICE, 1000), 4)) == [32, 300, 468, 366]


def test_every_position_comes_up():
    for num_tasks in (1, 2, 300):
        positions = list(lease_positions(BLOCK, ALICE, num_tasks))
        assert set(positions) == set(range(num_tasks))
        assert len(positions) == MAX_DRAWS + num_tasks
    assert list(lease_positions(BLOCK, ALICE, 0)) == []


def test_draws_spread_evenly():
    counts = [0] * 10
    for block in range(2000):
        counts[next(lease_positions(f"{block:064x}", ALICE, 10))] += 1
    assert all(150 < count < 250 for count in counts)


def test_audits_follow_their_share():
    audited = [is_audited(BLOCK, f"{task:032x}", 0.1) for task in range(3000)]
    assert 0.08 < sum(audited) / 3000 < 0.12
    assert not any(is_audited(BLOCK, f"{task:032x}", 0.0) for task in range(100))
    assert all(is_audited(BLOCK, f"{task:032x}", 1.0) for task in range(100))
