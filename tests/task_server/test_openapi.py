"""The server keeps to its OpenAPI document, whatever it is sent: no 500, no status, schema, header or content type
that the document does not tell of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
import schemathesis
from bittensor import http_auth
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance

from athena.chain.wallets import Wallet, hotkey_of, sign
from athena.protocol import Release, SignedRelease
from athena.registry import GENESIS, Entry, SignedEntry
from athena.wire import IDEMPOTENCY_KEY, AskOptOut
from task_server.operators import SCOPES
from task_server.transaction import Asked

_numbers, _turns = itertools.count(1), itertools.count()


@dataclass
class Signed(requests.auth.AuthBase):
    """Signs what is about to be sent, and gives it an idempotency key of its own."""

    wallet: Wallet
    receiver: str

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        request.headers.update(
            http_auth.sign(
                self.wallet,
                method=request.method,
                path=request.path_url,
                body=body.encode() if isinstance(body, str) else body,
                receiver_ss58=self.receiver,
            )
        )
        request.headers[IDEMPOTENCY_KEY] = f"key-{next(_numbers):08d}"
        return request


@dataclass
class Keyed(requests.auth.AuthBase):
    """An operator's API key, and an idempotency key."""

    key: str

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["authorization"] = f"Bearer {self.key}"
        request.headers[IDEMPOTENCY_KEY] = f"key-{next(_numbers):08d}"
        return request


@dataclass
class Met:
    """A running server with something of everything."""

    url: str
    member: Signed
    operator: Keyed
    known: dict[str, str]
    """What is there, by the name of a path parameter."""
    good: list[tuple[str, Any]]
    """Writes that succeed: route and body."""


@pytest.fixture(scope="module")
def met(new_ledger, new_clock, serving, submission_for, sheet_by) -> Iterator[list[Met]]:
    """One server on each kind of database, that hold the same."""

    @contextmanager
    def meeting(kind: str) -> Iterator[Met]:
        unlimited = {"writes_per_minute": 10**6, "requests_per_minute": 10**6, "initial_quota": 1000}
        with new_ledger(kind) as url, serving(url, new_clock(), num_tasks=300, **unlimited) as service:
            # One person may do everything; the other has work to be judged.
            member, miner = service.wallet("member", permit=True), service.wallet("miner")
            with service.client(miner) as mining, service.client(member) as judging:
                first, second, third = mining.claim(3)
                mining.submit(submission_for(first))
                mining.release(second)
                judging.post_sheet(sheet_by(member, first))
                lease, spare = judging.claim(2)
                judging.post_release(release_of(member, "0.1.0"))
                judging.post_entry(cut_of(member, "athena"))
                shard = next(iter(judging.shards()))
            service.operators.opt_out(Asked("key:1", "a", ""), AskOptOut(domain="example.org"), 100).result()
            yield Met(
                service.url,
                Signed(member, service.receiver),
                Keyed(service.operators.create_key(SCOPES, "")),
                known={
                    "task_id": first.task.id,
                    "lease_id": lease.id,
                    "shard_id": shard.id,
                    "crawl_id": "LOCAL-test",
                    "hotkey": hotkey_of(miner),
                },
                good=[
                    ("/v1/leases", {"count": 1}),
                    ("/v1/leases/{lease_id}/heartbeat", {"fencing": lease.fencing, "progress": {"records": 1}}),
                    ("/v1/submissions", submission_for(spare).model_dump(mode="json")),
                    ("/v1/sheets", sheet_by(member, third).model_dump(mode="json")),
                    ("/v1/releases", release_of(member, "0.2.0").model_dump(mode="json")),
                    ("/v1/journal", cut_of(member, "athena-next").model_dump(mode="json")),
                    ("/v1/leases/{lease_id}/release", {"fencing": lease.fencing}),
                    ("/v1/operator/crawls", {"crawl": "CC-MAIN-2026-43"}),
                    ("/v1/operator/tasks/{task_id}/close", NOT_SET),
                    ("/v1/operator/opt-outs", {"domain": "example.com"}),
                    ("/v1/operator/bans", {"coldkey": hotkey_of(miner), "reason": "copies"}),
                ],
            )

    with meeting("postgresql") as one, meeting("sqlite") as other:
        yield [one, other]


def release_of(wallet: Wallet, version: str) -> SignedRelease:
    release = Release(
        name="athena", version=version, files=(), parameters=1, training_tokens=1, eval_pack="e" * 64,
        bits_per_byte_before={}, bits_per_byte_after={}, lineage=(), trainer=hotkey_of(wallet),
    )  # fmt: skip
    return SignedRelease(release=release, signature=sign(wallet, release.canonical()))


def cut_of(wallet: Wallet, model: str) -> SignedEntry:
    entry = Entry(
        model=model, number=0, previous=GENESIS, at=datetime(2026, 1, 2, tzinfo=UTC), by=hotkey_of(wallet),
        action="cut", version="0.1.0", release="e" * 64,
    )  # fmt: skip
    return SignedEntry(entry=entry, signature=sign(wallet, entry.canonical()))


@pytest.fixture(scope="module")
def document(met: list[Met]) -> Any:
    return schemathesis.openapi.from_url(f"{met[0].url}/openapi.json", config=SchemathesisConfig())


schema = schemathesis.pytest.from_fixture("document")
TERMS = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@pytest.fixture(autouse=True)
def _node_id(request: pytest.FixtureRequest) -> None:
    request.node._nodeid = request.node.nodeid  # which schemathesis 4.32 takes from there; pytest 9.2 has it no more


@pytest.mark.timeout(900)
# The server's threads pace what they try again by `random`, perhaps just while a case is drawn.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@schema.parametrize()
@TERMS
def test_the_server_keeps_to_its_document(case, met):
    server = met[next(_turns) % len(met)]
    for name in case.path_parameters.keys() & server.known.keys():
        if len(str(case.query)) % 2:
            case.path_parameters[name] = server.known[name]
    headers = case.meta.components.get(ParameterLocation.HEADER)
    auth = None
    if headers is None or headers.mode.is_positive:  # what is to have wrong or no credentials goes out as it is
        auth = server.operator if case.path.startswith("/v1/operator/") else server.member
    # What no schema can say (a cursor is good for one list only), the server may refuse.
    case.call_and_validate(server.url, auth=auth, excluded_checks=[positive_data_acceptance])


def test_what_succeeds_is_answered_as_documented(document, met):
    reads = [path for path, methods in document.raw_schema["paths"].items() if "get" in methods]
    for server in met:
        for path, body in server.good:
            case = document[path]["POST"].Case(
                path_parameters=server.known,
                headers={IDEMPOTENCY_KEY: "of-one-without-credentials"},
                body=body,
                media_type="application/json",
            )
            auth = server.operator if path.startswith("/v1/operator/") else server.member
            assert case.call_and_validate(server.url, auth=auth).status_code in (200, 201, 202), path
        for path in reads:
            case = document[path]["GET"].Case(path_parameters=server.known)
            assert case.call_and_validate(server.url).status_code == 200, path
