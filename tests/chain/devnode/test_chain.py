"""The chain without a server: blocks, storage through time, epochs, and bytes from strangers."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import bittensor_core
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from athena.chain.devnode import extrinsics
from athena.chain.devnode.block import Block, state_root
from athena.chain.devnode.chain import Chain
from athena.chain.devnode.metadata import load_metadata
from athena.chain.devnode.pallets import commitments, drand, epoch, mevshield
from athena.chain.devnode.scale import Reader, compact
from athena.chain.devnode.settings import DevnodeSettings
from athena.chain.devnode.state import State
from athena.errors import BadInput, Misconfigured


def block_after(parent: Block | None, seal: bytes) -> Block:
    number, above = (0, bytes(32)) if parent is None else (parent.number + 1, parent.hash)
    return Block(number, above, bytes(32), bytes(32), seal, number, (), b"\0")


class ArchiveMachine(RuleBasedStateMachine):
    """SQLite through time against a list of plain dicts, closed and opened again at any point."""

    folder: Path
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.path = self.folder / f"{next(self.numbers)}.sqlite"  # an id may come again; a file must be new
        self.state = State(self.path)
        self.past: list[dict[bytes, bytes]] = []
        self.head: Block | None = None

    @rule(writes=st.dictionaries(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=3), max_size=6))
    def commit(self, writes):
        self.head = block_after(self.head, b"s" * 64)
        self.state.commit(self.head, writes)
        now = {**(self.past[-1] if self.past else {}), **writes}
        self.past.append({key: value for key, value in now.items() if value is not None})

    @rule()
    def reopen(self):
        self.state.close()
        self.state = State(self.path)

    @precondition(lambda self: self.past)
    @rule(data=st.data(), key=st.binary(min_size=1, max_size=3), prefix=st.binary(max_size=2))
    def read(self, data, key, prefix):
        number = data.draw(st.integers(0, len(self.past) - 1))
        expected = self.past[number]
        assert self.state.get(key, number) == expected.get(key)
        under = sorted(k for k in expected if k.startswith(prefix) and k > prefix)
        assert self.state.keys(prefix, prefix, 100, number) == under
        assert self.state.keys(prefix, key, 2, number) == [k for k in under if k > key][:2]

    @invariant()
    def head_is_the_last_block(self):
        assert self.state.head() == self.head

    def teardown(self):
        self.state.close()


def test_archive(tmp_path):
    ArchiveMachine.folder = tmp_path
    run = settings(max_examples=25, stateful_step_count=12, deadline=None)
    run_state_machine_as_test(ArchiveMachine, settings=run)


def test_state_root_depends_on_every_write():
    writes = {b"a": b"1", b"b": None}
    root = state_root(bytes(32), writes)
    assert root != state_root(bytes(32), {b"a": b"1"})
    assert root != state_root(b"\1" * 32, writes)
    assert root == state_root(bytes(32), dict(reversed(writes.items())))


def test_hashes_differ_from_chain_to_chain(tmp_path, settings_for):
    chains = [Chain(settings_for(tmp_path / name), now_ms=lambda: 1_800_000_000_000) for name in "ab"]
    first, second = (chain.produce().block for chain in chains)
    assert first.hash != second.hash
    assert first.extrinsics == second.extrinsics
    for chain in chains:
        chain.close()


def test_time_never_stands_still(tmp_path, settings_for):
    chain = Chain(settings_for(tmp_path), now_ms=lambda: 1_800_000_000_000)
    stamps = [chain.produce().block.timestamp_ms for _ in range(3)]
    assert stamps == sorted(set(stamps))
    chain.close()


def test_epochs_come_every_tempo_blocks(chain):
    notes = [note for _ in range(121) for note in chain.produce().notes]
    assert [fields["block"] for name, fields in notes if name == "devchain.epoch"] == [40, 80, 120]


def test_the_beacon_is_always_before_round_1000(tmp_path, settings_for):
    now = 1_800_000_000
    chain = Chain(settings_for(tmp_path), now_ms=lambda: now * 1000)
    for days in (0, 0.5, 3, 30, 365):
        now = round(1_800_000_000 + days * 86_400)
        chain.produce()
        config = chain.view().get("Drand", "BeaconConfig")
        for ahead in (0, 60, 4 * 86_400):
            elapsed = now + ahead - config["genesis_time"]
            assert 1 + -(-elapsed // config["period"]) == drand.ROUND
        assert elapsed // config["period"] + 1 >= 999
        assert chain.view().get("Drand", "LastStoredRound") == drand.ROUND - 1
    chain.close()


def test_the_pulse_is_the_published_one():
    published = "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd"
    assert hashlib.sha256(drand.SIGNATURE).hexdigest() == published


share_rows = st.integers(1, 5).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0, 1e6), min_size=n, max_size=n),
        st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=n, max_size=n),
    )
)


@given(share_rows)
def test_an_epoch_shares_out_one_or_nothing(drawn):
    stakes, rows = drawn
    weights = [[value / sum(row) if sum(row) else 0.0 for value in row] for row in rows]
    shares = epoch.share(stakes, weights)
    for part in (shares.incentive, shares.dividends):
        assert sum(part) == pytest.approx(1) or not any(part)
        assert all(value >= 0 for value in part)
    voters = [stake > 0 and any(row) for stake, row in zip(stakes, weights, strict=True)]
    assert all(not part or voter for part, voter in zip(shares.dividends, voters, strict=True))
    assert all(trust <= 1 + 1e-9 for trust in shares.validator_trust)


def test_a_minority_cannot_lift_a_miner():
    stakes = [10.0, 10.0, 5.0, 0.0, 0.0]
    honest, bought = [0, 0, 0, 0.8, 0.2], [0, 0, 0, 0, 1.0]
    shares = epoch.share(stakes, [honest, honest, bought, [0.0] * 5, [0.0] * 5])
    assert shares.consensus[3:] == [0.8, 0.2]
    assert shares.incentive[3] > shares.incentive[4]
    assert shares.dividends[2] < shares.dividends[0] / 2


@given(st.binary(min_size=1, max_size=700))
@settings(max_examples=30, deadline=None)
def test_the_shield_opens_what_the_sdk_encrypts(extrinsic):
    blob = bytes(bittensor_core.encrypt_mlkem768(mevshield.NEXT_KEY, extrinsic, include_key_hash=True))
    assert mevshield.open_shielded(blob) == extrinsic
    assert mevshield.open_shielded(blob[:-1]) is None


@given(st.binary(max_size=1300))
def test_the_shield_does_not_open_noise(blob):
    assert mevshield.open_shielded(blob) is None


@given(st.binary(max_size=300))
def test_commitment_fields_are_parsed_exactly_or_refused(data):
    try:
        fields = commitments.parse_fields(data)
    except BadInput:
        return
    assert commitments.encode_fields(fields) == data


@given(st.integers(0, 2**30 - 1))
def test_compact_round_trip(value):
    assert Reader(compact(value)).compact() == value


METADATA = load_metadata(0.25)


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda tail: compact(len(tail) + 2) + b"\x84\0" + tail))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_noise_is_no_extrinsic(raw):
    with pytest.raises(extrinsics.Invalid):
        extrinsics.verify(raw, METADATA, 1, lambda number: bytes(32))


def test_other_hosts_are_refused(tmp_path):
    for host in ("0.0.0.0", "192.168.1.5", "example.org", "::"):
        with pytest.raises(Misconfigured, match="does not listen"):
            DevnodeSettings(database=tmp_path / "c", host=host)
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert DevnodeSettings(database=tmp_path / "c", host=host).host == host


def test_unusable_stakes_and_addresses_are_refused(tmp_path, cast):
    with pytest.raises(ValueError, match="needs a stake of 1000"):
        DevnodeSettings(database=tmp_path / "c", stakes={cast.validator.hotkey.ss58_address: 999})
    with pytest.raises(ValueError, match="ss58"):
        DevnodeSettings(database=tmp_path / "c", balances={"nobody": 1})
