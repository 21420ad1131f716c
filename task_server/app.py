"""The HTTP API, /v1: routes parse, call the ledger or the records, and reply."""

# Annotations are evaluated, not postponed: the routes' dependency on the gate is built at run time.
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Response

from athena.protocol import Hex32, Hotkey, Lease, LeaseState, SignedRelease, SignedSheet, Submission
from athena.wire import (
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
from task_server.edge import BodyLimit, add_problem_handlers
from task_server.identity import Gate
from task_server.ledger import Ledger
from task_server.membership import Membership
from task_server.settings import TaskServerSettings
from task_server.stats import Records
from task_server.transaction import Write

MAX_PAGE = 500

LeaseId = Annotated[Hex32, Path()]
Cursor = Annotated[str | None, Query(max_length=64)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": "application/problem+json"} for status in statuses}


READ_PROBLEMS = _problems(408, 413, 422, 503)
WRITE_PROBLEMS = _problems(400, 401, 403, 404, 408, 409, 413, 422, 503)


def create_app(
    settings: TaskServerSettings, ledger: Ledger, records: Records, membership: Membership, gate: Gate, receiver: str
) -> FastAPI:
    """The service. `receiver` is the server's own hotkey, for which clients sign their requests.

    Handlers are plain functions: each runs in a thread of its own, and its transaction is over before its reply is
    rendered.
    """
    app = FastAPI(title="Athena task server", version="1", docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
    add_problem_handlers(app)
    app.include_router(_writes(settings, ledger, membership, gate), prefix="/v1", responses=WRITE_PROBLEMS)
    app.include_router(_reads(settings, records, receiver), prefix="/v1", responses=READ_PROBLEMS)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    return app


def _writes(settings: TaskServerSettings, ledger: Ledger, membership: Membership, gate: Gate) -> APIRouter:
    router = APIRouter()
    Signed = Annotated[Write, Depends(gate)]

    @router.post("/leases")
    def claim(write: Signed, body: ClaimRequest, response: Response) -> Leases:
        """The caller's active leases, topped up to `count`. Retry-After says when to ask again if there are none."""
        leases = ledger.claim(write, body.count, membership.head())
        if not leases.leases:
            response.headers["retry-after"] = f"{settings.idle_seconds:.0f}"
        return leases

    @router.post("/leases/{lease_id}/heartbeat")
    def heartbeat(write: Signed, lease_id: LeaseId, body: HeartbeatRequest) -> Heartbeat:
        """Keeps a lease alive; the reply may tell its holder to stop."""
        return ledger.heartbeat(write, lease_id, body.fencing, body.progress)

    @router.post("/leases/{lease_id}/release")
    def release(write: Signed, lease_id: LeaseId, body: ReleaseRequest) -> Lease:
        """Gives a lease back."""
        return ledger.release(write, lease_id, body.fencing)

    @router.post("/submissions", status_code=201)
    def submit(write: Signed, body: Submission) -> SubmissionView:
        """Records the dataset that a lease came to."""
        return ledger.submit(write, body)

    @router.post("/sheets", status_code=201)
    def post_sheet(write: Signed, body: SignedSheet) -> Receipt:
        """Keeps a score sheet; for validators with a permit."""
        return ledger.post_sheet(write, body)

    @router.post("/releases", status_code=201)
    def post_release(write: Signed, body: SignedRelease) -> Receipt:
        """Keeps the announcement of a released model."""
        return ledger.post_release(write, body)

    return router


def _reads(settings: TaskServerSettings, records: Records, receiver: str) -> APIRouter:
    router = APIRouter()

    @router.get("/server")
    def server() -> ServerInfo:
        """Who the server is and under which terms it leases."""
        crawl = records.latest_crawl()
        return ServerInfo(
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

    @router.get("/tasks")
    def tasks(cursor: Cursor = None, limit: Limit = 100) -> Page[TaskView]:
        """Tasks by their place in the draw."""
        return records.tasks(cursor=cursor, limit=limit)

    @router.get("/tasks/{task_id}", responses=_problems(404))
    def task(task_id: Annotated[Hex32, Path()]) -> TaskView:
        return records.task(task_id)

    @router.get("/leases")
    def leases(
        hotkey: Hotkey | None = None,
        task_id: Hex32 | None = None,
        state: LeaseState | None = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[Lease]:
        """Leases in the order of their fencing tokens."""
        return records.leases(hotkey=hotkey, task_id=task_id, state=state, cursor=cursor, limit=limit)

    @router.get("/submissions")
    def submissions(
        hotkey: Hotkey | None = None, task_id: Hex32 | None = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[SubmissionView]:
        """Submissions in the order of their arrival; where the data lies is shown after the task's last deadline."""
        return records.submissions(hotkey=hotkey, task_id=task_id, cursor=cursor, limit=limit)

    @router.get("/sheets")
    def sheets(
        hotkey: Hotkey | None = None, task_id: Hex32 | None = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[SignedSheet]:
        """Score sheets in the order of their arrival."""
        return records.sheets(hotkey=hotkey, task_id=task_id, cursor=cursor, limit=limit)

    @router.get("/releases")
    def releases(cursor: Cursor = None, limit: Limit = 100) -> Page[SignedRelease]:
        """Released models in the order of their announcement."""
        return records.releases(cursor=cursor, limit=limit)

    @router.get("/stats")
    def stats() -> Stats:
        """Totals of the whole ledger."""
        return records.stats()

    return router
