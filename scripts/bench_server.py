"""Measures durable claims per second through HTTP, against a request to the same server that claims nothing.

    python scripts/bench_server.py [--quick]

For each database and number of open shards there is a server process over a ledger of its own. They take turns, claims
and no-ops round by round, so that what else the machine does meets all of them. Prints a JSON line for each
measurement: rates, ratios and processor times are medians over the rounds, latencies are of all requests. The last line
holds, with the most clients, the ratios and the p99 at HEADLINE_SHARDS, and how much longer a claim takes with a
million open shards than with a thousand; the p99 and this growth are those of the database that does worse. Fails if an
answer is not what it should be, or a ledger does not hold what was answered.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench_load import CLAIM, NOOP, members
from bench_subject import Sample, Stage, Subject, new_database, postgres

DATABASES = ("sqlite", "postgresql")
FEW, HEADLINE_SHARDS, MANY = 1_000, 100_000, 1_000_000  # a crawl has about a hundred thousand WARC files
CLIENTS = (1, 16, 64)
REQUESTS = {1: 250, 16: 500, 64: 500}  # of one burst, by clients: about a second
ROUNDS, QUICK_ROUNDS = 5, 3  # beside the first, which warms up
SATURATED = 0.8  # of a processor: a server process that takes more is what limits the rate
DISK = "/var/tmp"  # never in memory, as /tmp may be


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and no ledger of a million shards")
    quick = parser.parse_args().quick
    sizes = (FEW, HEADLINE_SHARDS) if quick else (FEW, HEADLINE_SHARDS, MANY)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    keys = members((1 + rounds) * sum(REQUESTS.values()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="athena-bench-", dir=DISK)))
        stage = Stage(folder, keys)
        postgres_url, postmaster = stack.enter_context(postgres(folder / "postgres"))
        subjects: list[Subject] = []
        for size in sizes:
            for url, pid in ((f"sqlite:///{folder}/{size}.sqlite", None), (new_database(postgres_url), postmaster)):
                say(f"filling a ledger with {size} shards")
                subjects.append(Subject(stage, url, size, pid))
                stack.callback(subjects[-1].close)
        for number in range(1 + rounds):
            say(f"round {number} of {rounds}")
            order = (CLAIM, NOOP) if number % 2 else (NOOP, CLAIM)
            for clients in CLIENTS:
                for subject in subjects:
                    subject.take_turn(order, clients, REQUESTS[clients], keep=number > 0)
        for subject in subjects:
            subject.check()
    for subject in subjects:
        for clients in CLIENTS:
            print(json.dumps(line(subject, clients)))
    print(json.dumps(last_line(subjects)))


def line(subject: Subject, num_clients: int) -> dict[str, Any]:
    """One measurement, as it is printed."""
    claims, noops = subject.samples[CLAIM, num_clients], subject.samples[NOOP, num_clients]
    claim_ms, noop_ms = latencies_ms(claims), latencies_ms(noops)
    server_share = median(claims, lambda s: s.server_cpu_seconds / s.burst.seconds)
    load_share = max(median(some, lambda s: s.burst.cpu_seconds / s.burst.seconds) for some in (claims, noops))
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
        "server_us_per_claim": round(1e6 * median(claims, lambda s: s.server_cpu_seconds / len(s.burst.answers))),
        "server_us_per_noop": round(1e6 * median(noops, lambda s: s.server_cpu_seconds / len(s.burst.answers))),
        "database_us_per_claim": round(1e6 * median(claims, lambda s: s.database_cpu_seconds / len(s.burst.answers))),
        "database_us_per_noop": round(1e6 * median(noops, lambda s: s.database_cpu_seconds / len(s.burst.answers))),
        "load_cpu_share": round(load_share, 2),
        "server_cpu_share": round(server_share, 2),
        "server_saturated": server_share > SATURATED,
    }


def last_line(subjects: Sequence[Subject]) -> dict[str, float | None]:
    clients = CLIENTS[-1]
    of = {(subject.database, subject.open_shards): subject for subject in subjects}
    sqlite, postgresql = (of[database, HEADLINE_SHARDS] for database in DATABASES)
    growths = [growth(of[name, FEW], of[name, MANY], clients) for name in DATABASES if (name, MANY) in of]
    return {
        "sqlite_ratio": round(ratio(sqlite, clients), 3),
        "postgres_ratio": round(ratio(postgresql, clients), 3),
        "p99_ms": max(line(subject, clients)["p99_ms"] for subject in (sqlite, postgresql)),
        "cost_1m_over_1k": round(max(growths), 3) if growths else None,
    }


def ratio(subject: Subject, num_clients: int) -> float:
    """Claims over no-ops in the same time."""
    pairs = zip(subject.samples[CLAIM, num_clients], subject.samples[NOOP, num_clients], strict=True)
    return statistics.median(noop.seconds / claim.seconds for claim, noop in pairs)


def growth(few: Subject, many: Subject, num_clients: int) -> float:
    """Time of a claim at one ledger over that at another, of the same rounds."""
    pairs = zip(few.samples[CLAIM, num_clients], many.samples[CLAIM, num_clients], strict=True)
    return statistics.median(larger.seconds / smaller.seconds for smaller, larger in pairs)


def median(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    return statistics.median(map(value, samples))


def latencies_ms(samples: Sequence[Sample]) -> list[float]:
    """In ascending order."""
    return sorted(1e3 * answer.seconds for sample in samples for answer in sample.burst.answers)


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[round(share * (len(ordered) - 1))]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
