"""Real dev chain processes and real wallets, in folders of their own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import bittensor as bt
import pytest

from athena.chain.devnode.chain import Chain
from athena.chain.devnode.settings import DevnodeSettings
from athena.events import read_events

START = (
    "import sys; from athena.chain.devnode.server import serve;"
    "from athena.chain.devnode.settings import DevnodeSettings;"
    "serve(DevnodeSettings.model_validate_json(sys.argv[1]))"
)


def make_wallet(name: str, folder: Path) -> bt.Wallet:
    wallet = bt.Wallet(name, "default", str(folder))
    return wallet.create_new_coldkey(use_password=False, suppress=True).create_new_hotkey(suppress=True)


@contextlib.contextmanager
def connected(url: str) -> Iterator[bt.Subtensor]:
    """The unmodified blocking client. Closing it leaves its event loop open, at times with tasks: that is mended here.

    (A frame that comes in just as the SDK cancels its receiver makes asyncio.wait_for of Python 3.11 lose the cancel,
    and closing takes five seconds.)
    """
    client = bt.Subtensor(url)
    try:
        with client:
            yield client
            time.sleep(0.02)  # lets the last frame be received
    finally:
        if client._loop_thread is not None:
            loop = client._loop_thread._loop
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=5))
            loop.close()


@pytest.fixture(scope="session")
def connect():
    return connected


@dataclass
class NodeProcess:
    """A dev chain in a process of its own; `start` again after `kill` to go on."""

    settings: DevnodeSettings
    starts: int = 0
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        self.starts += 1
        self.process = subprocess.Popen([sys.executable, "-c", START, self.settings.model_dump_json()])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            ready = self.events("devchain.ready")
            if len(ready) == self.starts:
                self.port = int(ready[-1]["port"])
                return
            assert self.process.poll() is None, "the dev chain ended before it was ready"
            time.sleep(0.02)
        raise TimeoutError("the dev chain is not ready")

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def events(self, name: str) -> list[dict[str, object]]:
        assert self.settings.events is not None
        return [event for event in read_events(self.settings.events) if event["event"] == name]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signals the process and returns its exit status."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        return self.process.wait(20)


@dataclass
class Cast:
    """A validator with stake, two miners, and a stranger without balance or registration."""

    validator: bt.Wallet
    miners: tuple[bt.Wallet, bt.Wallet]
    stranger: bt.Wallet


@pytest.fixture(scope="session")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    folder = tmp_path_factory.mktemp("wallets")
    validator, first, second, stranger = (make_wallet(n, folder) for n in ("validator", "first", "second", "stranger"))
    return Cast(validator, (first, second), stranger)


@pytest.fixture(scope="session")
def settings_for(cast: Cast):
    """Settings of a fast chain in a folder, with the cast's stake and balances."""

    def make(folder: Path, **changes) -> DevnodeSettings:
        paying = (cast.validator, *cast.miners)
        values = {
            "database": folder / "chain.sqlite",
            "events": folder / "events.jsonl",
            "port": 0,
            "tempo": 40,
            "block_seconds": 0.05,
            "reveal_blocks": 6,
            "stakes": {cast.validator.hotkey.ss58_address: 2000.0},
            "balances": {wallet.coldkeypub.ss58_address: 10.0 for wallet in paying},
        }
        return DevnodeSettings(**values | changes)

    return make


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, settings_for) -> Iterator[NodeProcess]:
    """One running chain for all tests that only add to it."""
    process = NodeProcess(settings_for(tmp_path_factory.mktemp("node")))
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="session")
def registered(node: NodeProcess, cast: Cast) -> Cast:
    """The cast, validator and miners registered through the unmodified SDK: uids 0, 1 and 2."""
    for wallet in (cast.validator, *cast.miners):
        with connected(node.url) as subtensor:
            subtensor.execute(bt.BurnedRegister(netuid=1), wallet).raise_for_failure()
    return cast


@pytest.fixture
def subtensor(node: NodeProcess) -> Iterator[bt.Subtensor]:
    with connected(node.url) as client:
        yield client


@pytest.fixture
def chain(tmp_path: Path, settings_for) -> Iterator[Chain]:
    """A chain without a server, whose clock moves a second a look."""
    clock = itertools.count(1_800_000_000_000, 1000)
    made = Chain(settings_for(tmp_path), now_ms=lambda: next(clock))
    yield made
    made.close()


@pytest.fixture
def own_node(tmp_path: Path, settings_for) -> Iterator[NodeProcess]:
    """A chain for one test, not started yet: free to be killed, or to have other settings."""
    process = NodeProcess(settings_for(tmp_path))
    yield process
    if process.process is not None and process.process.poll() is None:
        process.stop(signal.SIGKILL)
