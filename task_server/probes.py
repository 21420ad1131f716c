"""What watches over the server: is it alive, is it ready, and how is it doing. Watching never decides anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlmodel import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from athena.errors import Misconfigured, Unavailable
from athena.protocol import Noun
from task_server import schema
from task_server.membership import Membership
from task_server.standings import Standings
from task_server.store import Act, Result, Store

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time beside each count, which nobody plots

UNKNOWN = "unknown"
"""The route of a request that no route fits, and a method that HTTP does not know: labels must stay few."""
CLIENT_LEFT = 499
"""The status of a request that nobody was there to be answered."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Health(Noun):
    """That all is well."""

    status: Literal["ok"] = "ok"


class Metrics:
    """What this process counts, in a registry of its own: two apps in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "http_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "http_request_seconds", "Time to a whole reply.", ("route",), buckets=_BUCKETS, registry=self.registry
        )
        self.write_seconds = Histogram(
            "ledger_write_seconds",
            "Time from a write's being asked for to its being durable, or refused.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        # Looking labels up costs more than counting: each combination is looked up once.
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        known = self._counters.get((route, method, status))
        if known is None:
            shown = method if method in _METHODS else UNKNOWN
            known = self._requests.labels(route, shown, str(status)), self._seconds.labels(route)
            if shown == method:
                self._counters[route, method, status] = known
        known[0].inc()
        known[1].observe(seconds)


class Measure:
    """ASGI middleware: counts and times every request under the template of its route, never its raw path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._observe = metrics.observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = CLIENT_LEFT

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            status = 500  # which is sent outside of here
            raise
        finally:
            route = getattr(scope.get("route"), "path_format", UNKNOWN)
            self._observe(route, scope["method"], status, time.perf_counter() - started)


class TimedStore:
    """A store whose writes are timed."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._observe = metrics.write_seconds.observe

    def submit(self, act: Act[Result], *, first: Act[None] | None = None) -> Future[Result]:
        started = time.perf_counter()
        future = self._store.submit(act, first=first)
        future.add_done_callback(lambda _: self._observe(time.perf_counter() - started))
        return future

    def read(self) -> AbstractContextManager[Session]:
        return self._store.read()

    def close(self) -> None:
        self._store.close()


class LedgerCollector(Collector):
    """The ledger's totals and the age of the view of the chain, as of the scrape; what cannot be had is left out."""

    def __init__(self, standings: Standings, membership: Membership) -> None:
        self._standings = standings
        self._membership = membership

    def collect(self) -> Iterable[GaugeMetricFamily]:
        age = self._membership.age_seconds()
        if age is not None:
            yield _gauge("chain_view_age_seconds", "Age of the view of the chain.", age)
        try:
            stats, stats_age = self._standings.stats()
        except Unavailable:
            return
        yield _gauge("ledger_stats_age_seconds", "Age of the totals of the ledger.", stats_age)
        yield _gauge("ledger_tasks", "Tasks.", stats.tasks)
        yield _gauge("ledger_open_tasks", "Tasks of which a lease may still be taken.", stats.open_tasks)
        yield _by_label("ledger_leases", "Leases by state.", "state", stats.leases.items())
        yield _gauge("ledger_submissions", "Submissions.", stats.submissions)
        yield _by_label("ledger_sheets", "Score sheets by outcome.", "outcome", stats.sheets.items())
        yield _gauge("ledger_tokens", "Tokens in all submissions.", stats.tokens)
        yield _gauge("ledger_releases", "Released models.", stats.releases)
        yield _gauge("ledger_events", "Events in the chain of events.", stats.events)


def probe_routes(store: Store, membership: Membership, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["probes"])

    @router.get("/healthz", response_model=Health)
    async def healthz() -> Response:
        """The process answers."""
        return _health()

    @router.get("/readyz", response_model=Health)
    def readyz() -> Response:
        """Requests can be served, writes included: the database answers, and the view of the chain is recent."""
        missing = list(_missing(store, membership))
        if missing:
            raise Unavailable(f"not ready: {'; '.join(missing)}")
        return _health()

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics_text() -> Response:
        """Counts and times in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _missing(store: Store, membership: Membership) -> Iterator[str]:
    """Why writes would fail now."""
    try:
        with store.read() as session:
            schema.check(session.connection())
    except (Unavailable, Misconfigured) as error:
        yield error.message
    try:
        membership.head()
    except Unavailable as error:
        yield error.message


def _health() -> Response:
    return Response(Health().model_dump_json(), media_type="application/json")


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _by_label(name: str, text: str, label: str, values: Iterable[tuple[str, int]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for value, count in values:
        family.add_metric((value,), count)
    return family
