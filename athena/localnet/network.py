"""The rooms of a local network: which processes there are, who they are, and what each is told."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from athena.chain.client import Chain
from athena.chain.wallets import hotkey_of, open_wallet
from athena.localnet.supervise import Room

NETUID = 1
RULE_VERSION = "demo-1"
VALIDATORS = ("validator-1", "validator-2")
BLOCK_SECONDS = 0.5
TEMPO_BLOCKS = 20
COMMIT_READ_BLOCKS = 4
REVEAL_BLOCKS = 4
STAKE_TAO = 1000.0
BALANCE_TAO = 100.0


@dataclass(frozen=True)
class Localnet:
    """A network in one folder. `recipes` maps miners' names to recipe names or files."""

    folder: Path
    crawl_id: str
    crawl_url: str
    recipes: Mapping[str, str]
    limit_warcs: int | None = None
    chain_port: int = field(default_factory=lambda: free_port())
    server_port: int = field(default_factory=lambda: free_port())

    @property
    def chain_url(self) -> str:
        return f"ws://127.0.0.1:{self.chain_port}"

    @property
    def server_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def hub_url(self) -> str:
        return (self.folder / "hub").as_uri()

    @property
    def eval_pack(self) -> Path:
        return self.folder / "eval-pack"

    @property
    def wallets(self) -> Path:
        return self.folder / "wallets"

    def create_wallets(self) -> dict[str, str]:
        """Name -> hotkey of every node; each has a coldkey of its own."""
        names = ("server", *VALIDATORS, *self.recipes, "trainer")
        return {name: hotkey_of(open_wallet(name, path=self.wallets, create=True)) for name in names}

    def register_owner(self) -> None:
        """Registers the task server's key first: uid 0 is the subnet owner's, whose incentive is burned."""
        with closing(Chain(self.chain_url, NETUID, open_wallet("server", path=self.wallets))) as chain:
            chain.register()

    def coldkey(self, name: str) -> str:
        return str(open_wallet(name, path=self.wallets).coldkeypub.ss58_address)

    def _room(self, name: str, module: str, arguments: tuple[str, ...]) -> Room:
        environment = {
            "OMP_NUM_THREADS": "1",
            "BITTENSOR_RUNTIME_CACHE_DIR": str(self.folder / "runtime-cache"),
            "TOKENIZERS_PARALLELISM": "false",
        }
        return Room(name, module, arguments, self.folder, environment)

    def chain(self, hotkeys: Mapping[str, str]) -> Room:
        grants = [f"--stake={hotkeys[name]}={STAKE_TAO}" for name in VALIDATORS]
        grants += [f"--balance={self.coldkey(name)}={BALANCE_TAO}" for name in hotkeys]
        return self._room(
            "chain",
            "athena.cli",
            (
                "devchain",
                f"--database={self.folder / 'chain.sqlite'}",
                f"--port={self.chain_port}",
                f"--netuid={NETUID}",
                f"--tempo={TEMPO_BLOCKS}",
                f"--block-seconds={BLOCK_SECONDS}",
                f"--reveal-blocks={REVEAL_BLOCKS}",
                f"--events={self.folder / 'events' / 'chain.jsonl'}",
                *grants,
            ),
        )

    def server_settings(self) -> dict[str, str]:
        """Environment of the task server and of its import command."""
        return {
            "ATHENA_SERVER_DATABASE": f"sqlite:///{self.folder / 'ledger.sqlite'}",
            "ATHENA_SERVER_NETWORK": self.chain_url,
            "ATHENA_SERVER_NETUID": str(NETUID),
            "ATHENA_SERVER_WALLET": "server",
            "ATHENA_SERVER_WALLET_PATH": str(self.wallets),
            "ATHENA_SERVER_CRAWL_URL": self.crawl_url,
            "ATHENA_SERVER_RULE_VERSION": RULE_VERSION,
            "ATHENA_SERVER_REPLICATION": str(len(self.recipes)),
            "ATHENA_SERVER_BLOCK_SECONDS": str(BLOCK_SECONDS),
            "ATHENA_SERVER_NEW_MINER_COPIES": "0",  # every miner gets every task anyway
            "ATHENA_SERVER_INITIAL_QUOTA": "1000",
            "ATHENA_SERVER_REQUESTS_PER_MINUTE": "60000",  # all nodes ask from one address
            "ATHENA_SERVER_REFRESH_SECONDS": "1",
            "ATHENA_SERVER_MEMBERSHIP_AGE_SECONDS": "60",
            "ATHENA_SERVER_LEASE_SECONDS": "120",
            "ATHENA_SERVER_DEADLINE_SECONDS": "3600",
            "ATHENA_SERVER_IDLE_SECONDS": "1",
            "ATHENA_SERVER_HOST": "127.0.0.1",
            "ATHENA_SERVER_PORT": str(self.server_port),
            "ATHENA_SERVER_EVENTS": str(self.folder / "events" / "server.jsonl"),
        }

    def crawl_import(self) -> Room:
        limit = () if self.limit_warcs is None else (f"--limit-warcs={self.limit_warcs}",)
        room = self._room("import", "task_server", ("import", self.crawl_id, "--warcs-per-shard=1", *limit))
        return _with_environment(room, self.server_settings())

    def server(self) -> Room:
        return _with_environment(self._room("server", "task_server", ("run",)), self.server_settings())

    def _node(self, name: str, module: str, *arguments: str) -> Room:
        common = (
            f"--network={self.chain_url}",
            f"--netuid={NETUID}",
            f"--wallet={name}",
            f"--wallet-path={self.wallets}",
            f"--task-server={self.server_url}",
            f"--hub={self.hub_url}",
            f"--crawl-url={self.crawl_url}",
            f"--state={self.folder / 'state' / name}",
            f"--events={self.folder / 'events' / f'{name}.jsonl'}",
            "--pay-burn",
        )
        return self._room(name, module, (*common, *arguments))

    def miners(self) -> list[Room]:
        return [
            self._node(
                name, "neurons.miner", f"--recipe={recipe}", f"--namespace={name}",
                f"--commit-read-blocks={COMMIT_READ_BLOCKS}", "--idle-seconds=2", "--leases=1", "--workers=1",
            )
            for name, recipe in self.recipes.items()
        ]  # fmt: skip

    def validators(self) -> list[Room]:
        return [
            self._node(
                name, "neurons.validator", f"--eval-pack={self.eval_pack}",
                f"--commit-read-blocks={COMMIT_READ_BLOCKS}", f"--weight-blocks={TEMPO_BLOCKS}", "--proxy-processes=1",
            )
            for name in VALIDATORS
        ]  # fmt: skip

    def trainer(self, min_datasets: int) -> Room:
        return self._node(
            "trainer", "neurons.trainer", f"--eval-pack={self.eval_pack}", "--preset=demo", "--namespace=athena",
            "--model-name=athena-demo", f"--min-datasets={min_datasets}", f"--settle-blocks={2 * TEMPO_BLOCKS}",
            "--look-blocks=4", "--releases=1",
        )  # fmt: skip

    def write_plan(self, hotkeys: Mapping[str, str]) -> None:
        """network.json: what somebody who looks into the folder needs to talk to this network."""
        plan = {
            "chain": self.chain_url, "task_server": self.server_url, "hub": self.hub_url, "netuid": NETUID,
            "crawl": self.crawl_id, "hotkeys": dict(hotkeys),
        }  # fmt: skip
        (self.folder / "network.json").write_text(json.dumps(plan, indent=2))


def _with_environment(room: Room, extra: Mapping[str, str]) -> Room:
    return Room(room.name, room.module, room.arguments, room.folder, {**room.environment, **extra})


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
