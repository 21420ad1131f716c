"""What hostile parties try, and the status and code that each gets."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest
from bittensor import http_auth
from sqlmodel import select

from athena.chain.wallets import hotkey_of
from athena.wire import IDEMPOTENCY_KEY
from task_server.books import NonceRow
from task_server.tables import SheetRow


def post(service, wallet, path, body, *, key="0123456789abcdef", **sent):
    """A signed POST; `sent` overrides what goes over the wire after signing."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    signing = {"method": "POST", "path": path, "body": content, "receiver_ss58": service.receiver}
    signing |= {name: sent.pop(name) for name in list(sent) if name in (*signing, "nonce_ns")}
    headers = http_auth.sign(wallet, **signing) | {IDEMPOTENCY_KEY: key, "content-type": "application/json"}
    headers |= sent.pop("headers", {})
    return httpx.post(service.url + sent.pop("to", path), content=sent.pop("content", content), headers=headers)


def outcome(reply):
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == reply.status_code
    return reply.status_code, problem["code"]


CLAIM = {"count": 1}
UNAUTHORIZED = (401, "unauthorized")


def test_a_replayed_request_is_refused(serve):
    service = serve()
    wallet = service.wallet("miner")
    content = json.dumps(CLAIM).encode()
    signed = http_auth.sign(wallet, method="POST", path="/v1/leases", body=content, receiver_ss58=service.receiver)
    headers = signed | {IDEMPOTENCY_KEY: "first-key", "content-type": "application/json"}
    assert httpx.post(f"{service.url}/v1/leases", content=content, headers=headers).status_code == 200
    for key in ("first-key", "other-key"):
        again = httpx.post(f"{service.url}/v1/leases", content=content, headers=headers | {IDEMPOTENCY_KEY: key})
        assert outcome(again) == UNAUTHORIZED


def test_what_was_not_signed_is_refused(serve):
    service = serve()
    wallet = service.wallet("miner")
    for change in (
        {"content": b'{"count":64}'},
        {"to": "/v1/leases?count=64"},
        {"to": "/v1/submissions"},
        {"method": "GET"},
        {"receiver_ss58": None},
        {"headers": {"X-Bittensor-Signature": "0x" + "00" * 64}},
        {"headers": {"X-Bittensor-Signature": ""}},
        {"headers": {"X-Bittensor-Nonce": "soon"}},
        {"headers": {"X-Bittensor-Version": "2"}},
    ):
        assert outcome(post(service, wallet, "/v1/leases", CLAIM, **dict(change))) == UNAUTHORIZED, change


def test_stale_and_future_requests_are_refused(serve):
    service = serve()
    wallet = service.wallet("miner")
    for seconds in (-60, 60):
        nonce = time.time_ns() + seconds * 10**9
        assert outcome(post(service, wallet, "/v1/leases", CLAIM, nonce_ns=nonce)) == UNAUTHORIZED


def test_a_request_for_another_server_is_refused(serve, wallets):
    service = serve()
    other = hotkey_of(wallets("other-server"))
    reply = post(service, service.wallet("miner"), "/v1/leases", CLAIM, receiver_ss58=other)
    assert outcome(reply) == UNAUTHORIZED


def test_a_stolen_name_is_refused(serve):
    service = serve()
    victim, thief = service.wallet("victim"), service.wallet("thief")
    named = {"X-Bittensor-Hotkey": hotkey_of(victim)}
    assert outcome(post(service, thief, "/v1/leases", CLAIM, headers=named)) == UNAUTHORIZED


def test_a_stranger_is_refused_and_leaves_no_trace(serve, wallets):
    service = serve()
    assert outcome(post(service, wallets("stranger"), "/v1/leases", CLAIM)) == (403, "forbidden")
    with service.database.read() as session:
        assert session.exec(select(NonceRow)).all() == []


def test_unsigned_writes_are_refused(serve):
    service = serve()
    reply = httpx.post(f"{service.url}/v1/leases", json=CLAIM, headers={IDEMPOTENCY_KEY: "0123456789"})
    assert outcome(reply) == UNAUTHORIZED


def test_an_idempotency_key_stands_for_one_request(serve):
    service = serve()
    wallet, other = service.wallet("miner"), service.wallet("other")
    first = post(service, wallet, "/v1/leases", CLAIM)
    assert post(service, wallet, "/v1/leases", CLAIM).json() == first.json()
    assert outcome(post(service, wallet, "/v1/leases", {"count": 2})) == (422, "bad-input")
    assert post(service, other, "/v1/leases", CLAIM).json() != first.json(), "keys are each caller's own"
    for key in ("short", "with space", "x" * 129):
        assert outcome(post(service, wallet, "/v1/leases", CLAIM, key=key)) == (422, "bad-input")


