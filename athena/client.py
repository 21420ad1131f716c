"""The typed client of the task server: leases for miners, sheets for validators, records for everyone."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from athena.client_http import RETRIED_STATUS, Reply, Seal, exchange, failure, open_http, parsed
from athena.errors import AthenaError, BadInput, Misconfigured, Unavailable
from athena.protocol import (
    Hex32,
    Hotkey,
    Lease,
    LeaseState,
    Noun,
    SignedRelease,
    SignedSheet,
    Submission,
    Task,
)
from athena.registry import SignedEntry
from athena.wire import (
    IDEMPOTENCY_KEY,
    MAX_LEASES_PER_CLAIM,
    ClaimRequest,
    CrawlView,
    DatasetView,
    EventHead,
    Heartbeat,
    HeartbeatRequest,
    Leases,
    LedgerEvent,
    MinerView,
    OptOut,
    OptOuts,
    Page,
    Receipt,
    ReleaseRequest,
    ReleaseView,
    ServerInfo,
    ShardView,
    Standing,
    Stats,
    SubmissionView,
    TaskView,
)

if TYPE_CHECKING:
    from athena.chain.wallets import Wallet

PAGE = 500
PAPERS_PAGE = 50  # of what others wrote: each may be a mebibyte, and a reply at most client_http.MAX_REPLY_BYTES
FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 30.0

_HEX32: TypeAdapter[str] = TypeAdapter(Hex32)
_HOTKEY: TypeAdapter[str] = TypeAdapter(Hotkey)
Item = TypeVar("Item", bound=BaseModel)


class LedgerClient:
    """One server's client. Safe to use from several threads; close it, or use it as a context manager.

    Every verb raises the server's own error (athena.errors, by its code), or Unavailable once `retry_seconds` of
    retries did not help; at once what the server wants to be asked again only later than that, such as RateLimited
    for a spent quota. A verb that writes needs a `wallet`, and keeps one idempotency key over all its retries: it
    happens once, however often it is sent; it raises Unauthorized for a reply that the server did not sign. `receiver`
    is the server's hotkey; without one, the server at `url` is asked for it once, which trusts that address (use
    https). Iterators read page by page, as they are consumed.
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
        self._http = open_http(url, transport)
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
        """The active leases of the wallet's hotkey, topped up to `count`; empty when no task is due to it.

        Raises RateLimited when the quota of the wallet's coldkey is spent and it holds no lease.
        """
        return list(self._post(Leases, "leases", ClaimRequest(count=min(count, MAX_LEASES_PER_CLAIM))).leases)

    def heartbeat(self, lease: Lease, progress: Mapping[str, int]) -> Heartbeat:
        """Keeps the lease alive. Stop working when the reply says `cancel`."""
        body = HeartbeatRequest(fencing=lease.fencing, progress=dict(progress))
        return self._post(Heartbeat, f"leases/{lease.id}/heartbeat", body)

    def release(self, lease: Lease) -> None:
        """Gives the lease back."""
        self._post(Lease, f"leases/{lease.id}/release", ReleaseRequest(fencing=lease.fencing))

    def submit(self, submission: Submission) -> SubmissionView:
        """Reports a published dataset. It is paid for only if the answer says `accepted`."""
        return self._post(SubmissionView, "submissions", submission)

    def post_sheet(self, sheet: SignedSheet) -> None:
        self._post(Receipt, "sheets", sheet)

    def post_release(self, release: SignedRelease) -> None:
        self._post(Receipt, "releases", release)

    def post_entry(self, entry: SignedEntry) -> None:
        """The next entry of the wallet's own journal of a model. Raises Conflict for one that does not follow."""
        self._post(Receipt, "journal", entry)

    def crawls(self) -> Iterator[CrawlView]:
        return self._list(CrawlView, "crawls")

    def shards(self, *, crawl: str | None = None) -> Iterator[ShardView]:
        return self._list(ShardView, "shards", crawl=crawl)

    def task_view(self, task_id: str) -> TaskView:
        """Raises BadInput when the server's answer is not the task of that id."""
        view = self._get(TaskView, f"tasks/{_segment(_HEX32, task_id, 'task id')}")
        if view.task.id != task_id:
            raise BadInput(f"the server gave task {view.task.id} as {task_id}")
        return view

    def task(self, task_id: str) -> Task:
        """Raises as `task_view`."""
        return self.task_view(task_id).task

    def tasks(self, *, crawl: str | None = None, only_open: bool = False) -> Iterator[TaskView]:
        """By their place in the draw."""
        return self._list(TaskView, "tasks", crawl=crawl, open="true" if only_open else None)

    def lease(self, lease_id: str) -> Lease:
        """Raises BadInput when the server's answer is another lease."""
        lease = self._get(Lease, f"leases/{_segment(_HEX32, lease_id, 'lease id')}")
        if lease.id != lease_id:
            raise BadInput(f"the server gave lease {lease.id} as {lease_id}")
        return lease

    def leases(
        self,
        *,
        hotkey: str | None = None,
        task_id: str | None = None,
        state: LeaseState | None = None,
        limit: int | None = None,
    ) -> list[Lease]:
        """In the order in which they were issued."""
        return list(islice(self._list(Lease, "leases", hotkey=hotkey, task_id=task_id, state=state), limit))

    def submissions(self, *, task_id: str | None = None, hotkey: str | None = None) -> list[SubmissionView]:
        """Where the data lies is null until the deadline of the task's last lease has passed."""
        return list(self._list(SubmissionView, "submissions", PAPERS_PAGE, task_id=task_id, hotkey=hotkey))

    def sheets(
        self,
        *,
        task_id: str | None = None,
        hotkey: str | None = None,
        validator: str | None = None,
        limit: int | None = None,
    ) -> list[SignedSheet]:
        """In the order of their arrival."""
        filters = {"task_id": task_id, "hotkey": hotkey, "validator": validator}
        return list(islice(self._list(SignedSheet, "sheets", PAPERS_PAGE, **filters), limit))

    def releases(self) -> list[SignedRelease]:
        return list(self._list(SignedRelease, "releases", PAPERS_PAGE))

    def journal(self, trainer: str | None = None, model: str | None = None) -> Iterator[SignedEntry]:
        """Entries of the journals of releases, in their order."""
        return self._list(SignedEntry, "journal", trainer=trainer, model=model)

    def registry(self, trainer: str | None = None, model: str | None = None) -> Iterator[ReleaseView]:
        """Where each version of a model stands."""
        return self._list(ReleaseView, "registry", trainer=trainer, model=model)

    def miners(self) -> Iterator[MinerView]:
        """By hotkey."""
        return self._list(MinerView, "miners")

    def miner(self, hotkey: str) -> MinerView:
        """Raises BadInput when the server's answer is another miner."""
        miner = self._get(MinerView, f"miners/{_segment(_HOTKEY, hotkey, 'hotkey')}")
        if miner.hotkey != hotkey:
            raise BadInput("the server gave another miner than asked for")
        return miner

    def leaderboard(self) -> Iterator[Standing]:
        """The best first."""
        return self._list(Standing, "leaderboard")

    def datasets(self, *, hotkey: str | None = None) -> Iterator[DatasetView]:
        """Accepted datasets that are public by now."""
        return self._list(DatasetView, "datasets", hotkey=hotkey)

    def opt_outs(self) -> tuple[OptOut, ...]:
        """Withdrawn ones included."""
        return self._get(OptOuts, "opt-outs").domains

    def events(self, after: int = 0) -> Iterator[LedgerEvent]:
        """The event chain from the sequence after `after` on, as the server tells it: see athena.audit."""
        while True:
            params = {"after": str(after), "limit": str(PAGE)}
            page = self._get(Page[LedgerEvent], "events", params)
            yield from page.items
            if page.next is None:
                return
            if not page.items or page.items[-1].sequence <= after:
                raise BadInput("the server's event chain goes on without getting on")
            after = page.items[-1].sequence

    def event_head(self) -> EventHead:
        return self._get(EventHead, "events/head")

    def stats(self) -> Stats:
        return self._get(Stats, "stats")

    def _list(self, item: type[Item], path: str, page_size: int = PAGE, **filters: str | None) -> Iterator[Item]:
        params = {name: value for name, value in filters.items() if value is not None} | {"limit": str(page_size)}
        while True:
            page = self._get(Page[item], path, params)  # type: ignore[valid-type]
            yield from page.items
            if page.next is None:
                return
            if not page.items or page.next == params.get("cursor"):
                raise BadInput(f"the server's list of {path} goes on without getting on")
            params["cursor"] = page.next

    def _get(self, reply: type[Reply], path: str, params: Mapping[str, str] | None = None) -> Reply:
        return self._call(reply, self._http.build_request("GET", path, params=params), None)

    def _post(self, reply: type[Reply], path: str, body: Noun) -> Reply:
        if self._wallet is None:
            raise Misconfigured("this needs a wallet", remedy="open the client with one")
        if self._receiver is None:
            self._receiver = _segment(_HOTKEY, self.server().hotkey, "hotkey, which the server gave as its own")
        headers = {"content-type": "application/json", IDEMPOTENCY_KEY: uuid.uuid4().hex}
        request = self._http.build_request("POST", path, content=body.canonical(), headers=headers)
        return self._call(reply, request, Seal(self._wallet, self._receiver))

    def _call(self, reply: type[Reply], request: httpx.Request, seal: Seal | None) -> Reply:
        """Sends until there is a final answer. `seal` signs each attempt anew, and checks the reply."""
        give_up_at = time.monotonic() + self._retry_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            wait = pause * random.uniform(0.5, 1.5)  # apart, so that clients do not return in step
            try:
                answer = exchange(self._http, request, seal)
            except Unavailable as error:
                failed: AthenaError = error
            else:
                if 200 <= answer.status < 300:
                    return parsed(reply, answer)
                failed = failure(answer)
                if answer.status not in RETRIED_STATUS:
                    raise failed
                wait = answer.retry_after_seconds or wait
            if time.monotonic() + wait > give_up_at:
                raise failed
            time.sleep(wait)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)


def _segment(kind: TypeAdapter[str], value: Any, what: str) -> str:
    """One segment of a path, which cannot lead elsewhere. Raises BadInput."""
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise BadInput(f"{value!r} is no {what}") from error
