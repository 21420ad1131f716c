"""The client against servers that are slow, busy, broken or hostile."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena import client as client_module
from athena import client_http
from athena.chain.auth import HEADER_REPLY_SIGNATURE, HEADER_REQUEST_SIGNATURE, ReplySigner
from athena.chain.wallets import open_wallet
from athena.client import LedgerClient
from athena.client_http import Answer
from athena.errors import (
    AthenaError,
    BadInput,
    Conflict,
    Forbidden,
    Misconfigured,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from athena.protocol import Lease, Shard, Task
from athena.wire import (
    IDEMPOTENCY_KEY,
    CrawlView,
    DatasetView,
    EventHead,
    LedgerEvent,
    MinerView,
    OptOut,
    ShardView,
    Standing,
    TaskView,
)

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TASK = Task(shard=Shard(crawl="LOCAL-t", warc_paths=("a.warc.gz",)), rule_version="1", opened_block=1)
VIEW = TaskView(id=TASK.id, task=TASK, position=0, copies=1, open_slots=1, audited=None, closed=False)
LEASE = Lease(
    id="a" * 32, task=TASK, hotkey=HOTKEY, state="active", fencing=1, issued_at=NOW, heartbeat_at=NOW, expires_at=NOW,
    deadline_at=NOW, issued_block=1, deadline_block=2,
)  # fmt: skip
MINER = MinerView(
    hotkey=HOTKEY, coldkey=HOTKEY, leases={"active": 1}, submissions=0, passed=0, failed=0, records=0, rows=0, tokens=0,
    quota=16, streak=0, ban=None,
)  # fmt: skip


def no_leases() -> httpx.Response:
    return httpx.Response(200, json={"leases": []})


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"title": "t", "status": status, "detail": "what happened", "code": code, "remedy": "what to do"}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"} | headers)


@pytest.fixture(scope="module")
def wallets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wallets")
    return lambda name: open_wallet(name, path=folder, create=True)


@pytest.fixture(scope="module")
def wallet(wallets):
    return wallets("miner")


@pytest.fixture(scope="module")
def signer(wallets):
    """The server's hotkey."""
    return ReplySigner(wallets("server"))


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Time as the client sees it: sleeping is instant, and takes its time."""
    taken: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", taken.append)
    monkeypatch.setattr(client_module.time, "monotonic", lambda: sum(taken))
    return taken


def signed(signer: ReplySigner, request: httpx.Request, reply: httpx.Response) -> httpx.Response:
    """As the server does it: the reply to a signed request bears its signature."""
    signature = request.headers.get(HEADER_REQUEST_SIGNATURE)
    if signature is not None:
        reply.headers[HEADER_REPLY_SIGNATURE] = signer.sign(signature, reply.status_code, reply.read())
    return reply


@pytest.fixture
def open_client(wallet, signer):
    """A client of a server that answers so, and signs as the real one does unless told not to."""
    clients = []

    def build(answer: Callable[[httpx.Request], httpx.Response], *, signs: bool = True, **options) -> LedgerClient:
        def served(request: httpx.Request) -> httpx.Response:
            reply = answer(request)
            return signed(signer, request, reply) if signs else reply

        options = {"wallet": wallet, "receiver": signer.hotkey} | options
        client = LedgerClient("http://server:8808/", transport=httpx.MockTransport(served), **options)
        clients.append(client)
        return client

    yield build
    for client in clients:
        client.close()


def in_turn(*answers: httpx.Response | Exception):
    """Answers one request after the other, and keeps the requests."""
    left, requests = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append((request.content, dict(request.headers)))
        now = left.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    return answer, requests


def test_a_write_is_retried_under_one_key_and_signed_anew(open_client, pauses):
    answer, requests = in_turn(
        httpx.ConnectError("refused"), httpx.ReadTimeout("silence"), problem(503, "unavailable"), no_leases()
    )
    assert open_client(answer).claim() == []
    headers = [sent for _, sent in requests]
    assert len({body for body, _ in requests}) == 1
    assert len({sent[IDEMPOTENCY_KEY.lower()] for sent in headers}) == 1
    assert len({sent["x-bittensor-nonce"] for sent in headers}) == 4
    assert len(pauses) == 3
    assert pauses[2] > pauses[0] / 3


def test_two_writes_have_two_keys(open_client):
    answer, requests = in_turn(no_leases(), no_leases())
    client = open_client(answer)
    client.claim()
    client.claim()
    assert requests[0][1][IDEMPOTENCY_KEY.lower()] != requests[1][1][IDEMPOTENCY_KEY.lower()]


def test_retry_after_is_honoured(open_client, pauses):
    answer, _ = in_turn(
        problem(429, "rate-limited", **{"retry-after": "7"}),
        problem(503, "unavailable", **{"retry-after": "2"}),
        no_leases(),
    )
    open_client(answer).claim()
    assert pauses == [7.0, 2.0]


def test_patience_ends(open_client, pauses):
    def busy(_request: httpx.Request) -> httpx.Response:
        return problem(429, "rate-limited", **{"retry-after": "9"})

    with pytest.raises(RateLimited) as caught:
        open_client(busy, retry_seconds=20.0).claim()
    assert caught.value.retry_after_seconds == 9
    assert pauses == [9.0, 9.0]

    def dead(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unavailable, match="no answer from server"):
        open_client(dead, retry_seconds=20.0).claim()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "unauthorized", Unauthorized),
        (403, "forbidden", Forbidden),
        (404, "not-found", NotFound),
        (409, "conflict", Conflict),
        (413, "too-large", TooLarge),
        (422, "bad-input", BadInput),
        (405, "method-not-allowed", BadInput),
        (500, "internal", Unavailable),
        (500, "conflict", Unavailable),
        (404, "conflict", BadInput),
    ],
)
def test_problems_come_back_as_the_errors_they_were(open_client, pauses, status, code, expected):
    answer, requests = in_turn(problem(status, code))
    with pytest.raises(AthenaError) as caught:
        open_client(answer).claim()
    assert type(caught.value) is expected
    assert (caught.value.message, caught.value.remedy) == ("what happened", "what to do")
    assert len(requests) == 1, "what cannot change is not asked again"


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, content=b"<html>hello</html>"),
        httpx.Response(200, json={"leases": [{"id": "x"}]}),
        httpx.Response(302, headers={"location": "http://elsewhere/"}),
        httpx.Response(404, content=b"\xff"),
    ],
)
def test_nonsense_is_bad_input(open_client, reply):
    with pytest.raises(BadInput):
        open_client(lambda _request: reply).claim()


def test_an_endless_answer_is_cut_off(open_client, monkeypatch):
    monkeypatch.setattr(client_http, "MAX_REPLY_BYTES", 1000)

    def endless():
        while True:
            yield b" " * 100

    with pytest.raises(TooLarge):
        open_client(lambda _request: httpx.Response(200, content=endless())).stats()


def test_a_swapped_noun_is_refused(open_client):
    client = open_client(lambda _request: httpx.Response(200, content=VIEW.model_dump_json()))
    assert client.task(TASK.id) == TASK
    with pytest.raises(BadInput, match="gave task"):
        client.task("0" * 32)
    client = open_client(lambda _request: httpx.Response(200, content=LEASE.model_dump_json()))
    assert client.lease(LEASE.id) == LEASE
    with pytest.raises(BadInput, match="gave lease"):
        client.lease("0" * 32)
    client = open_client(lambda _request: httpx.Response(200, content=MINER.model_dump_json()))
    assert client.miner(HOTKEY) == MINER
    with pytest.raises(BadInput, match="another miner"):
        client.miner(HOTKEY[:-1])


@pytest.mark.parametrize("name", ["", "..", "../stats", "a/b", "x?y=1", "\x1b[2J", "%2e%2e"])
def test_an_id_cannot_lead_to_another_path(open_client, name):
    client = open_client(lambda _request: pytest.fail("was sent"))
    for verb in (client.task, client.lease, client.miner):
        with pytest.raises(BadInput) as caught:
            verb(name)
        assert str(caught.value).isprintable()


def test_pages_are_followed_to_the_end(open_client):
    def answer(request: httpx.Request) -> httpx.Response:
        last = request.url.params.get("cursor") == "second"
        assert request.url.params["limit"]
        page = {"items": [json.loads(VIEW.model_dump_json())], "next": None if last else "second"}
        return httpx.Response(200, json=page)

    assert list(open_client(answer).tasks()) == [VIEW, VIEW]


@pytest.mark.parametrize("items", [[], [json.loads(VIEW.model_dump_json())]])
def test_a_list_without_end_is_left(open_client, items):
    client = open_client(lambda _request: httpx.Response(200, json={"items": items, "next": "again"}))
    with pytest.raises(BadInput, match="without getting on"):
        list(client.tasks())


SHARD = ShardView(id=TASK.shard.id, sequence=1, shard=TASK.shard)
CRAWL = CrawlView(id="LOCAL-t", url="file:///c", name="t", state="open", failure=None, imported_at=NOW)
STANDING = Standing(rank=1, hotkey=HOTKEY, units=1.5, effect=None, submissions=2, tokens=3)
DATASET = DatasetView(
    dataset={"location": "hf:a/b", "revision": "a" * 40, "root": "b" * 64}, task_id=TASK.id, hotkey=HOTKEY,
    submitted_at=NOW, verdict="pass", rows=1, tokens=2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "filters", "target", "item"),
    [
        ("tasks", {"crawl": "LOCAL-t", "only_open": True}, "/v1/tasks?crawl=LOCAL-t&open=true&limit=500", VIEW),
        ("shards", {"crawl": "LOCAL-t"}, "/v1/shards?crawl=LOCAL-t&limit=500", SHARD),
        ("crawls", {}, "/v1/crawls?limit=500", CRAWL),
        ("miners", {}, "/v1/miners?limit=500", MINER),
        ("leaderboard", {}, "/v1/leaderboard?limit=500", STANDING),
        ("datasets", {"hotkey": HOTKEY}, f"/v1/datasets?hotkey={HOTKEY}&limit=500", DATASET),
        ("leases", {"hotkey": HOTKEY, "limit": 1}, f"/v1/leases?hotkey={HOTKEY}&limit=500", LEASE),
        ("leases", {"state": "active", "task_id": "a"}, "/v1/leases?task_id=a&state=active&limit=500", LEASE),
    ],
)
def test_lists_are_asked_for_with_their_filters(open_client, verb, filters, target, item):
    targets = []

    def answer(request: httpx.Request) -> httpx.Response:
        targets.append(request.url.raw_path.decode())
        return httpx.Response(200, json={"items": [json.loads(item.model_dump_json())], "next": None})

    assert list(getattr(open_client(answer, wallet=None), verb)(**filters)) == [item]
    assert targets == [target]


def test_events_are_read_by_their_sequence(open_client):
    events = [LedgerEvent(sequence=i, at=i, kind="closed", body={}, hash="a" * 64) for i in range(1, 8)]

    def answer(request: httpx.Request) -> httpx.Response:
        after = int(request.url.params["after"])
        some = [event.model_dump() for event in events[after : after + 3]]
        return httpx.Response(200, json={"items": some, "next": "more" if after + 3 < len(events) else None})

    client = open_client(answer)
    assert list(client.events()) == events
    assert list(client.events(after=5)) == events[5:]
    assert list(client.events(after=7)) == []
    stuck = open_client(lambda _request: httpx.Response(200, json={"items": [events[0].model_dump()], "next": "x"}))
    with pytest.raises(BadInput, match="without getting on"):
        list(stuck.events(after=1))


def test_single_nouns(open_client):
    head = EventHead(sequence=3, hash="a" * 64)
    assert open_client(lambda _request: httpx.Response(200, json=head.model_dump())).event_head() == head
    domain = OptOut(domain="example.org", reason="asked", since_block=5)
    listed = {"domains": [domain.model_dump()]}
    assert open_client(lambda _request: httpx.Response(200, json=listed)).opt_outs() == (domain,)


def test_the_receiver_is_asked_for_once(open_client, signer):
    info = {
        "hotkey": signer.hotkey, "netuid": 1, "rule_version": "1", "crawl": None, "crawl_url": None, "replication": 1,
        "audit_share": 0.1, "lease_seconds": 60, "deadline_seconds": 600,
    }  # fmt: skip
    answer, requests = in_turn(httpx.Response(200, json=info), no_leases(), no_leases())
    client = open_client(answer, receiver=None)
    client.claim()
    client.claim()
    assert [headers.get("x-bittensor-receiver") for _, headers in requests] == [None, signer.hotkey, signer.hotkey]


def test_writing_needs_a_wallet(open_client):
    with pytest.raises(Misconfigured):
        open_client(lambda _request: no_leases(), wallet=None).claim()


@pytest.mark.parametrize("url", ["", "server", "//server", "ftp://server", "http://", "http://[::1", "http://a..b"])
def test_what_is_no_address_is_refused_at_once(url):
    with pytest.raises(Misconfigured, match="address"):
        LedgerClient(url, None)


def test_a_reply_that_the_server_signed_is_believed(open_client):
    assert open_client(lambda _request: no_leases()).claim() == []


def _unsigned(_signer, _request, reply):
    return reply


def _by_another(wallets):
    return lambda _signer, request, reply: signed(ReplySigner(wallets("mallory")), request, reply)


def _other_status(signer, request, reply):
    return httpx.Response(201, headers=signed(signer, request, reply).headers, content=reply.content)


def _other_body(signer, request, reply):
    signature = signed(signer, request, reply).headers[HEADER_REPLY_SIGNATURE]
    return httpx.Response(
        200, json={"leases": [json.loads(LEASE.model_dump_json())]}, headers={HEADER_REPLY_SIGNATURE: signature}
    )


def _of_another_request(signer, _request, reply):
    reply.headers[HEADER_REPLY_SIGNATURE] = signer.sign("0x" + "ab" * 64, reply.status_code, reply.content)
    return reply


def _no_signature(_signer, _request, reply):
    reply.headers[HEADER_REPLY_SIGNATURE] = "\x1b[31m zz"
    return reply


@pytest.mark.parametrize(
    "forge", [_unsigned, _other_status, _other_body, _of_another_request, _no_signature, "other key"]
)
def test_a_forged_reply_is_not_believed(open_client, signer, wallets, pauses, forge):
    forge = _by_another(wallets) if forge == "other key" else forge
    client = open_client(lambda request: forge(signer, request, no_leases()), signs=False)
    with pytest.raises(Unauthorized):
        client.claim()
    assert pauses == []


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 409, 422])
def test_an_unsigned_refusal_ends_nothing_in_the_servers_name(open_client, status):
    with pytest.raises(Unauthorized, match="not signed"):
        open_client(lambda _request: problem(status, "conflict"), signs=False).claim()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (408, Unavailable),
        (413, TooLarge),
        (429, RateLimited),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
    ],
)
def test_what_a_proxy_may_answer_need_not_be_signed(open_client, pauses, status, expected):
    code = {413: "too-large", 429: "rate-limited"}.get(status, "conflict")
    with pytest.raises(expected):
        open_client(lambda _request: problem(status, code), signs=False, retry_seconds=1.0).claim()
    with pytest.raises(Unauthorized):  # signed, it must be right
        forged = problem(status, code, **{HEADER_REPLY_SIGNATURE: "00" * 64})
        open_client(lambda _request: forged, signs=False, retry_seconds=1.0).claim()


def test_what_everyone_may_read_is_not_signed(open_client):
    page = {"items": [json.loads(VIEW.model_dump_json())], "next": None}
    assert list(open_client(lambda _request: httpx.Response(200, json=page), signs=False).tasks()) == [VIEW]


def test_a_spent_quota_is_told_at_once(open_client, pauses):
    answer, requests = in_turn(problem(429, "quota-spent", **{"retry-after": "5400"}))
    with pytest.raises(RateLimited, match="what happened") as caught:
        open_client(answer, retry_seconds=60.0).claim()
    assert caught.value.retry_after_seconds == 5400
    assert len(requests) == 1 and pauses == []


@pytest.mark.parametrize("body", [b"<html>slow down</html>", b""])
def test_any_429_is_a_rate_limit(open_client, pauses, body):
    with pytest.raises(RateLimited):
        open_client(lambda _request: httpx.Response(429, content=body), retry_seconds=1.0).claim()


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("7", None, 7.0),
        ("0", None, 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), format_datetime(NOW, usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), format_datetime(NOW, usegmt=True), 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None, 0.0),
        ("Sun Nov  6 08:49:37 1994", None, 0.0),
        ("9" * 400, None, 999999999.0),
        ("-5", None, None),
        ("1.5", None, None),
        ("\u0667", None, None),
        ("soon", None, None),
        ("", None, None),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None, None),
    ],
)
def test_every_form_of_retry_after(value, date, seconds):
    headers = httpx.Headers({"retry-after": value.encode()} | ({"date": date} if date else {}))
    assert Answer(429, headers, b"").retry_after_seconds == seconds


def test_a_date_is_measured_from_now_where_the_server_gives_no_time():
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < Answer(429, httpx.Headers({"retry-after": then}), b"").retry_after_seconds <= 60


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_header_breaks_the_client(value, date):
    headers = httpx.Headers([(b"retry-after", value.encode()), (b"date", date.encode())])
    seconds = Answer(429, headers, b"").retry_after_seconds
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        (b"no gzip", "gzip", Unavailable),
        (b"{}", "br", BadInput),
        (gzip.compress(b" " * 10_000, mtime=0), "gzip", TooLarge),
    ],
    ids=["broken", "of another kind", "too large"],
)
def test_what_was_packed(open_client, pauses, monkeypatch, content, encoding, expected):
    monkeypatch.setattr(client_http, "MAX_REPLY_BYTES", 1000)

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(content), headers={"content-encoding": encoding})

    with pytest.raises(expected):
        open_client(answer, retry_seconds=1.0).stats()


def test_a_reply_that_trickles_is_given_up(open_client, pauses):
    def trickle():
        for _ in range(1000):
            pauses.append(1.0)
            yield b" "

    client = open_client(lambda _request: httpx.Response(200, content=trickle()), retry_seconds=10.0)
    with pytest.raises(Unavailable, match="took over 120 s"):
        client.stats()


def test_what_a_server_says_cannot_act_on_a_terminal(open_client):
    hostile = {
        "title": "t",
        "status": 404,
        "detail": "\x1b]0;owned\x07\x9b2J\u202ex\ny",
        "code": "not-found",
        "remedy": "\x1b[2J",
    }
    with pytest.raises(NotFound) as caught:
        open_client(lambda _request: httpx.Response(404, json=hostile), wallet=None).stats()
    assert str(caught.value).isprintable()
    assert "owned" in str(caught.value)


@pytest.mark.parametrize("hotkey", ["", "x\r\nx-evil: 1", "5Grw", "\u00e9" * 48])
def test_a_server_must_have_a_hotkey(open_client, hotkey):
    info = {
        "hotkey": hotkey, "netuid": 1, "rule_version": "1", "crawl": None, "crawl_url": None, "replication": 1,
        "audit_share": 0.1, "lease_seconds": 60, "deadline_seconds": 600,
    }  # fmt: skip
    with pytest.raises(BadInput):
        open_client(lambda _request: httpx.Response(200, json=info), receiver=None).claim()
