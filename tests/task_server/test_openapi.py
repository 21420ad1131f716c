"""The server keeps to its OpenAPI document, whatever it is sent: no 500, no status, schema, header or content type
that the document does not tell of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from bittensor import http_auth
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from athena.chain.wallets import Wallet, hotkey_of, sign
from athena.protocol import Release, SignedRelease
from athena.wire import IDEMPOTENCY_KEY, AskOptOut, Ban
from task_server.operators import SCOPES
from task_server.transaction import Asked

_numbers = itertools.count(1)


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


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def met(request, tmp_path_factory, serving, new_clock, new_postgres, submission_for, sheet_by) -> Iterator[Met]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('openapi') / 'ledger.sqlite'}"
        else:
            url = stack.enter_context(new_postgres())
        unlimited = {"writes_per_minute": 10**6, "requests_per_minute": 10**6, "initial_quota": 1000}
        service = stack.enter_context(serving(url, new_clock(), num_tasks=300, **unlimited))
        # Of one person that may do everything; the miner is another one.
        member, miner = service.wallet("member", permit=True), service.wallet("miner")
        with service.client(miner) as mining, service.client(member) as judging:
            first, second, _ = mining.claim(3)
            mining.submit(submission_for(first))
            mining.release(second)
            judging.post_sheet(sheet_by(member, first))
            (lease,) = judging.claim()
            judging.post_release(release_of(member))
            shard = next(iter(judging.shards()))
        service.operators.opt_out(Asked("key:1", "a", ""), AskOptOut(domain="example.org"), 100).result()
        service.operators.ban(Asked("key:1", "b", ""), Ban(coldkey=hotkey_of(miner), reason="x")).result()
        known = {"task_id": first.task.id, "lease_id": lease.id, "shard_id": shard.id, "crawl_id": "LOCAL-test"}
        yield Met(
            service.url,
            Signed(member, service.receiver),
            Keyed(service.operators.create_key(SCOPES, "")),
            known | {"hotkey": hotkey_of(miner)},
        )


def release_of(wallet: Wallet) -> SignedRelease:
    release = Release(
        name="athena", version="0.1.0", files=(), parameters=1, training_tokens=1, eval_pack="e" * 64,
        bits_per_byte_before={}, bits_per_byte_after={}, lineage=(), trainer=hotkey_of(wallet),
    )  # fmt: skip
    return SignedRelease(release=release, signature=sign(wallet, release.canonical()))


@pytest.fixture(scope="module")
def document(met: Met) -> Any:
    return schemathesis.openapi.from_url(f"{met.url}/openapi.json", config=SchemathesisConfig())


schema = schemathesis.pytest.from_fixture("document")
TERMS = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@pytest.fixture(autouse=True)
def _node_id(request: pytest.FixtureRequest) -> None:
    request.node._nodeid = request.node.nodeid


@schema.parametrize()
@TERMS
def test_the_server_keeps_to_its_document(case, met):
    auth = None
    if case.path.startswith("/v1/operator/"):
        auth = met.operator
    elif case.method == "POST":
        auth = met.member
    case.call_and_validate(auth=auth, excluded_checks=[positive_data_acceptance])