def test_others_leases_and_stale_tokens_are_refused(serve, submission_for):
    service = serve()
    owner, thief = service.wallet("owner"), service.wallet("thief")
    with service.client(owner) as client:
        (lease,) = client.claim()
    submission = submission_for(lease).model_dump(mode="json")
    for wallet, fencing, expected in (
        (thief, lease.fencing, (403, "forbidden")),
        (owner, lease.fencing + 1, (409, "conflict")),
        (owner, -(2**62), (409, "conflict")),
    ):
        for path, body in (
            (f"/v1/leases/{lease.id}/heartbeat", {"fencing": fencing}),
            (f"/v1/leases/{lease.id}/release", {"fencing": fencing}),
        ):
            assert outcome(post(service, wallet, path, body)) == expected
    assert outcome(post(service, thief, "/v1/submissions", submission)) == (403, "forbidden")
    assert outcome(post(service, owner, "/v1/submissions", submission | {"fencing": 7})) == (409, "conflict")
    unknown = f"/v1/leases/{'0' * 32}/release"
    assert outcome(post(service, owner, unknown, {"fencing": 1})) == (404, "not-found")
    with service.client(owner) as client:
        assert client.claim() == [lease]


def test_scores_come_from_validators_about_others(serve, sheet_by):
    service = serve()
    miner = service.wallet("miner", coldkey="one person")
    validator = service.wallet("validator", permit=True)
    other_hand = service.wallet("other-hand", permit=True, coldkey="one person")
    with service.client(miner) as client:
        (lease,) = client.claim()

    def code(wallet, sheet):
        return outcome(post(service, wallet, "/v1/sheets", sheet.model_dump(mode="json"), key=f"{time.time_ns()}"))

    good = sheet_by(validator, lease)
    assert code(miner, sheet_by(miner, lease)) == (403, "forbidden"), "no permit"
    assert code(other_hand, good) == (403, "forbidden"), "in another's name"
    assert code(other_hand, sheet_by(other_hand, lease)) == (403, "forbidden"), "the miner's own coldkey"
    assert code(validator, sheet_by(validator, lease, hotkey=hotkey_of(validator))) == (403, "forbidden"), "own work"
    raised = good.model_copy(update={"sheet": good.sheet.model_copy(update={"units": 99.0})})
    assert code(validator, raised) == UNAUTHORIZED, "the signature covers the score"
    assert code(validator, sheet_by(validator, lease, task_id="0" * 32)) == (404, "not-found")
    with service.database.read() as session:
        assert session.exec(select(SheetRow)).all() == []


def test_large_and_slow_bodies_are_cut_off(serve):
    service = serve(max_body_bytes=4096, body_seconds=0.5)
    wallet = service.wallet("miner")
    assert outcome(post(service, wallet, "/v1/leases", b"[" * 4097)) == (413, "too-large")

    def chunks():
        while True:
            yield b" " * 1024

    with pytest.raises(httpx.HTTPError):  # the server answers and hangs up while the client still writes
        reply = httpx.post(f"{service.url}/v1/leases", content=chunks())
        assert outcome(reply) == (413, "too-large")
        raise httpx.WriteError("answered")
    head = b"POST /v1/leases HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    address = httpx.URL(service.url)
    for length, status in ((10**9, b" 413 "), (10, b" 408 ")):
        with socket.create_connection((address.host, address.port), timeout=5) as connection:
            connection.sendall(head % length)
            assert status in connection.recv(4096).split(b"\r\n")[0]


def test_malformed_bodies_get_a_problem_and_never_a_500(serve, submission_for):
    service = serve()
    wallet = service.wallet("miner")
    with service.client(wallet) as client:
        (lease,) = client.claim()
    submission = submission_for(lease).model_dump(mode="json")
    huge = json.dumps(submission).replace("1234", "9" * 400).encode()
    for path, body in (
        ("/v1/leases", b"[" * 200_000),
        ("/v1/leases", b"\xff\xfe"),
        ("/v1/leases", b'{"count": NaN}'),
        ("/v1/leases", b'{"count": ' + b"9" * 5000 + b"}"),
        ("/v1/leases", {"count": 65}),
        ("/v1/leases", {"count": 1, "extra": 1}),
        (f"/v1/leases/{lease.id}/heartbeat", {"fencing": 1, "progress": {"x": -1}}),
        (f"/v1/leases/{lease.id}/heartbeat", {"fencing": 1, "progress": {f"c{i}": 1 for i in range(33)}}),
        (f"/v1/leases/{lease.id}'--/heartbeat", {"fencing": 1}),
        ("/v1/submissions", huge),
        ("/v1/submissions", submission | {"lease_id": "' OR 1=1 --"}),
        ("/v1/submissions", submission | {"fencing": 2**70}),
    ):
        status, code = outcome(post(service, wallet, path, body, key=f"{time.time_ns()}"))
        assert (status, code) in ((400, "bad-request"), (422, "bad-input")), (path, body[:40] if body else body)
    assert outcome(httpx.put(f"{service.url}/v1/leases")) == (405, "method-not-allowed")
    assert outcome(httpx.get(f"{service.url}/v2/leases")) == (404, "not-found")
