"""The routes that write: miners', validators' and trainers' by signature, operators' by API key."""

# Annotations are evaluated, not postponed: the routes' dependencies on the gates are built at run time.
import asyncio
from concurrent.futures import Future
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from athena.protocol import Hex32, Lease, SignedRelease, SignedSheet, Submission
from athena.registry import SignedEntry
from athena.wire import (
    AskOptOut,
    Ban,
    ClaimRequest,
    CrawlView,
    Heartbeat,
    HeartbeatRequest,
    Leases,
    OpenCrawl,
    OptOut,
    Receipt,
    ReleaseRequest,
    SubmissionView,
    TaskView,
)
from task_server.identity import Gate, OperatorGate
from task_server.journals import Journals
from task_server.ledger import Ledger
from task_server.membership import Membership
from task_server.operators import Operators
from task_server.papers import Papers
from task_server.settings import TaskServerSettings
from task_server.transaction import Asked, Reply, Write

LeaseId = Annotated[Hex32, Path()]
_COME_BACK: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"Retry-After": {"description": "With no lease: seconds to wait.", "schema": {"type": "integer"}}}}
}


async def _json(future: Future[Reply[Any]], status: int = 200) -> Response:
    """The reply in the bytes that the ledger keeps, once they are durable."""
    reply = await asyncio.wrap_future(future)
    return Response(reply.json, status, media_type="application/json")


def member_routes(
    settings: TaskServerSettings,
    ledger: Ledger,
    papers: Papers,
    journals: Journals,
    membership: Membership,
    gate: Gate,
) -> APIRouter:
    router = APIRouter(prefix="/v1")
    Signed = Annotated[Write, Depends(gate)]

    @router.post("/leases", response_model=Leases, responses=_COME_BACK, tags=["leases"])
    async def claim(write: Signed, body: ClaimRequest) -> Response:
        """The caller's active leases, topped up to `count`. Retry-After says when to ask again if there are none."""
        reply = await asyncio.wrap_future(ledger.claim(write, body.count, membership.head()))
        headers = {} if reply.value.leases else {"retry-after": f"{settings.idle_seconds:.0f}"}
        return Response(reply.json, headers=headers, media_type="application/json")

    @router.post("/leases/{lease_id}/heartbeat", response_model=Heartbeat, tags=["leases"])
    async def heartbeat(write: Signed, lease_id: LeaseId, body: HeartbeatRequest) -> Response:
        """Keeps a lease alive; the reply may tell its holder to stop."""
        return await _json(ledger.heartbeat(write, lease_id, body.fencing, body.progress))

    @router.post("/leases/{lease_id}/release", response_model=Lease, tags=["leases"])
    async def release(write: Signed, lease_id: LeaseId, body: ReleaseRequest) -> Response:
        """Gives a lease back."""
        return await _json(ledger.release(write, lease_id, body.fencing))

    @router.post("/submissions", status_code=201, response_model=SubmissionView, tags=["submissions"])
    async def submit(write: Signed, body: Submission) -> Response:
        """Records the dataset that a lease came to. One that is not `accepted` is kept, and not paid."""
        return await _json(ledger.submit(write, body), 201)

    @router.post("/sheets", status_code=201, response_model=Receipt, tags=["sheets"])
    async def post_sheet(write: Signed, body: SignedSheet) -> Response:
        """Keeps a score sheet; for validators with a permit."""
        return await _json(papers.post_sheet(write, body), 201)

    @router.post("/releases", status_code=201, response_model=Receipt, tags=["releases"])
    async def post_release(write: Signed, body: SignedRelease) -> Response:
        """Keeps the announcement of a released model."""
        return await _json(papers.post_release(write, body), 201)

    @router.post("/journal", status_code=201, response_model=Receipt, tags=["releases"])
    async def post_entry(write: Signed, body: SignedEntry) -> Response:
        """Keeps the next entry of the caller's journal of a model: what was done with which version."""
        return await _json(journals.post_entry(write, body), 201)

    return router


def operator_routes(operators: Operators, membership: Membership) -> APIRouter:
    router = APIRouter(prefix="/v1/operator", tags=["operators"])
    OfCrawls = Annotated[Asked, Depends(OperatorGate(operators, "crawls"))]
    OfTasks = Annotated[Asked, Depends(OperatorGate(operators, "tasks"))]
    OfBans = Annotated[Asked, Depends(OperatorGate(operators, "bans"))]
    OfOptOuts = Annotated[Asked, Depends(OperatorGate(operators, "opt-outs"))]

    @router.post("/crawls", status_code=202, response_model=CrawlView)
    async def open_crawl(asked: OfCrawls, body: OpenCrawl) -> Response:
        """Has a crawl imported, in the background: its state tells how far it is."""
        return await _json(operators.request_crawl(asked, body, membership.head().number), 202)

    @router.post("/tasks/{task_id}/close", response_model=TaskView)
    async def close_task(asked: OfTasks, task_id: Annotated[Hex32, Path()]) -> Response:
        """No more leases of a task; holders of active ones are told to stop."""
        return await _json(operators.close_task(asked, task_id))

    @router.post("/bans", response_model=Ban)
    async def ban(asked: OfBans, body: Ban) -> Response:
        """Bars a coldkey from every write, or lifts the ban."""
        return await _json(operators.ban(asked, body))

    @router.post("/opt-outs", response_model=OptOut)
    async def opt_out(asked: OfOptOuts, body: AskOptOut) -> Response:
        """Leaves a domain out of all work that is leased from the next block on, or takes it in again."""
        return await _json(operators.opt_out(asked, body, membership.head().number))

    return router
