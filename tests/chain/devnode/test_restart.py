"""A dev chain that was killed goes on from its database; one that belongs to another chain is refused."""

from __future__ import annotations

import signal
import subprocess
import time

import bittensor as bt
import pytest

from athena.chain.devnode.chain import Chain
from athena.errors import Misconfigured


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_node_goes_on(own_node, connect, cast):
    own_node.start()
    call = bt.calls.Commitments.set_commitment(netuid=1, info={"fields": [{"Raw4": b"kept"}]})
    with connect(own_node.url) as subtensor:
        subtensor.execute(bt.BurnedRegister(netuid=1), cast.miners[0]).raise_for_failure()
        committed = subtensor.submit_call(call, cast.miners[0], signer="hotkey").raise_for_failure()
        before = [subtensor.block_info(number) for number in range(subtensor.block)]
    assert own_node.stop(signal.SIGKILL) == -signal.SIGKILL

    own_node.start()
    first, second = own_node.events("devchain.ready")
    assert second["genesis"] == first["genesis"]
    with connect(own_node.url) as subtensor:
        wait_for(lambda: subtensor.block > second["block"])
        assert [subtensor.block_info(number).hash for number in range(len(before))] == [info.hash for info in before]
        kept = subtensor.subnets.commitments(1)[cast.miners[0].hotkey.ss58_address]
        assert (kept.value, kept.block) == ("kept", int(committed.extrinsic_id.split("-")[0]))
        subtensor.submit_call(call, cast.miners[0], signer="hotkey").raise_for_failure()
        last, following = (subtensor.block_info(second["block"] + step) for step in (0, 1))
        assert following.header["parentHash"] == last.hash
        assert following.timestamp > last.timestamp
    assert own_node.stop() == 0


def test_stops_cleanly_on_a_signal_with_clients_connected(own_node, connect):
    own_node.start()
    with connect(own_node.url) as subtensor:
        assert subtensor.block >= 0
        assert own_node.stop(signal.SIGINT) == 0


def test_block_events_are_rare_and_count_what_waits(own_node):
    own_node.start()
    wait_for(lambda: len(own_node.events("devchain.block")) >= 2)
    first, second = own_node.events("devchain.block")[:2]
    assert second["block"] - first["block"] == 20
    assert first["pending"] == first["sealed"] == 0


def test_a_second_node_on_the_same_database_is_refused(chain):
    with pytest.raises(Misconfigured, match="cannot be opened"):
        Chain(chain.settings, now_ms=lambda: 0)


def test_a_taken_port_is_refused(own_node, tmp_path, node):
    taken = own_node.settings.model_copy(update={"port": node.port, "database": tmp_path / "other.sqlite"})
    process = type(node)(taken)
    with pytest.raises(AssertionError, match="ended before it was ready"):
        process.start()
    assert isinstance(process.process, subprocess.Popen)


def test_other_genesis_settings_are_refused(chain, tmp_path, settings_for):
    chain.close()
    with pytest.raises(Misconfigured, match="another tempo"):
        Chain(settings_for(tmp_path, tempo=50), now_ms=lambda: 0)
    with pytest.raises(Misconfigured, match="another metadata"):
        Chain(settings_for(tmp_path, block_seconds=1.0), now_ms=lambda: 0)
    Chain(settings_for(tmp_path, reveal_blocks=50), now_ms=lambda: 0).close()
