"""The client against servers that are slow, busy, broken or hostile."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from athena import client as client_module
from athena.chain.wallets import open_wallet
from athena.client import LedgerClient
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
from athena.protocol import Shard, Task
from athena.wire import IDEMPOTENCY_KEY, TaskView

RECEIVER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
TASK = Task(shard=Shard(crawl="LOCAL-t", warc_paths=("a.warc.gz",)), rule_version="1", opened_block=1)
VIEW = TaskView(id=TASK.id, task=TASK, position=0, replication=1, open_slots=1, audited=None)
NO_LEASES = httpx.Response(200, json={"leases": []})


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"title": "t", "status": status, "detail": "what happened", "code": code, "remedy": "what to do"}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"} | headers)


@pytest.fixture(scope="module")
def wallet(tmp_path_factory):
    return open_wallet("miner", path=tmp_path_factory.mktemp("wallets"), create=True)


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Time as the client sees it: sleeping is instant, and takes its time."""
    taken: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", taken.append)
    monkeypatch.setattr(client_module.time, "monotonic", lambda: sum(taken))
    return taken


@pytest.fixture
def open_client(wallet):
    clients = []

    def build(answer: Callable[[httpx.Request], httpx.Response], **options) -> LedgerClient:
        options = {"wallet": wallet, "receiver": RECEIVER} | options
        client = LedgerClient("http://server:8808/", transport=httpx.MockTransport(answer), **options)
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
        httpx.ConnectError("refused"), httpx.ReadTimeout("silence"), problem(503, "unavailable"), NO_LEASES
    )
    assert open_client(answer).claim() == []
    headers = [sent for _, sent in requests]
    assert len({body for body, _ in requests}) == 1
    assert len({sent[IDEMPOTENCY_KEY.lower()] for sent in headers}) == 1
    assert len({sent["x-bittensor-nonce"] for sent in headers}) == 4
    assert len(pauses) == 3
    assert pauses[2] > pauses[0] / 3


def test_two_writes_have_two_keys(open_client):
    answer, requests = in_turn(NO_LEASES, NO_LEASES)
    client = open_client(answer)
    client.claim()
    client.claim()
    assert requests[0][1][IDEMPOTENCY_KEY.lower()] != requests[1][1][IDEMPOTENCY_KEY.lower()]


def test_retry_after_is_honoured(open_client, pauses):
    answer, _ = in_turn(
        problem(429, "rate-limited", **{"retry-after": "7"}),
        problem(503, "unavailable", **{"retry-after": "2"}),
        NO_LEASES,
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
    monkeypatch.setattr(client_module, "MAX_REPLY_BYTES", 1000)

    def endless():
        while True:
            yield b" " * 100

    with pytest.raises(TooLarge):
        open_client(lambda _request: httpx.Response(200, content=endless())).stats()


def test_a_swapped_task_is_refused(open_client):
    client = open_client(lambda _request: httpx.Response(200, content=VIEW.model_dump_json()))
    assert client.task(TASK.id) == TASK
    with pytest.raises(BadInput, match="gave task"):
        client.task("0" * 32)


def test_pages_are_followed_to_the_end(open_client):
    def answer(request: httpx.Request) -> httpx.Response:
        last = request.url.params.get("cursor") == "second"
        assert request.url.params["limit"]
        page = {"items": [json.loads(VIEW.model_dump_json())], "next": None if last else "second"}
        return httpx.Response(200, json=page)

    assert list(open_client(answer).tasks()) == [VIEW, VIEW]


def test_the_receiver_is_asked_for_once(open_client):
    info = {
        "hotkey": RECEIVER, "netuid": 1, "rule_version": "1", "crawl": None, "crawl_url": None, "replication": 1,
        "audit_share": 0.1, "lease_seconds": 60, "deadline_seconds": 600,
    }  # fmt: skip
    answer, requests = in_turn(httpx.Response(200, json=info), NO_LEASES, NO_LEASES)
    client = open_client(answer, receiver=None)
    client.claim()
    client.claim()
    assert [headers.get("x-bittensor-receiver") for _, headers in requests] == [None, RECEIVER, RECEIVER]


def test_writing_needs_a_wallet(open_client):
    with pytest.raises(Misconfigured):
        open_client(lambda _request: NO_LEASES, wallet=None).claim()
