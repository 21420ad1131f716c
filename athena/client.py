"""The typed client of the task server: leases for miners, sheets for validators, records for everyone."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from athena.chain.auth import RequestSigner
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
from athena.protocol import Lease, LeaseState, Noun, SignedRelease, SignedSheet, Submission, Task
from athena.wire import (
    IDEMPOTENCY_KEY,
    MAX_LEASES_PER_CLAIM,
    ClaimRequest,
    Heartbeat,
    HeartbeatRequest,
    Leases,
    Page,
    Problem,
    Receipt,
    ReleaseRequest,
    ServerInfo,
    Stats,
    SubmissionView,
    TaskView,
)

if TYPE_CHECKING:
    from athena.chain.wallets import Wallet

MAX_REPLY_BYTES = 64 * 2**20
PAGE = 200
TIMEOUT = httpx.Timeout(20.0, connect=5.0)
FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 30.0
RETRIED_STATUS = (408, 429, 502, 503, 504)

_BY_CODE: Mapping[str, type[AthenaError]] = {
    error.code: error for error in (BadInput, TooLarge, NotFound, Conflict, Unauthorized, Forbidden, Unavailable)
}
Reply = TypeVar("Reply", bound=BaseModel)
Item = TypeVar("Item", bound=BaseModel)


class LedgerClient:
    """One server's client. Safe to use from several threads; close it, or use it as a context manager.

    Every verb raises the server's own error (athena.errors, by its code), or Unavailable once `retry_seconds` of
    retries did not help. A verb that writes needs a `wallet`, and keeps one idempotency key over all its retries: it
    happens once, however often it is sent. `receiver` is the server's hotkey; without one, the server at `url` is
    asked for it once, which trusts that address (use https).
    """

    def __init__(
        self,
        url: str,
        wallet: Wallet | None,
        receiver: str | None = None,
        *,
        retry_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/v1/",
            timeout=TIMEOUT,
            transport=transport,
            trust_env=not _is_loopback(url),  # a proxy cannot reach this machine's own server
        )
        self._wallet = wallet
        self._receiver = receiver
        self._retry_seconds = retry_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def server(self) -> ServerInfo:
        return self._get(ServerInfo, "server")

    def claim(self, count: int = 1) -> list[Lease]:
        """The active leases of the wallet's hotkey, topped up to `count`; empty when no task is due to it."""
        return list(self._post(Leases, "leases", ClaimRequest(count=min(count, MAX_LEASES_PER_CLAIM))).leases)

    def heartbeat(self, lease: Lease, progress: Mapping[str, int]) -> Heartbeat:
        """Keeps the lease alive. Stop working when the reply says `cancel`."""
        body = HeartbeatRequest(fencing=lease.fencing, progress=dict(progress))
        return self._post(Heartbeat, f"leases/{lease.id}/heartbeat", body)

    def release(self, lease: Lease) -> None:
        """Gives the lease back."""
        self._post(Lease, f"leases/{lease.id}/release", ReleaseRequest(fencing=lease.fencing))

    def submit(self, submission: Submission) -> None:
        """Reports a published dataset. Raises Conflict once the task's slots are taken by others."""
        self._post(SubmissionView, "submissions", submission)

    def post_sheet(self, sheet: SignedSheet) -> None:
        self._post(Receipt, "sheets", sheet)

    def post_release(self, release: SignedRelease) -> None:
        self._post(Receipt, "releases", release)

    def task(self, task_id: str) -> Task:
        """Raises BadInput when the server's answer is not the task of that id."""
        task = self._get(TaskView, f"tasks/{task_id}").task
        if task.id != task_id:
            raise BadInput(f"the server gave task {task.id} as {task_id}")
        return task

    def tasks(self) -> Iterator[TaskView]:
        return self._list(TaskView, "tasks")

    def leases(
        self, *, hotkey: str | None = None, task_id: str | None = None, state: LeaseState | None = None
    ) -> list[Lease]:
        return list(self._list(Lease, "leases", hotkey=hotkey, task_id=task_id, state=state))

    def submissions(self, *, task_id: str | None = None, hotkey: str | None = None) -> list[SubmissionView]:
        """Where the data lies is null until the deadline of the task's last lease has passed."""
        return list(self._list(SubmissionView, "submissions", task_id=task_id, hotkey=hotkey))

    def sheets(self, *, task_id: str | None = None, hotkey: str | None = None) -> list[SignedSheet]:
        return list(self._list(SignedSheet, "sheets", task_id=task_id, hotkey=hotkey))

    def releases(self) -> list[SignedRelease]:
        return list(self._list(SignedRelease, "releases"))

    def stats(self) -> Stats:
        return self._get(Stats, "stats")

    def _list(self, item: type[Item], path: str, **filters: str | None) -> Iterator[Item]:
        params = {name: value for name, value in filters.items() if value is not None} | {"limit": str(PAGE)}
        while True:
            page = self._get(Page[item], path, params)  # type: ignore[valid-type]
            yield from page.items
            if page.next is None:
                return
            params["cursor"] = page.next

    def _get(self, reply: type[Reply], path: str, params: Mapping[str, str] | None = None) -> Reply:
        return self._call(reply, self._http.build_request("GET", path, params=params), None)

    def _post(self, reply: type[Reply], path: str, body: Noun) -> Reply:
        if self._wallet is None:
            raise Misconfigured("this needs a wallet", remedy="open the client with one")
        if self._receiver is None:
            self._receiver = self.server().hotkey
        headers = {"content-type": "application/json", IDEMPOTENCY_KEY: uuid.uuid4().hex}
        request = self._http.build_request("POST", path, content=body.canonical(), headers=headers)
        return self._call(reply, request, RequestSigner(self._wallet, self._receiver))

    def _call(self, reply: type[Reply], request: httpx.Request, auth: httpx.Auth | None) -> Reply:
        """Sends until there is a final answer. `auth` signs each attempt anew."""
        give_up_at = time.monotonic() + self._retry_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            wait = pause * random.uniform(0.5, 1.5)  # apart, so that clients do not return in step
            try:
                answer = self._exchange(request, auth)
                if 200 <= answer.status < 300:
                    return _parsed(reply, answer)
                failure = _failure(answer)
                if answer.status not in RETRIED_STATUS:
                    raise failure
                wait = answer.retry_after_seconds or wait
            except httpx.TransportError as error:
                failure = Unavailable(f"no answer from {request.url.host}: {error!r}")
            if time.monotonic() + wait > give_up_at:
                raise failure
            time.sleep(wait)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _exchange(self, request: httpx.Request, auth: httpx.Auth | None) -> _Answer:
        """One attempt, its body read whole. Raises TooLarge over MAX_REPLY_BYTES."""
        response = self._http.send(request, auth=auth, stream=True)
        with closing(response):
            parts: list[bytes] = []
            size = 0
            for part in response.iter_bytes():
                size += len(part)
                if size > MAX_REPLY_BYTES:
                    raise TooLarge(f"the server's answer is over {MAX_REPLY_BYTES} bytes")
                parts.append(part)
        # Retry-After in seconds; in its form as a date, which this server never sends, it counts as absent.
        delay = response.headers.get("retry-after", "")
        return _Answer(response.status_code, b"".join(parts), float(delay[:6]) if delay.isdecimal() else None)


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    retry_after_seconds: float | None


def _parsed(reply: type[Reply], answer: _Answer) -> Reply:
    try:
        return reply.model_validate_json(answer.body)
    except ValidationError as error:
        raise BadInput(f"the server's answer is no {reply.__name__}: {error.error_count()} faults") from error


def _failure(answer: _Answer) -> AthenaError:
    """The server's problem+json as the error that it was there; by its status where it is something else."""
    fallback = Unavailable if answer.status in RETRIED_STATUS or answer.status >= 500 else BadInput
    try:
        problem = Problem.model_validate_json(answer.body)
    except ValidationError:
        return fallback(f"HTTP {answer.status} without a problem document")
    if problem.code == RateLimited.code:
        seconds = answer.retry_after_seconds or FIRST_PAUSE_SECONDS
        return RateLimited(problem.detail, retry_after_seconds=seconds, remedy=problem.remedy)
    return _BY_CODE.get(problem.code, fallback)(problem.detail, remedy=problem.remedy)


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    return host == "localhost" or host == "::1" or host.startswith("127.")
