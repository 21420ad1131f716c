"""What travels between the task server and its clients, beside the shared nouns."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, JsonValue, StrictBool, StringConstraints

from athena.protocol import (
    MAX_WARCS_PER_SHARD,
    CrawlId,
    DatasetRef,
    Hex32,
    Hex40,
    Hex64,
    Hotkey,
    Lease,
    LeaseState,
    Location,
    Manifest,
    Noun,
    Outcome,
    Shard,
    Task,
)
from athena.registry import Alias, Gate, ModelName, State, Version

MAX_LEASES_PER_CLAIM = 64
IDEMPOTENCY_KEY = "Idempotency-Key"

Item = TypeVar("Item")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
Domain = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}(\.{_LABEL})+$", max_length=253)]
Reason = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=500)]
"""One line of text, without control characters."""
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
    """A task and its place in the draw. It wants `copies` datasets; `open_slots` leases may still be taken of it."""

    id: Hex32
    task: Task
    position: int
    copies: int
    open_slots: int
    audited: bool | None
    closed: bool


class CrawlView(Noun):
    """A crawl that tasks come from. `failure`: why the last attempt to import it stopped."""

    id: CrawlId
    url: str
    name: str
    state: Literal["importing", "open"]
    failure: str | None
    imported_at: datetime


class ShardView(Noun):
    """A shard and its place in the list of shards."""

    id: Hex32
    sequence: int
    shard: Shard


class SubmissionView(Noun):
    """A submission as everyone may see it.

    `dataset` and `manifest` are null until the deadline of every lease of the task has passed: until then the data
    lies under a name that only its owner knows. `late`: it came after its lease had expired. Not `accepted`: the task
    had no slot left, so nobody pays for it. `verdict`: its validators' word by weight of stake, null before the first.
    """

    lease_id: str
    task_id: str
    hotkey: str
    submitted_at: datetime
    late: bool
    accepted: bool
    verdict: Literal["pass", "fail"] | None
    records: int
    rows: int
    tokens: int
    dataset: DatasetRef | None
    manifest: Manifest | None


class MinerView(Noun):
    """One miner's record. Its coldkey has the `quota` (leases per day), the `streak` of passes, and the `ban` (why)."""

    hotkey: str
    coldkey: str
    leases: dict[LeaseState, int]
    submissions: int
    passed: int
    failed: int
    records: int
    rows: int
    tokens: int
    quota: int
    streak: int
    ban: str | None


class Standing(Noun):
    """A place on the leaderboard: by `units`, the validators' median pay units over all of the miner's submissions.

    `effect`: mean difference to the canonical refinement in bits per byte over those submissions, positive is better.
    """

    rank: int
    hotkey: str
    units: float
    effect: float | None
    submissions: int
    tokens: int


class DatasetView(Noun):
    """An accepted dataset that is public by now, and what the validators said of it."""

    dataset: DatasetRef
    task_id: str
    hotkey: str
    submitted_at: datetime
    verdict: Literal["pass", "fail"] | None
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
    events: int


class Page(Noun, Generic[Item]):
    """One page of a list; `next` is the cursor of the page after it, null on the last."""

    items: tuple[Item, ...]
    next: str | None


class ReleaseView(Noun):
    """Where one version of a trainer's model stands, as its journal says (athena.registry).

    `sha256` is the digest of its release.json; `location` and `revision` say where its files lie, once it is published.
    `changed_at` is the server's time.
    """

    trainer: Hotkey
    name: ModelName
    version: Version
    sha256: Hex64
    state: State
    aliases: tuple[Alias, ...]
    gate: Gate | None
    location: Location | None
    revision: Hex40 | None
    changed_at: datetime


class LedgerEvent(Noun):
    """One link of the server's event chain (athena.audit). `at`: UTC microseconds since 1970."""

    sequence: int
    at: int
    kind: str
    body: dict[str, JsonValue]
    hash: Hex64


class EventHead(Noun):
    """The end of the event chain: whoever keeps it can prove later that history was rewritten."""

    sequence: int
    hash: Hex64


class OptOut(Noun):
    """A domain that asked to be left out, with its sub-domains.

    Binding for work leased at a block b with since_block <= b, and b < until_block unless that is null.
    """

    domain: Domain
    reason: Reason
    since_block: int
    until_block: int | None = None


class OptOuts(Noun):
    """The whole opt-out list, withdrawn entries included."""

    domains: tuple[OptOut, ...]


class OpenCrawl(Noun):
    """Ask for a crawl to be imported. What is null is as the server's settings say."""

    crawl: CrawlId
    crawl_url: Annotated[str, StringConstraints(pattern=r"^https?://[\x21-\x7e]{1,300}$")] | None = None
    warcs_per_shard: Annotated[int, Field(ge=1, le=MAX_WARCS_PER_SHARD)] = 4
    replication: Annotated[int, Field(ge=1, le=64)] | None = None
    limit_warcs: Annotated[int, Field(ge=1, le=2**31)] | None = None


class Ban(Noun):
    """Bar a coldkey, with all its hotkeys, from every write. `reason` null lifts the ban."""

    coldkey: Hotkey
    reason: Annotated[Reason, StringConstraints(min_length=1)] | None


class AskOptOut(Noun):
    """Add a domain to the opt-out list, or withdraw it."""

    domain: Domain
    reason: Reason = ""
    withdraw: StrictBool = False


class Problem(Noun):
    """An error as RFC 9457 application/problem+json. `code` is stable (see athena.errors), the texts are not."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    remedy: str | None = None
