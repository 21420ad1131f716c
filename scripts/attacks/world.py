"""What all networks of one seed share: a crawl, an evaluation pack, keys, and a chain and ledger to begin with."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from athena.chain.client import Chain
from athena.chain.devnode.settings import DevnodeSettings
from athena.chain.wallets import Wallet, hotkey_of, open_wallet
from athena.crawl import open_crawl, write_listing
from athena.crawl_paths import listing_path
from athena.durable import write_file
from athena.evalpack import EvalPack, load_pack, write_pack
from athena.events import EventLog
from athena.hub import open_hub
from athena.judge.assess import Bench
from athena.judge.known import KnownInfo, KnownRelease, items_of, put, size_of
from athena.judge.rules import rules_of
from athena.optout import LeftOut
from athena.protocol import Task
from athena.refine.recipe import load_recipe
from athena.wire import AskOptOut
from scripts.attacks.datasets import Row
from scripts.attacks.devnode import DevNode
from scripts.attacks.ledger_service import HeldClock, server_settings
from scripts.attacks.pages import NUM_FILES, OPTED_OUT_DOMAIN, MadePage, crawl_pages, evaluation_documents, warc
from task_server.crawl import Opening, import_crawl, plan_shards
from task_server.operators import Operators
from task_server.store import open_store
from task_server.transaction import Asked

NETUID = 1
WARCS_PER_SHARD = 2
RULE_VERSION = "demo-1"
TEMPO_BLOCKS = 100
REVEAL_BLOCKS = 4
SLOT = "mallory"
# Wallet and hotkey by name: mallory's other hotkeys share her coldkey, the accomplices have coldkeys of their own.
KEYS = {
    "server": ("server", "default"),
    "validator": ("validator", "default"),
    **{name: (name, "default") for name in ("alice", "bob", SLOT, "accomplice-1", "accomplice-2", "newcomer")},
    "mallory-2": (SLOT, "second"),
    "mallory-3": (SLOT, "third"),
}
SHARED = ("refined", "arms")
"""Folders of what validators make of the crawl, under names of all that decides it."""
_STAKE_TAO, _BALANCE_TAO = 2000.0, 100.0
_TASKS = "tasks"  # written last


@dataclass(frozen=True)
class World:
    """In `folder`. Made once by `build_world`; any number of networks, in any process, begin with copies of it."""

    folder: Path
    seed: int

    @property
    def crawl_id(self) -> str:
        return f"LOCAL-attacks-{self.seed}"

    @property
    def crawl_url(self) -> str:
        return (self.folder / "crawl").as_uri()

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(f"crawl-data/{self.crawl_id}/{number}.warc.gz" for number in range(NUM_FILES))

    @cached_property
    def pack(self) -> EvalPack:
        return load_pack(self.folder / "pack")

    @cached_property
    def pages(self) -> dict[str, MadePage]:
        """All pages of the crawl by address."""
        evaluation = evaluation_documents(self.seed)
        return {page.url: page for number in range(NUM_FILES) for page in crawl_pages(self.seed, number, evaluation)}

    @property
    def left_out(self) -> LeftOut:
        return LeftOut(frozenset({OPTED_OUT_DOMAIN}))

    @cached_property
    def wallets(self) -> dict[str, Wallet]:
        return {name: open_wallet(*key, path=self.folder / "wallets", create=True) for name, key in KEYS.items()}

    @cached_property
    def hotkeys(self) -> dict[str, str]:
        return {name: hotkey_of(wallet) for name, wallet in self.wallets.items()}

    @cached_property
    def bench(self) -> Bench:
        """A validator's instruments without workers, over the rows that all networks share."""
        return Bench(
            hub=open_hub((self.folder / "hub").as_uri()),
            crawl=open_crawl(self.crawl_url),
            pack=self.pack,
            rules=rules_of(RULE_VERSION),
            validator=self.hotkeys["validator"],
            workdir=self.folder,
            events=EventLog(None),
            workers=None,
        )

    @cached_property
    def task_ids(self) -> tuple[str, ...]:
        return tuple((self.folder / _TASKS).read_text().split())

    @cached_property
    def known(self) -> KnownRelease:
        """A public release of every third article."""
        items = np.concatenate([items_of(p.body, 0) for p in self.pages.values() if p.kind == "article" and p.released])
        bits, hashes = size_of(len(items), 1e-6)
        held = np.zeros(bits // 8, dtype=np.uint8)
        put(held, items, hashes)
        info = KnownInfo(
            name="released-articles", revision="1", documents=len(items), items=len(items), halvings=0, bits=bits,
            hashes=hashes, sha256=hashlib.sha256(held.tobytes()).hexdigest(),
        )  # fmt: skip
        return KnownRelease(info, held)

    def rows(self, recipe: str, path: str, left_out: LeftOut) -> list[Row]:
        """What a recipe makes of a WARC file; new dictionaries at each call."""
        rows: list[Row] = self.bench.refined(path, load_recipe(recipe), left_out).table.to_pylist()
        return rows

    def devnode_settings(self, database: Path) -> DevnodeSettings:
        coldkeys = {str(wallet.coldkeypub.ss58_address): _BALANCE_TAO for wallet in self.wallets.values()}
        return DevnodeSettings(
            database=database,
            port=0,
            tempo=TEMPO_BLOCKS,
            reveal_blocks=REVEAL_BLOCKS,
            stakes={self.hotkeys["validator"]: _STAKE_TAO},
            balances=coldkeys,
        )

    @contextmanager
    def copied(self, name: str, folder: Path) -> Iterator[Path]:
        """A copy, in `folder`, of one of the databases that a network begins with; removed afterwards."""
        copies = [Path(shutil.copy(file, folder)) for file in self.folder.glob(f"{name}*")]
        yield folder / name
        for copy in copies:
            copy.unlink(missing_ok=True)


def build_world(folder: Path, seed: int) -> World:
    """Makes what is not there yet. Equal seeds give equal pages; keys and chain are new in every folder."""
    world = World(folder, seed)
    if (folder / _TASKS).exists():
        return world
    evaluation = evaluation_documents(seed)
    for number, path in enumerate(world.paths):
        pages = {page.url: page.html for page in crawl_pages(seed, number, evaluation)}
        write_file(folder / "crawl" / path, warc(pages))
    write_listing(folder / "crawl" / listing_path(world.crawl_id), world.paths)
    write_pack(folder / "pack", f"attacks-{seed}", evaluation)
    height = _register_all(world)
    task_ids = _open_tasks(world, height)
    for shared in SHARED:
        (folder / shared).mkdir(exist_ok=True)
    write_file(folder / _TASKS, " ".join(task_ids).encode())
    return world


def _register_all(world: World) -> int:
    """Block 0 and the registrations; the server's key comes first: uid 0 burns."""
    with DevNode(world.devnode_settings(world.folder / "chain.sqlite")) as node:
        for wallet in world.wallets.values():
            with closing(Chain(node.address, NETUID, wallet)) as chain:
                chain.register()
        return node.height


def _open_tasks(world: World, height: int) -> list[str]:
    """A ledger with the crawl's tasks, whose ids these are, and one domain that asked to be left out."""
    settings = server_settings(world.folder / "ledger.sqlite", "ws://127.0.0.1:1", world.crawl_url, len(KEYS))
    opening = Opening(
        crawl=world.crawl_id,
        crawl_url=world.crawl_url,
        warcs_per_shard=WARCS_PER_SHARD,
        rule_version=RULE_VERSION,
        replication=settings.replication,
        opened_block=height,
    )
    with closing(open_store(settings.database_url, HeldClock())) as store:
        import_crawl(store, world.paths, opening)
        asked = Asked(by="operator", key="opt-out-1", digest="0" * 64)
        wish = AskOptOut(domain=OPTED_OUT_DOMAIN, reason="asked by its owner")
        Operators(store, settings).opt_out(asked, wish, height - 1).result()
    shards = plan_shards(world.crawl_id, world.paths, WARCS_PER_SHARD)
    return [Task(shard=shard, rule_version=RULE_VERSION, opened_block=height).id for shard in shards]
