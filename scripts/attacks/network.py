"""One simulated network: chain, task server, hub, honest miners, one contested slot, and a validator at work."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from athena.chain.client import Chain, Neuron
from athena.chain.wallets import hotkey_of, sign
from athena.errors import Unavailable
from athena.events import EventLog
from athena.hub import Hub, open_hub
from athena.judge.assess import GATES, Gates
from athena.judge.disk import task_folder
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.queue import LAST_READ, CaseQueue
from athena.judge.work import Judge, Reader, weights_now
from athena.optout import NOTHING_LEFT_OUT
from athena.protocol import Commitment, DatasetRef, Lease, Manifest, RecipeRef, SignedSheet, Submission
from athena.refine.recipe import load_recipe
from scripts.attacks.datasets import OTHER_RECIPE, Row, own_decisions, write_dataset
from scripts.attacks.devnode import DevNode
from scripts.attacks.ledger_service import LedgerService, server_settings
from scripts.attacks.memory import RememberingBench, RememberingWorkers
from scripts.attacks.world import KEYS, NETUID, REVEAL_BLOCKS, RULE_VERSION, SHARED, SLOT, World

READ_BLOCKS = 4
ROUNDS = 2  # tasks that each miner has, one after the other
ALICE, BOB = "alice", "bob"
"""The honest miners beside the slot: one works by the canonical recipe, one by a recipe of his own."""

Tamper = Callable[[Path], None]


def as_it_is(folder: Path) -> None:
    """Publishes what was written."""


class Shelf:
    """A hub that gives no answer about the repositories of `silent` owners."""

    def __init__(self, inner: Hub) -> None:
        self._inner, self.scheme = inner, inner.scheme
        self.silent: set[str] = set()

    def publish(self, folder: Path, name: str, *, message: str) -> str:
        return self._inner.publish(folder, name, message=message)

    def sizes(self, name: str, revision: str) -> dict[str, int]:
        self._wait(name)
        return self._inner.sizes(name, revision)

    def fetch(self, name: str, revision: str, into: Path, *, max_bytes: int, suffixes: tuple[str, ...] = ()) -> Path:
        self._wait(name)
        return self._inner.fetch(name, revision, into, max_bytes=max_bytes, suffixes=suffixes)

    def tag(self, name: str, revision: str, tag: str) -> None:
        self._inner.tag(name, revision, tag)

    def resolve(self, name: str, reference: str) -> str:
        return self._inner.resolve(name, reference)

    def _wait(self, name: str) -> None:
        if name.partition("/")[0] in self.silent:
            raise Unavailable(f"{name}: no answer in time")


class Player:
    """A key with its ways to chain, task server and hub: what any miner can do, in the order of its choice.

    `overheard` are requests of others to the task server, where it listens.
    """

    def __init__(self, network: Network, name: str) -> None:
        self.network, self.name = network, name
        self.wallet = network.world.wallets[name]
        self.hotkey = hotkey_of(self.wallet)
        self.ledger = network.stack.enter_context(closing(network.server.client(self.wallet)))
        self.leases: list[Lease] = []
        self.overheard: list[httpx.Request] = []
        self._numbers = itertools.count()

    @cached_property
    def chain(self) -> Chain:
        return self.network.stack.enter_context(closing(Chain(self.network.node.address, NETUID, self.wallet)))

    @property
    def world(self) -> World:
        return self.network.world

    def claim(self, count: int = ROUNDS) -> list[Lease]:
        self.leases = sorted(self.ledger.claim(count), key=lambda lease: lease.task.id)
        return self.leases

    def rows(self, lease: Lease) -> list[Row]:
        """Canonical rows of the lease's shard."""
        paths = lease.task.shard.warc_paths
        return [row for path in paths for row in self.world.rows("fineweb-1", path, self.world.left_out)]

    def all_pages(self, lease: Lease) -> list[Row]:
        """A row for every page of the shard, with all that can be seen of it; opted-out domains are not left out."""
        paths = lease.task.shard.warc_paths
        return [row for path in paths for row in self.world.rows("unfiltered-1", path, NOTHING_LEFT_OUT)]

    def publish(
        self,
        rows: Sequence[Row],
        lease: Lease,
        *,
        recipe: RecipeRef = OTHER_RECIPE,
        tamper: Tamper = as_it_is,
        hub: Hub | None = None,
    ) -> tuple[DatasetRef, Manifest]:
        """Publishes rows as a dataset for the lease's task. `tamper` edits its folder before."""
        name = f"{self.name}/set-{next(self._numbers)}"
        folder = self.network.folder / "made" / name
        manifest = write_dataset(folder, rows, lease.task, self.hotkey, recipe)
        tamper(folder)
        shelf = hub or self.network.hub
        revision = shelf.publish(folder, name, message="data")
        return DatasetRef(location=f"{shelf.scheme}:{name}", revision=revision, root=manifest.root), manifest

    def commit(self, dataset: DatasetRef, lease: Lease) -> str:
        """Seals a commitment to `dataset` for the lease's task on the chain; its text."""
        text = Commitment(dataset=dataset, task_id=lease.task.id, hotkey=self.hotkey).encode()
        self.commit_text(text)
        return text

    def commit_text(self, text: str) -> None:
        self.chain.commit(text, sealed=True, reveal_in_blocks=REVEAL_BLOCKS)

    def submit(self, lease: Lease, dataset: DatasetRef, manifest: Manifest) -> None:
        self.ledger.submit(Submission(lease_id=lease.id, fencing=lease.fencing, dataset=dataset, manifest=manifest))

    def deliver(
        self, rows: Sequence[Row], lease: Lease, *, recipe: RecipeRef = OTHER_RECIPE, tamper: Tamper = as_it_is
    ) -> None:
        """Publishes, commits and submits."""
        dataset, manifest = self.publish(rows, lease, recipe=recipe, tamper=tamper)
        self.commit(dataset, lease)
        self.submit(lease, dataset, manifest)

    def work(self, lease: Lease) -> None:
        """An honest turn: canonical work."""
        self.deliver(self.rows(lease), lease, recipe=load_recipe("fineweb-1").ref)


