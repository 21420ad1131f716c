"""What watches over the server: alive, ready, and measured; none of it decides anything."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from athena.errors import Unavailable
from task_server.counting import Counted
from task_server.probes import UNKNOWN, LedgerCollector, Metrics, TimedStore
from task_server.standings import Standings
from task_server.transaction import SECOND


def samples(page: str) -> dict[tuple, float]:
    """By name and labels."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def scrape(service) -> dict[tuple, float]:
    reply = service.http.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return samples(reply.text)


def test_alive_is_not_ready(serve):
    service = serve()
    assert service.http.get("/healthz").json() == {"status": "ok"}
    assert service.http.get("/readyz").json() == {"status": "ok"}
    service.chain.stale = True
    service.store.submit(
        lambda tx: tx.connection.execute(text("UPDATE alembic_version SET version_num = '9'"))
    ).result()
    unready = service.http.get("/readyz")
    assert (unready.status_code, unready.json()["code"]) == (503, "unavailable")
    assert "no recent view of the chain" in unready.json()["detail"]
    assert "version 9" in unready.json()["detail"]
    assert unready.headers["retry-after"] == "2"
    assert service.http.get("/healthz").status_code == 200


def test_requests_are_counted_by_the_template_of_their_route(serve):
    service = serve()
    for path in (f"/v1/tasks/{'0' * 32}", f"/v1/tasks/{'1' * 32}", "/v1/tasks", "/secret/path", "/v1/tasks?limit=0"):
        service.http.get(path)
    service.http.head("/v1/tasks")
    for method in ("PUT", "PROPFIND", "LOCK"):
        service.http.request(method, "/v1/leases")
    seen = scrape(service)
    total = "http_requests_total"
    assert seen[total, *sorted(("GET", "/v1/tasks/{task_id}", "404"))] == 2
    assert seen[total, *sorted(("GET", "/v1/tasks", "200"))] == 1
    assert seen[total, *sorted(("GET", "/v1/tasks", "422"))] == 1
    assert seen[total, *sorted(("HEAD", "/v1/tasks", "200"))] == 1
    assert seen[total, *sorted(("GET", UNKNOWN, "404"))] == 1
    assert seen[total, *sorted(("PUT", "/v1/leases", "405"))] == 1
    assert seen[total, *sorted((UNKNOWN, "/v1/leases", "405"))] == 2
    assert seen["http_request_seconds_count", "/v1/tasks"] == 3
    assert not any("secret" in label for key in seen for label in key)


def test_the_ledger_is_gauged_from_its_counted_totals(serve, submission_for):
    service = serve(num_tasks=3)
    with service.client(service.wallet("miner")) as client:
        first, _ = client.claim(2)
        client.submit(submission_for(first))
    seen = scrape(service)
    assert (seen["ledger_tasks",], seen["ledger_open_tasks",], seen["ledger_submissions",]) == (3, 1, 1)
    assert (seen["ledger_leases", "active"], seen["ledger_leases", "submitted"]) == (1, 1)
    assert seen["ledger_sheets", "pass"] == 0
    assert seen["ledger_tokens",] == 1234
    assert seen["ledger_events",] == service.http.get("/v1/events/head").json()["sequence"]
    assert seen["ledger_stats_age_seconds",] == 0
    assert seen["chain_view_age_seconds",] == 1
    assert seen["ledger_write_seconds_count",] == 2
    service.clock.advance(1)
    assert scrape(service)["ledger_stats_age_seconds",] == 1


def test_two_apps_in_one_process_do_not_mix():
    one, other = Metrics(), Metrics()
    one.observe("/v1/tasks", "GET", 200, 0.1)
    assert one.registry.get_sample_value("http_request_seconds_count", {"route": "/v1/tasks"}) == 1
    assert other.registry.get_sample_value("http_request_seconds_count", {"route": "/v1/tasks"}) is None


class BrokenStore:
    """A store whose database is out of reach."""

    @contextmanager
    def read(self):
        raise Unavailable("out of reach")
        yield

    def submit(self, act, *, first=None):
        raise Unavailable("out of reach")

    def close(self) -> None:
        self.closed = True


class NoView:
    """A Membership that never saw the chain."""

    def age_seconds(self) -> None:
        return None


def test_what_cannot_be_had_is_left_out_of_the_metrics():
    store, metrics = BrokenStore(), Metrics()
    metrics.registry.register(LedgerCollector(Standings(store), NoView()))
    assert metrics.registry.get_sample_value("ledger_tasks") is None
    assert metrics.registry.get_sample_value("chain_view_age_seconds") is None
    timed = TimedStore(store, metrics)
    with pytest.raises(Unavailable):
        timed.submit(lambda tx: None)
    with pytest.raises(Unavailable), timed.read():
        pass
    timed.close()
    assert store.closed


def test_what_is_slow_to_count_is_counted_rarely_and_by_one(held_clock):
    counted = []
    tally = Counted(lambda: counted.append(held_clock.now) or len(counted), held_clock)
    assert (tally.get().value, tally.get().value) == (1, 1)
    held_clock.advance(2.9)
    assert tally.get().age_seconds(held_clock()) == pytest.approx(2.9)
    held_clock.advance(0.1)
    with tally._counting:
        assert tally.get().value == 1, "another thread is counting: the old count is at hand"
    assert tally.get().value == 2
    held_clock.advance(-100)  # a clock that was set back
    assert tally.get().value == 3
    slow = Counted(lambda: held_clock.advance(1), held_clock)
    assert slow.get().at == held_clock() - SECOND, "what was read is as old as the start of the count"


def test_a_count_that_failed_is_tried_again(held_clock):
    attempts = []

    def count() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise Unavailable("busy")
        return 7

    tally = Counted(count, held_clock)
    with pytest.raises(Unavailable):
        tally.get()
    assert tally.get().value == 7
