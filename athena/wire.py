"""What travels between the task server and its clients, beside the shared nouns."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import Field, StringConstraints

from athena.protocol import CrawlId, DatasetRef, Hex64, Lease, LeaseState, Manifest, Noun, Outcome, Task

MAX_LEASES_PER_CLAIM = 64
IDEMPOTENCY_KEY = "Idempotency-Key"

Item = TypeVar("Item")
Counter = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Progress = Annotated[dict[Counter, Annotated[int, Field(ge=0, lt=2**53)]], Field(max_length=32)]


class ServerInfo(Noun):
    """Who the server is, what it leases, and under which terms. Times in seconds."""

    hotkey: str
    netuid: int
    rule_version: str
    crawl: CrawlId | None
    crawl_url: str | None
    replication: int
    audit_share: float
    lease_seconds: float
    deadline_seconds: float


class ClaimRequest(Noun):
    """`count` is how many active leases the miner wants to hold in all, those it already holds included."""

    count: Annotated[int, Field(ge=1, le=MAX_LEASES_PER_CLAIM)] = 1


class HeartbeatRequest(Noun):
    fencing: int
    progress: Progress = Field(default_factory=dict)


class Heartbeat(Noun):
    """`cancel`: stop working, the task's slots are taken and a submission would be refused."""

    expires_at: datetime
    cancel: bool


class ReleaseRequest(Noun):
    fencing: int


class Leases(Noun):
    leases: tuple[Lease, ...]


class Receipt(Noun):
    """The sha256 of the canonical bytes of what the server keeps."""

    sha256: Hex64


class TaskView(Noun):
    """A task and its place in the draw. `open_slots` leases may still be taken of it."""

    id: str
    task: Task
    position: int
    replication: int
    open_slots: int
    audited: bool | None


class SubmissionView(Noun):
    """A submission as everyone may see it.

    `dataset` and `manifest` are null until the deadline of every lease of the task has passed: until then the data
    lies under a name that only its owner knows. `late`: it came after its lease had expired.
    """

    lease_id: str
    task_id: str
    hotkey: str
    submitted_at: datetime
    late: bool
    records: int
    rows: int
    tokens: int
    dataset: DatasetRef | None
    manifest: Manifest | None


class MinerStats(Noun):
    hotkey: str
    leases: dict[LeaseState, int]
    submissions: int
    records: int
    rows: int
    tokens: int


class Stats(Noun):
    """Totals of the whole ledger."""

    tasks: int
    open_tasks: int
    leases: dict[LeaseState, int]
    submissions: int
    records: int
    rows: int
    tokens: int
    sheets: dict[Outcome, int]
    releases: int
    miners: tuple[MinerStats, ...]


class Page(Noun, Generic[Item]):
    """One page of a list; `next` is the cursor of the page after it, null on the last."""

    items: tuple[Item, ...]
    next: str | None


class Problem(Noun):
    """An error as RFC 9457 application/problem+json. `code` is stable (see athena.errors), the texts are not."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    remedy: str | None = None
