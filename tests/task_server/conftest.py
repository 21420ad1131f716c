"""A task server in this process: real wallets, real HTTP on loopback, and a chain that the test holds in its hand."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from bittensor import Wallet

from athena.chain.client import Head, Neuron
from athena.chain.wallets import hotkey_of, open_wallet, sign
from athena.client import LedgerClient
from athena.errors import Forbidden, Unavailable
from athena.protocol import (
    DatasetRef,
    Lease,
    Manifest,
    RecipeRef,
    ScoreSheet,
    SignedSheet,
    Submission,
)
from task_server.app import create_app
from task_server.crawl import Opening, import_crawl
from task_server.database import Database
from task_server.identity import Gate, MemberNonces
from task_server.ledger import Ledger
from task_server.settings import TaskServerSettings
from task_server.stats import Records

CRAWL = "LOCAL-test"
HEX40, HEX64 = "a" * 40, "b" * 64


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 21, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class FakeChain:
    """A Membership without a chain: the test moves the head and registers hotkeys."""

    block: int = 100
    neurons: dict[str, Neuron] = field(default_factory=dict)
    stale: bool = False

    @staticmethod
    def hash_of(number: int) -> str:
        return "0x" + hashlib.sha256(f"block {number}".encode()).hexdigest()

    def head(self) -> Head:
        if self.stale:
            raise Unavailable("no recent view of the chain")
        return Head(self.block, self.hash_of(self.block))

    def member(self, hotkey: str) -> Neuron:
        if self.stale:
            raise Unavailable("no recent view of the chain")
        if hotkey not in self.neurons:
            raise Forbidden("not registered")
        return self.neurons[hotkey]

    def register(self, hotkey: str, coldkey: str, *, permit: bool = False) -> Neuron:
        neuron = Neuron(len(self.neurons), hotkey, coldkey, 1.0, permit, 0.0, 1, 1)
        self.neurons[hotkey] = neuron
        return neuron


@dataclass
class Service:
    """A running server, and the means to meet it as anyone."""

    url: str
    receiver: str
    chain: FakeChain
    clock: Clock
    database: Database
    ledger: Ledger
    wallets: Callable[[str], Wallet]

    def wallet(self, name: str, *, permit: bool = False, coldkey: str | None = None) -> Wallet:
        """A registered wallet."""
        wallet = self.wallets(name)
        self.chain.register(hotkey_of(wallet), coldkey or f"coldkey of {name}", permit=permit)
        return wallet

    def client(self, wallet: Wallet | None, **options) -> LedgerClient:
        return LedgerClient(self.url, wallet, self.receiver, **{"retry_seconds": 0.0} | options)


@pytest.fixture(scope="session")
def wallets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Wallet]:
    folder = tmp_path_factory.mktemp("wallets")
    return lambda name: open_wallet(name, path=folder, create=True)


@pytest.fixture
def open_tasks() -> Callable[..., None]:
    """Opens `num_tasks` one-WARC tasks in a database."""

    def fill(database: Database, num_tasks: int, *, replication: int = 1, opened_block: int = 90) -> None:
        listing = [f"crawl-data/{CRAWL}/segments/0/warc/{i:05d}.warc.gz" for i in range(num_tasks)]
        opening = Opening(CRAWL, "file:///crawl", 1, "demo-1", replication, opened_block)
        import_crawl(database, listing, opening, datetime(2026, 11, 20, tzinfo=UTC))

    return fill


@contextmanager
def _running(app) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve(tmp_path: Path, wallets: Callable[[str], Wallet], open_tasks) -> Iterator[Callable[..., Service]]:
    """Starts a server with some tasks; settings by name."""
    with ExitStack() as stack:

        def start(*, num_tasks: int = 8, **options) -> Service:
            settings = TaskServerSettings(rule_version="demo-1", network="ws://127.0.0.1:1", **options)
            clock, chain = Clock(), FakeChain()
            database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
            stack.callback(database.close)
            open_tasks(database, num_tasks, replication=settings.replication)
            ledger = Ledger(database, settings, clock)
            receiver = hotkey_of(wallets("server"))
            gate = Gate(receiver, chain, MemberNonces(database, chain))
            app = create_app(settings, ledger, Records(database, clock), chain, gate, receiver)
            url = stack.enter_context(_running(app))
            return Service(url, receiver, chain, clock, database, ledger, wallets)

        yield start


@pytest.fixture
def submission_for() -> Callable[[Lease], Submission]:
    def build(lease: Lease, name: str = "data") -> Submission:
        dataset = DatasetRef(location=f"file:org/{name}", revision=HEX40, root=HEX64)
        manifest = Manifest(
            task_id=lease.task.id,
            hotkey=lease.hotkey,
            rule_version=lease.task.rule_version,
            recipe=RecipeRef(name="fineweb-1", version="1", hash=HEX64),
            files=(),
            records=10,
            rows=4,
            rejected={"language": 6},
            tokens=1234,
            root=HEX64,
        )
        return Submission(lease_id=lease.id, fencing=lease.fencing, dataset=dataset, manifest=manifest)

    return build


@pytest.fixture
def sheet_by() -> Callable[..., SignedSheet]:
    """A score sheet about a lease's hotkey, signed by a validator's wallet; fields may be overridden."""

    def build(wallet: Wallet, lease: Lease, **fields) -> SignedSheet:
        sheet = ScoreSheet(
            task_id=lease.task.id,
            hotkey=lease.hotkey,
            dataset=DatasetRef(location="file:org/data", revision=HEX40, root=HEX64),
            validator=hotkey_of(wallet),
            rule_version="demo-1",
            eval_pack=HEX64,
            issued_block=100,
            commit_block=101,
            seed_block=102,
            outcome="pass",
            gates=(),
            units=1.5,
        ).model_copy(update=fields)
        return SignedSheet(sheet=sheet, signature=sign(wallet, sheet.canonical()))

    return build
