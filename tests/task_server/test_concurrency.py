"""Many at once, and a server that dies among them: nothing is leased twice, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from bittensor.sp_core import Keypair
from sqlmodel import select

from athena.audit import replay, verified
from athena.chain.wallets import hotkey_of
from athena.client import LedgerClient
from athena.events import read_events
from athena.protocol import Lease, Submission
from athena.wire import IDEMPOTENCY_KEY, SubmissionView
from task_server.books import EventRow
from task_server.store import open_store
from task_server.tables import LeaseRow, SubmissionRow, TaskRow

SERVED = Path(__file__).with_name("served.py")
NUM_CLIENTS, NUM_COLDKEYS = 64, 48  # some people have two hotkeys
LOST = 0.03  # share of the replies that never reach the client
RETRY_SECONDS = 120.0
START_SECONDS = 60


def test_concurrent_claims_never_lease_twice(serve):
    service = serve(num_tasks=60)
    miners = [service.wallet(f"miner{i}") for i in range(12)]

    def work(wallet) -> list[str]:
        with service.client(wallet, retry_seconds=30.0) as client:
            for count in range(1, 6):
                leases = client.claim(count)
            return [lease.task.id for lease in leases]

    with ThreadPoolExecutor(len(miners)) as pool:
        leased = [task for tasks in pool.map(work, miners) for task in tasks]
    assert len(leased) == len(set(leased)) == 60
    with service.store.read() as session:
        assert session.exec(select(TaskRow.slots)).all() == [0] * 60


def test_claims_of_one_hotkey_at_once_do_not_add_up(serve):
    service = serve(num_tasks=30)
    wallet = service.wallet("miner")

    def claim(_: int) -> list[str]:
        with service.client(wallet, retry_seconds=30.0) as client:
            return [lease.id for lease in client.claim(3)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(claim, range(16)))
    assert all(answer == answers[0] for answer in answers)
    with service.store.read() as session:
        assert len(session.exec(select(LeaseRow)).all()) == 3


@pytest.mark.parametrize(
    "num_claims",
    [
        pytest.param(800, id="some"),
        pytest.param(20_000, id="many", marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
    ],
)
def test_a_server_killed_among_many_claims_on_postgresql(
    num_claims, postgres_url, tmp_path, wallets, open_tasks, submission_for
):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        # A deadlock is looked for after so long a wait: none may end before it is noticed.
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET deadlock_timeout = '20ms'")
    seen = _storm(postgres_url, num_claims, tmp_path, wallets("server"), open_tasks, submission_for)
    assert set(seen.statuses) == {200, 201}
    with psycopg.connect(postgres_url) as connection:
        deadlocks = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert deadlocks.fetchone() == (0,)


def test_a_server_killed_among_many_claims_on_sqlite(sqlite_url, tmp_path, wallets, open_tasks, submission_for):
    seen = _storm(sqlite_url, 600, tmp_path, wallets("server"), open_tasks, submission_for)
    assert set(seen.statuses) <= {200, 201, 503}  # two processes share the file: one may wait too long for the other


@dataclass
class Seen:
    """What the clients were told, as long as they were told it at all."""

    claimed: dict[str, Lease] = field(default_factory=dict)
    submitted: dict[str, SubmissionView] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    replies: defaultdict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """The bodies of all successful replies by idempotency key, those that were lost included."""
    num_replies: Counter[str] = field(default_factory=Counter)


class Network(httpx.BaseTransport):
    """One client's way to two servers: it loses some replies, and takes the other server after each failure."""

    def __init__(self, ports: tuple[int, int], seen: Seen, dice: random.Random) -> None:
        self._ports = list(ports)
        dice.shuffle(self._ports)
        self._seen = seen
        self._dice = dice
        self._http = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._exchange(request)
        except httpx.TransportError:
            self._ports.reverse()
            raise

    def close(self) -> None:
        self._http.close()

    def _exchange(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(port=self._ports[0])
        response = self._http.handle_request(request)
        body = response.read()
        self._seen.statuses[response.status_code] += 1
        if response.status_code < 300:
            key = request.headers[IDEMPOTENCY_KEY]
            self._seen.replies[key].add(body)
            self._seen.num_replies[key] += 1
        elif response.status_code == 503:
            assert "retry-after" in response.headers
        if self._dice.random() < LOST:
            raise httpx.ReadError("the reply was lost")
        return httpx.Response(response.status_code, headers=response.headers, content=body)


def _storm(
    url: str, num_claims: int, folder: Path, server_wallet, open_tasks: Callable[..., None], submission_for
) -> Seen:
    """Claims, heartbeats, submissions and releases of 64 clients at two servers, one of which dies halfway.

    What the clients saw is held against the ledger.
    """
    keys = [Keypair.create_from_uri(f"//miner{i}") for i in range(NUM_CLIENTS)]
    coldkeys = [str(Keypair.create_from_uri(f"//cold{i}").ss58_address) for i in range(NUM_COLDKEYS)]
    members = {str(key.ss58_address): coldkeys[i % NUM_COLDKEYS] for i, key in enumerate(keys)}
    (folder / "members.json").write_text(json.dumps(members))
    store = open_store(url)
    open_tasks(store, num_claims * 2 // 3)  # two leases of each, as all miners are new
    store.close()
    seen = Seen()
    halfway = threading.Event()
    with _servers(folder, url, server_wallet) as servers, ThreadPoolExecutor(NUM_CLIENTS) as pool:

        def work(number: int, key: Keypair) -> None:
            dice = random.Random(number)
            network = Network((servers[0].port, servers[1].port), seen, dice)
            with LedgerClient(
                "http://127.0.0.1", key, hotkey_of(server_wallet), retry_seconds=RETRY_SECONDS, transport=network
            ) as client:
                for _ in range(number, num_claims, NUM_CLIENTS):
                    _refine(client, seen, dice, submission_for)
                    if len(seen.claimed) >= num_claims // 2:
                        halfway.set()

        runs = [pool.submit(work, number, key) for number, key in enumerate(keys)]
        while not halfway.wait(1.0):
            assert not any(run.done() and run.exception() for run in runs)
        servers[0].kill()
        servers[0] = servers[0].again()
        for run in runs:
            run.result()
    assert len(seen.claimed) == num_claims
    assert max(seen.num_replies.values()) > 1  # some were retried after all
    assert max(len(bodies) for bodies in seen.replies.values()) == 1
    _hold_against_ledger(url, seen, members)
    return seen


def _refine(client: LedgerClient, seen: Seen, dice: random.Random, submission_for) -> None:
    """One task from the claim on, as a miner goes about it, hurried."""
    (lease,) = client.claim(1)
    seen.claimed[lease.id] = lease
    if dice.random() < 0.2:
        assert not client.heartbeat(lease, {"records": 1}).cancel
    if dice.random() < 0.85:
        submission: Submission = submission_for(lease)
        seen.submitted[lease.id] = client.submit(submission)
    else:
        client.release(lease)
        seen.released.add(lease.id)


def _hold_against_ledger(url: str, seen: Seen, members: Mapping[str, str]) -> None:
    store = open_store(url)
    with store.read() as session:
        leases = session.exec(select(LeaseRow)).all()
        submissions = session.exec(select(SubmissionRow)).all()
        tasks = session.exec(select(TaskRow)).all()
        events = [row.view() for row in session.exec(select(EventRow).order_by(EventRow.sequence))]
    store.close()
    assert {lease.id: (lease.task_id, lease.hotkey) for lease in leases} == {
        lease.id: (lease.task.id, lease.hotkey) for lease in seen.claimed.values()
    }
    assert {lease.id for lease in leases if lease.state == "released"} == seen.released
    assert {lease.id for lease in leases if lease.state == "submitted"} == seen.submitted.keys()
    kept = {row.lease_id: row.view(revealed=True) for row in submissions}
    assert kept == seen.submitted
    assert all(submission.accepted for submission in kept.values())
    assert all(lease.coldkey == members[lease.hotkey] for lease in leases)
    assert len({(lease.task_id, lease.coldkey) for lease in leases}) == len(leases)
    paid = Counter(lease.task_id for lease in leases if lease.state == "submitted")
    assert {task.id: task.slots for task in tasks} == {task.id: task.copies - paid[task.id] for task in tasks}
    state = replay(verified(events))
    kinds = Counter(event.kind for event in events)
    assert kinds == {
        "imported": kinds["imported"],
        "leased": len(leases),
        "submitted": len(seen.submitted),
        "released": len(seen.released),
    }
    assert {task: line.accepted for task, line in state.tasks.items()} == {task: paid[task] for task in state.tasks}


@dataclass(frozen=True)
class Server:
    """A server process of a test's own, and the port that it answers at."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def start(cls, folder: Path, environment: Mapping[str, str], port: int = 0) -> Server:
        events = folder / f"events-{time.monotonic_ns()}.jsonl"
        process = subprocess.Popen(
            [sys.executable, str(SERVED), str(folder / "members.json")],
            env={**environment, "ATHENA_SERVER_EVENTS": str(events), "ATHENA_SERVER_PORT": str(port)},
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            for event in read_events(events):
                if event["event"] == "server.ready":
                    return cls(process, event["port"], folder, environment)
            time.sleep(0.05)
        process.kill()
        process.wait()
        raise AssertionError("the server did not start")

    def again(self) -> Server:
        """A new process in the place of one that died."""
        return Server.start(self.folder, self.environment, self.port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def _servers(folder: Path, url: str, wallet) -> Iterator[list[Server]]:
    """Two servers with one hotkey over one database; whichever are in the list at the end are stopped."""
    unlimited = str(10**6)
    environment = os.environ | {
        "ATHENA_SERVER_DATABASE": url,
        "ATHENA_SERVER_WALLET": wallet.name,
        "ATHENA_SERVER_WALLET_PATH": str(wallet.path),
        "ATHENA_SERVER_INITIAL_QUOTA": unlimited,
        "ATHENA_SERVER_MAX_QUOTA": unlimited,
        "ATHENA_SERVER_WRITES_PER_MINUTE": unlimited,
        "ATHENA_SERVER_REQUESTS_PER_MINUTE": unlimited,
    }
    servers: list[Server] = []
    try:
        for _ in range(2):
            servers.append(Server.start(folder, environment))
        yield servers
    finally:
        for server in servers:
            server.kill()