class Validator:
    """The product's reader, queue, judge and pay formula, driven step by step."""

    def __init__(self, network: Network, gates: Gates, workers: ProxyWorkers) -> None:
        world = network.world
        self._wallet = world.wallets["validator"]
        workdir = network.folder / "validator"
        workdir.mkdir()
        for task_id in world.task_ids:  # refined rows, and tokens of canonical ones, are the same in every network
            scratch = task_folder(workdir, task_id)
            scratch.mkdir(parents=True)
            for shared in SHARED:
                (scratch / shared).symlink_to(world.folder / shared)
        queue_file = workdir / "queue.sqlite"
        enter = network.stack.enter_context
        self._chain = enter(closing(Chain(network.node.address, NETUID, self._wallet)))
        self._ledger = enter(closing(network.server.client(self._wallet)))
        self._queue = enter(closing(CaseQueue(queue_file)))
        self._reader = Reader(self._chain, self._ledger, self._queue, READ_BLOCKS)
        bench = RememberingBench(
            hub=network.hub,
            crawl=world.bench.crawl,
            pack=world.pack,
            rules=world.bench.rules,
            validator=hotkey_of(self._wallet),
            workdir=workdir,
            events=EventLog(network.folder / "events.jsonl"),
            workers=workers,
            opt_outs=self._ledger.opt_outs,
            gates=gates,
            known=(world.known,),
            memory=world.folder / "public-work",
        )
        self._judge = Judge(queue_file, bench, self._ledger, lambda message: sign(self._wallet, message))

    def work(self, height: int) -> None:
        """Reads up to a block, judges all that is due, posts the sheets."""
        while (self._queue.noted(LAST_READ) or 0) < height - height % READ_BLOCKS:
            self._reader.read_up_to(height)
        while self._judge.judge_next(self._queue):
            pass
        self._judge.post(self._queue)

    def signed(self) -> list[SignedSheet]:
        """The latest sheet of each case, earliest commitment first."""
        return list(self._queue.sheets())

    def neurons(self) -> list[Neuron]:
        return self._chain.neurons()

    def weights(self, neurons: Sequence[Neuron], block: int) -> Mapping[str, float]:
        owner = self._chain.owner_hotkey()
        return weights_now(self._queue, self._ledger, list(neurons), owner, RULE_VERSION, block) or {}


class Network:
    """Begins with copies of the world's chain and ledger, so that all networks of a world lease the same tasks.

    `gates` are those of the validator.
    """

    def __init__(self, world: World, gates: Gates = GATES) -> None:
        self.world, self._gates = world, gates
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self.stack = opening
            self._start()
            self.stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def _start(self) -> None:
        enter, world = self.stack.enter_context, self.world
        self.folder = Path(enter(tempfile.TemporaryDirectory(prefix="athena-attack-")))
        database = enter(world.copied("chain.sqlite", self.folder))
        self.node = enter(DevNode(world.devnode_settings(database)))
        ledger = enter(world.copied("ledger.sqlite", self.folder))
        settings = server_settings(ledger, self.node.address, world.crawl_url, len(KEYS))
        self.server = enter(LedgerService(settings, world.wallets["server"]))
        self.hub = Shelf(open_hub((self.folder / "hub").as_uri()))
        workers = enter(RememberingWorkers(world.folder / "memory"))
        self.alice, self.bob = Player(self, ALICE), Player(self, BOB)
        self.slot = Player(self, SLOT)
        self.validator = Validator(self, self._gates, workers)
        self.validator.work(self.node.height)  # who has never read begins with the newest block

    def work_honestly(self, number: int) -> None:
        """The honest miners' turn of a round."""
        self.alice.work(self.alice.leases[number])
        lease = self.bob.leases[number]
        self.bob.deliver(own_decisions(self.bob.rows(lease)), lease)

    def player(self, name: str) -> Player:
        return Player(self, name)

    def reveal(self) -> None:
        """Passes blocks until everything that was sealed so far can be read by all."""
        self.node.advance(REVEAL_BLOCKS + 1)
        self.server.keep_up()

    def judge(self) -> None:
        """Passes blocks until all commitments are revealed and read, and has them judged."""
        self.reveal()
        self.validator.work(self.node.advance_to_read(READ_BLOCKS))
        self.server.keep_up()
