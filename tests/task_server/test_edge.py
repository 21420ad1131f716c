"""What every request and every reply passes: size and time of bodies, problems, HEAD, limits, signatures."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address

import httpx
import pytest
from bittensor import http_auth
from hypothesis import example, given
from hypothesis import strategies as st

from athena.chain.auth import HEADER_REPLY_SIGNATURE, verify_reply
from athena.errors import RateLimited
from athena.wire import IDEMPOTENCY_KEY, Problem
from task_server.limiting import MINUTE, Allowance, Limits

RATE_HEADERS = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")


@pytest.fixture
def ledger_url(sqlite_url: str) -> str:
    """One kind of database: what passes the edge knows of none."""
    return sqlite_url


def problem_of(reply) -> tuple[int, str]:
    """Status and code of a reply that is a problem document, and says so."""
    assert reply.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(reply.content)
    assert problem.status == reply.status_code
    return problem.status, problem.code


def raw(service, request: bytes) -> bytes:
    """What the server answers to these bytes until it closes the connection."""
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall(request)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_bodies_are_capped_whatever_the_method(serve):
    service = serve(max_body_bytes=1024, body_seconds=0.1)
    for method, paths in (("GET", ("/v1/leases", "/healthz")), ("POST", ("/v1/leases", "/nowhere")), ("HEAD", ("/",))):
        for path in paths:
            head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n".encode()
            for framing, status in (
                (b"content-length: 1025\r\n\r\n", b" 413 "),
                (b"content-length: " + b"9" * 30 + b"\r\n\r\n", b" 4"),
                (b"transfer-encoding: chunked\r\n\r\n800\r\n" + bytes(0x800) + b"\r\n", b" 413 "),
                (b"content-length: 10\r\n\r\nhalf", b" 408 "),
                (b"transfer-encoding: chunked\r\n\r\n5\r\nhalf.\r\n", b" 408 "),
            ):
                answer = raw(service, head + framing)
                first, _, rest = answer.partition(b"\r\n")
                assert status in first, (method, path, framing[:40], first)
                assert b"connection: close" in rest.lower()
    over = service.http.request("GET", "/v1/tasks", content=b"x" * 1025)
    assert problem_of(over) == (413, "too-large")
    assert service.http.request("GET", "/v1/tasks", content=b"x" * 1024).status_code == 200


def test_every_refusal_is_a_problem_with_a_stable_code(serve):
    http = serve().http
    signed = {IDEMPOTENCY_KEY: "some-key-1", "content-type": "application/json"}
    for reply, expected in (
        (http.get("/"), (404, "not-found")),
        (http.get("/v1/nothing"), (404, "not-found")),
        (http.get("/v1/tasks/"), (404, "not-found")),
        (http.get(f"/v1/tasks/{'0' * 32}"), (404, "not-found")),
        (http.get("/v1/tasks/xyz"), (422, "bad-input")),
        (http.get("/v1/tasks?limit=0"), (422, "bad-input")),
        (http.get("/v1/tasks?limit=501"), (422, "bad-input")),
        (http.get("/v1/tasks?limit=1e2"), (422, "bad-input")),
        (http.get("/v1/tasks?open=perhaps"), (422, "bad-input")),
        (http.get("/v1/leases?state=lost"), (422, "bad-input")),
        (http.get("/v1/leases", params={"hotkey": "' OR 1=1 --"}), (422, "bad-input")),
        (http.get("/v1/leases?hotkey=%00"), (422, "bad-input")),
        (http.get("/v1/crawls/CC-MAIN-2026-43%0A"), (422, "bad-input")),
        (http.get("/v1/events?after=-1"), (422, "bad-input")),
        (http.get("/v1/tasks?cursor=%F0%9F%92%A9"), (422, "bad-input")),
        (http.post("/v1/leases"), (422, "bad-input")),
        (http.post("/v1/leases", headers=signed, content=b"{}"), (401, "unauthorized")),
        (http.post("/v1/leases", headers=signed, content=b"{"), (422, "bad-input")),
        (http.post("/v1/leases", headers=signed, content=b"\xff"), (400, "bad-request")),
        (http.post("/v1/leases", headers=signed, content=b"[" * 100_000), (400, "bad-request")),
        (http.post("/v1/operator/bans", headers=signed, content=b'{"coldkey":1}'), (401, "unauthorized")),
        (http.put("/v1/tasks"), (405, "method-not-allowed")),
        (http.post("/openapi.json"), (405, "method-not-allowed")),
        (http.request("PROPFIND", "/v1/tasks"), (405, "method-not-allowed")),
    ):
        assert problem_of(reply) == expected, (reply.request.method, reply.request.url)
        assert all(name in reply.headers for name in RATE_HEADERS)


def test_a_wrong_method_is_told_all_the_right_ones(serve):
    http = serve().http
    for path, allowed in (
        ("/v1/leases", "GET, HEAD, POST"),
        ("/v1/tasks", "GET, HEAD"),
        ("/v1/operator/bans", "POST"),
        (f"/v1/leases/{'0' * 32}/heartbeat", "POST"),
        ("/healthz", "GET, HEAD"),
    ):
        reply = http.patch(path)
        assert problem_of(reply) == (405, "method-not-allowed")
        assert reply.headers.get_list("allow") == [allowed]


def test_head_is_get_without_the_body(serve):
    http = serve().http
    for path in ("/v1/tasks", "/v1/stats", "/healthz", "/openapi.json", "/v1/nothing", f"/v1/tasks/{'0' * 32}"):
        get, head = http.get(path), http.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        for name in ("etag", "content-length", "content-type", "cache-control"):
            assert head.headers.get(name) == get.headers.get(name), (path, name)
    tag = http.get("/v1/tasks").headers["etag"]
    assert http.head("/v1/tasks", headers={"if-none-match": tag}).status_code == 304


def test_an_address_that_asks_too_often_is_told_when_to_come_back(serve):
    http = serve(requests_per_minute=5).http
    for left in (4, 3, 2, 1, 0):
        reply = http.get("/v1/tasks" if left % 2 else "/nothing")
        assert [reply.headers[name] for name in RATE_HEADERS[:2]] == ["5", str(left)]
        assert 0 < int(reply.headers["ratelimit-reset"]) <= 60
    refused = http.get("/v1/tasks")
    assert problem_of(refused) == (429, "rate-limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 12
    assert [refused.headers[name] for name in RATE_HEADERS[:2]] == ["5", "0"]


def test_a_hotkey_that_writes_too_often_is_refused(serve):
    service = serve(writes_per_minute=2)
    wallet = service.wallet("miner")
    with service.client(wallet) as client:
        client.claim()
        client.claim()
        with pytest.raises(RateLimited, match="2 requests a minute"):
            client.claim()
        assert client.stats().tasks == 8, "reads are counted by address"
    with service.client(service.wallet("other")) as client:
        client.claim()


def test_every_reply_to_a_signed_request_is_signed(serve):
    service = serve()
    wallet = service.wallet("miner")
    for method, path, body, status in (
        ("POST", "/v1/leases", b'{"count":1}', 200),
        ("POST", "/v1/leases", b'{"count":0}', 422),
        ("POST", "/v1/nothing", b"{}", 404),
        ("PUT", "/v1/leases", b"{}", 405),
        ("GET", "/v1/tasks", b"", 200),
    ):
        headers = http_auth.sign(wallet, method=method, path=path, body=body, receiver_ss58=service.receiver)
        headers |= {IDEMPOTENCY_KEY: f"key-{status}-{path}", "content-type": "application/json"}
        reply = service.http.request(method, path, content=body, headers=headers)
        assert reply.status_code == status
        verify_reply(
            reply.headers[HEADER_REPLY_SIGNATURE],
            reply.content,
            request_signature=headers[http_auth.HEADER_SIGNATURE],
            status=status,
            server=service.receiver,
        )
    long = service.http.get("/v1/tasks", headers={http_auth.HEADER_SIGNATURE: "x" * 201})
    assert HEADER_REPLY_SIGNATURE not in long.headers
    assert HEADER_REPLY_SIGNATURE not in service.http.get("/v1/tasks").headers


class HeldSeconds:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_allowance_refills_evenly():
    clock = HeldSeconds()
    allowance = Allowance(6, clock)
    assert [allowance.spend("a")[0] for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    left, reset, wait = allowance.spend("a")
    assert (left, reset, wait) == (0, pytest.approx(60), pytest.approx(10))
    assert allowance.spend("b")[0] == 5
    clock.now += 9.9
    assert allowance.spend("a")[2] == pytest.approx(0.1)
    clock.now += 0.1
    assert allowance.spend("a") == (0, pytest.approx(60), 0.0)
    clock.now += 60
    assert allowance.spend("a")[0] == 5


@given(st.integers(1, 20), st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 90)), max_size=120))
@example(1, [("a", 0.0), ("a", 59.96875)])
def test_no_party_is_ever_allowed_more_than_its_rate(per_minute, requests):
    clock = HeldSeconds()
    allowance = Allowance(per_minute, clock)
    accepted: dict[str, list[float]] = {"a": [], "b": []}
    for who, pause in requests:
        clock.now += pause
        left, reset, wait = allowance.spend(who)
        assert 0 <= left < per_minute
        assert 0 <= reset <= MINUTE + 1e-4
        if not wait:
            accepted[who].append(clock.now)
        else:
            assert wait <= MINUTE / per_minute + 1e-4
        for times in accepted.values():
            for first, start in enumerate(times):
                spent = sum(1 for time in times[first:] if time <= clock.now)
                assert spent <= per_minute + (clock.now - start) * per_minute / MINUTE + 2e-6


def test_parties_that_stopped_asking_are_forgotten():
    clock = HeldSeconds()
    allowance = Allowance(10, clock)
    for number in range(1000):
        allowance.spend(str(number))
    for _ in range(3):
        clock.now += MINUTE
        allowance.spend("someone")
    assert len(allowance._full_at) + len(allowance._older) <= 2


def test_an_ipv6_network_is_one_party():
    limits = Limits(2, 2)

    def count(address: str) -> None:
        limits.count_address({"client": (address, 1)})

    network = int(IPv6Address("2001:db8:1:2::"))
    for host in (1, 2**60):
        count(str(IPv6Address(network + host)))
    with pytest.raises(RateLimited):
        count(str(IPv6Address(network + 77)))
    count(str(IPv6Address(network + 2**64)))
    for address in ("10.0.0.1", "10.0.0.2", "::ffff:10.0.0.3", "::ffff:10.0.0.4", "fe80::1%eth0", "some:proxy"):
        count(address)
        count(address)
    with pytest.raises(RateLimited):
        count("::ffff:10.0.0.1")
    limits.count_address({"client": None})
