"""The routes that read: everything that the ledger holds, for everyone."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel

from athena.protocol import CrawlId, Hex32, Hotkey, Lease, LeaseState, SignedRelease, SignedSheet
from athena.registry import ModelName, SignedEntry
from athena.wire import (
    CrawlView,
    DatasetView,
    EventHead,
    LedgerEvent,
    MinerView,
    OptOuts,
    Page,
    ReleaseView,
    ServerInfo,
    ShardView,
    Standing,
    Stats,
    SubmissionView,
    TaskView,
)
from task_server.paging import MAX_PAGE, Listed, PageRequest
from task_server.records import Records
from task_server.results import Results
from task_server.settings import TaskServerSettings
from task_server.standings import Standings

_COUNTED: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"Age": {"description": "Seconds since this was counted.", "schema": {"type": "integer"}}}}
}
FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}

Cursor = Annotated[
    str | None,
    Query(pattern=r"^[A-Za-z0-9_-]{8,120}$", description="`next` of an earlier page of this list under these filters."),
]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most items on a page; large ones end it earlier.")]
OfHotkey = Annotated[Hotkey | None, Query(description="Of this miner only.")]
OfTask = Annotated[Hex32 | None, Query(description="Of this task only.")]
OfCrawl = Annotated[CrawlId | None, Query(description="Of this crawl only.")]
OfTrainer = Annotated[Hotkey | None, Query(description="Of this trainer only.")]
OfModel = Annotated[ModelName | None, Query(description="Of this model only.")]
AfterEvent = Annotated[int, Query(ge=0, lt=2**53, description="Only events with a greater sequence.")]


def _reply(noun: BaseModel, age_seconds: float | None = None) -> Response:
    """Rendered in the thread that read it: the event loop has other requests to serve."""
    headers = {} if age_seconds is None else {"age": str(math.floor(age_seconds))}
    return Response(noun.model_dump_json(), headers=headers, media_type="application/json")


def _page(listed: Listed, age_seconds: float | None = None) -> Response:
    headers = dict(FOR_EVER) if listed.final else {}
    if age_seconds is not None:
        headers["age"] = str(math.floor(age_seconds))
    return Response(listed.json, headers=headers, media_type="application/json")


def read_routes(
    settings: TaskServerSettings, records: Records, results: Results, standings: Standings, receiver: str
) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/server", response_model=ServerInfo, tags=["server"])
    def get_server() -> Response:
        """Who the server is and under which terms it leases."""
        crawl = records.latest_crawl()
        return _reply(
            ServerInfo(
                hotkey=receiver,
                netuid=settings.netuid,
                rule_version=settings.rule_version,
                crawl=crawl.id if crawl else None,
                crawl_url=crawl.url if crawl else None,
                replication=settings.replication,
                audit_share=settings.audit_share,
                lease_seconds=settings.lease_seconds,
                deadline_seconds=settings.deadline_seconds,
            )
        )

    @router.get("/crawls", response_model=Page[CrawlView], tags=["crawls"])
    def list_crawls(cursor: Cursor = None, limit: Limit = 100) -> Response:
        """Crawls by id."""
        return _page(records.crawls(PageRequest(limit, cursor)))

    @router.get("/crawls/{crawl_id}", response_model=CrawlView, tags=["crawls"])
    def get_crawl(crawl_id: Annotated[CrawlId, Path()]) -> Response:
        """One crawl, and how its import went."""
        return _reply(records.crawl(crawl_id))

    @router.get("/shards", response_model=Page[ShardView], tags=["crawls"])
    def list_shards(crawl: OfCrawl = None, cursor: Cursor = None, limit: Limit = 100) -> Response:
        """Shards in the order in which they were cut. A page with a `next` never changes."""
        return _page(records.shards(PageRequest(limit, cursor), crawl=crawl))

    @router.get("/shards/{shard_id}", response_model=ShardView, tags=["crawls"])
    def get_shard(shard_id: Annotated[Hex32, Path()]) -> Response:
        """One shard."""
        return _reply(records.shard(shard_id))

    @router.get("/tasks", response_model=Page[TaskView], tags=["tasks"])
    def list_tasks(
        crawl: OfCrawl = None,
        is_open: Annotated[bool | None, Query(alias="open", description="Whether a lease may still be taken.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """Tasks by their place in the draw."""
        return _page(records.tasks(PageRequest(limit, cursor), crawl=crawl, is_open=is_open))

    @router.get("/tasks/{task_id}", response_model=TaskView, tags=["tasks"])
    def get_task(task_id: Annotated[Hex32, Path()]) -> Response:
        """One task."""
        return _reply(records.task(task_id))

    @router.get("/leases", response_model=Page[Lease], tags=["leases"])
    def list_leases(
        hotkey: OfHotkey = None,
        task_id: OfTask = None,
        state: Annotated[LeaseState | None, Query(description="In this state only.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """Leases in the order of their fencing tokens."""
        return _page(records.leases(PageRequest(limit, cursor), hotkey=hotkey, task_id=task_id, state=state))

    @router.get("/leases/{lease_id}", response_model=Lease, tags=["leases"])
    def get_lease(lease_id: Annotated[Hex32, Path()]) -> Response:
        """One lease."""
        return _reply(records.lease(lease_id))

    @router.get("/submissions", response_model=Page[SubmissionView], tags=["submissions"])
    def list_submissions(
        hotkey: OfHotkey = None, task_id: OfTask = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Response:
        """Submissions in the order of their arrival; where the data lies is shown after the task's last deadline."""
        return _page(results.submissions(PageRequest(limit, cursor), hotkey=hotkey, task_id=task_id))

    @router.get("/sheets", response_model=Page[SignedSheet], tags=["sheets"])
    def list_sheets(
        hotkey: OfHotkey = None,
        task_id: OfTask = None,
        validator: Annotated[Hotkey | None, Query(description="By this validator only.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """Score sheets in the order of their arrival."""
        request = PageRequest(limit, cursor)
        return _page(results.sheets(request, hotkey=hotkey, task_id=task_id, validator=validator))

    @router.get("/miners", response_model=Page[MinerView], responses=_COUNTED, tags=["miners"])
    def list_miners(cursor: Cursor = None, limit: Limit = 100) -> Response:
        """All who ever held a lease, by hotkey. Counted every few seconds."""
        return _page(*standings.miners(PageRequest(limit, cursor)))

    @router.get("/miners/{hotkey}", response_model=MinerView, responses=_COUNTED, tags=["miners"])
    def get_miner(hotkey: Annotated[Hotkey, Path()]) -> Response:
        """One miner's record. Counted every few seconds."""
        return _reply(*standings.miner(hotkey))

    @router.get("/leaderboard", response_model=Page[Standing], responses=_COUNTED, tags=["miners"])
    def get_leaderboard(cursor: Cursor = None, limit: Limit = 100) -> Response:
        """Miners by pay units, the best first. Counted every few seconds."""
        return _page(*standings.leaderboard(PageRequest(limit, cursor)))

    @router.get("/datasets", response_model=Page[DatasetView], tags=["submissions"])
    def list_datasets(hotkey: OfHotkey = None, cursor: Cursor = None, limit: Limit = 100) -> Response:
        """Accepted datasets, from the last deadline of their task on, in the order of their arrival."""
        return _page(results.datasets(PageRequest(limit, cursor), hotkey=hotkey))

    @router.get("/releases", response_model=Page[SignedRelease], tags=["releases"])
    def list_releases(cursor: Cursor = None, limit: Limit = 100) -> Response:
        """Released models in the order of their announcement."""
        return _page(results.releases(PageRequest(limit, cursor)))

    @router.get("/journal", response_model=Page[SignedEntry], tags=["releases"])
    def list_entries(
        trainer: OfTrainer = None, model: OfModel = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Response:
        """Entries of the journals of releases in the order of their arrival."""
        return _page(results.journal(PageRequest(limit, cursor), trainer=trainer, model=model))

    @router.get("/registry", response_model=Page[ReleaseView], tags=["releases"])
    def list_registry(
        trainer: OfTrainer = None, model: OfModel = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Response:
        """Every version with its state and its aliases, as the journals say."""
        return _page(results.registry(PageRequest(limit, cursor), trainer=trainer, model=model))

    @router.get("/stats", response_model=Stats, responses=_COUNTED, tags=["server"])
    def get_stats() -> Response:
        """Totals of the whole ledger. Counted every few seconds."""
        return _reply(*standings.stats())

    @router.get("/opt-outs", response_model=OptOuts, tags=["opt-outs"])
    def list_opt_outs() -> Response:
        """Domains that asked to be left out, withdrawn ones included."""
        return _reply(records.opt_outs())

    @router.get("/events", response_model=Page[LedgerEvent], tags=["events"])
    def list_events(after: AfterEvent = 0, cursor: Cursor = None, limit: Limit = 100) -> Response:
        """The hash-chained log of all that changed. A page with a `next` never changes."""
        return _page(records.events(PageRequest(limit, cursor), after=after))

    @router.get("/events/head", response_model=EventHead, tags=["events"])
    def get_event_head() -> Response:
        """The end of the event log: sequence 0 before the first event."""
        return _reply(records.event_head())

    return router
