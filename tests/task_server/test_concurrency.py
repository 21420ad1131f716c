"""Many at once, and a server that dies among them: nothing is leased twice, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlmodel import select

from athena.chain.wallets import hotkey_of
from athena.client import LedgerClient
from athena.events import read_events
from task_server.database import Database
from task_server.tables import LeaseRow, TaskRow

SERVED = Path(__file__).with_name("served.py")


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
    assert [row.slots for row in _rows(service.database, TaskRow)] == [0] * 60


def test_one_request_sent_many_times_at_once_happens_once(serve, submission_for):
    service = serve(num_tasks=30)
    wallet = service.wallet("miner")

    def claim(_: int) -> list[str]:
        with service.client(wallet, retry_seconds=30.0) as client:
            return [lease.id for lease in client.claim(3)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(claim, range(16)))
    assert all(answer == answers[0] for answer in answers)
    assert len(_rows(service.database, LeaseRow)) == 3


def test_a_killed_server_loses_nothing_it_acknowledged(tmp_path, wallets, open_tasks):
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    open_tasks(database, 400)
    miners = [wallets(f"miner{i}") for i in range(4)]
    members = {hotkey_of(wallet): f"cold{i}" for i, wallet in enumerate(miners)}
    receiver = hotkey_of(wallets("server"))
    (tmp_path / "members.json").write_text(json.dumps(members))
    server, port = _spawn(tmp_path, receiver, port=0)
    acknowledged: list[tuple[str, str]] = []
    halfway = threading.Event()

    def work(wallet) -> None:
        with LedgerClient(f"http://127.0.0.1:{port}", wallet, receiver, retry_seconds=60.0) as client:
            for count in range(1, 21):
                leases = client.claim(count)
                acknowledged.extend((lease.id, lease.hotkey) for lease in leases)
                if count == 8:
                    halfway.set()

    with ThreadPoolExecutor(len(miners)) as pool:
        runs = [pool.submit(work, wallet) for wallet in miners]
        assert halfway.wait(60)
        server.kill()
        server.wait()
        server, _ = _spawn(tmp_path, receiver, port=port)
        try:
            for run in runs:
                run.result()
        finally:
            server.terminate()
            server.wait()
    leases = _rows(database, LeaseRow)
    database.close()
    assert {lease.id for lease in leases} >= {lease_id for lease_id, _ in acknowledged}
    assert max(Counter(lease.task_id for lease in leases).values()) == 1
    assert Counter(lease.hotkey for lease in leases) == dict.fromkeys(members, 20)


def _rows(database: Database, table):
    with database.read() as session:
        return session.exec(select(table)).all()


def _spawn(folder: Path, receiver: str, *, port: int) -> tuple[subprocess.Popen, int]:
    """The server as a process of its own, and the port that it announces once it answers."""
    events = folder / f"events-{time.monotonic_ns()}.jsonl"
    environment = os.environ | {
        "ATHENA_SERVER_STATE": str(folder),
        "ATHENA_SERVER_PORT": str(port),
        "ATHENA_SERVER_EVENTS": str(events),
    }
    process = subprocess.Popen([sys.executable, str(SERVED), receiver, str(folder / "members.json")], env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for event in read_events(events):
            if event["event"] == "server.ready":
                return process, event["port"]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    raise AssertionError("the server did not start")
