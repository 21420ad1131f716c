"""Keys, dev nodes as processes, and the SDK's caches kept out of the home of whoever runs the tests."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from athena.chain.client import Chain
from athena.chain.devnode.settings import DevnodeSettings
from athena.chain.wallets import hotkey_of, open_wallet
from athena.events import read_events

SERVE = """
import sys
from athena.chain.devnode.server import serve
from athena.chain.devnode.settings import DevnodeSettings
serve(DevnodeSettings.model_validate_json(sys.argv[1]))
"""


@pytest.fixture(scope="session", autouse=True)
def _private_home(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("BITTENSOR_RUNTIME_CACHE_DIR", str(home / "runtime-cache"))
        yield


@pytest.fixture(scope="session")
def wallet_of(tmp_path_factory: pytest.TempPathFactory):
    """wallet_of("alice"): a wallet by name, the same one all through the session."""
    root = tmp_path_factory.mktemp("wallets")
    return lambda name: open_wallet(name, path=root, create=True)


class NodeProcess:
    """One dev node over one database; it keeps its port when it is started again."""

    def __init__(self, folder: Path, **settings) -> None:
        self.settings = {"database": folder / "chain.sqlite", "events": folder / "events.jsonl", "port": 0} | settings
        self._process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.settings['port']}"

    def start(self) -> None:
        events = self.settings["events"]
        before = len(list(self._ready(events)))
        settings = DevnodeSettings(**self.settings).model_dump_json()
        self._process = subprocess.Popen([sys.executable, "-c", SERVE, settings])
        deadline = time.monotonic() + 60
        while len(ready := list(self._ready(events))) == before:
            assert self._process.poll() is None and time.monotonic() < deadline, "the dev node did not start"
            time.sleep(0.02)
        self.settings["port"] = ready[-1]["port"]

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    @staticmethod
    def _ready(events: Path):
        return (event for event in read_events(events) if event["event"] == "devchain.ready")


@pytest.fixture(scope="module")
def start_node(tmp_path_factory: pytest.TempPathFactory, wallet_of):
    """start_node(...): a fresh dev node, "val" at stake, everyone's coldkey funded. Ends with the test module."""
    nodes: list[NodeProcess] = []

    def start(**settings) -> NodeProcess:
        names = ("alice", "bob", "carol", "mallory", "val")
        coldkeys = {wallet_of(name).coldkeypub.ss58_address: 100.0 for name in names}
        stakes = {hotkey_of(wallet_of("val")): 2000.0}
        fast = {"block_seconds": 0.1, "tempo": 20, "reveal_blocks": 4, "balances": coldkeys, "stakes": stakes}
        node = NodeProcess(tmp_path_factory.mktemp("node"), **fast | settings)
        nodes.append(node)
        node.start()
        return node

    yield start
    for node in nodes:
        node.kill()


@pytest.fixture(scope="module")
def node(start_node) -> NodeProcess:
    return start_node()


@pytest.fixture
def chain_of(node, wallet_of):
    """chain_of("alice"): her client of the module's node. chain_of(None): a reader's."""
    with contextlib.ExitStack() as stack:

        def open_chain(name: str | None, at: NodeProcess = node, netuid: int = 1) -> Chain:
            wallet = wallet_of(name) if name is not None else None
            return stack.enter_context(contextlib.closing(Chain(at.address, netuid, wallet)))

        yield open_chain
