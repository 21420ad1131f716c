"""What the event chain says, and what it cannot say: the ledger's rules, applied to one event after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from athena.errors import BadInput
from athena.leasing import AUDIT_COPIES
from athena.protocol import CrawlId, Hex32, Hex64, Hotkey, LeaseState, Outcome
from athena.wire import Domain, EventHead, LedgerEvent

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Body(BaseModel):
    """What an event of one kind holds; it may hold more."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Imported(Body):
    """A batch of tasks, at the places from `first_position` on. `sha256`: of their ids, joined by newlines."""

    crawl: CrawlId
    block: Count
    first_position: Count
    tasks: Positive
    copies: Positive
    rule_version: str
    sha256: Hex64


class OfLease(Body):
    task: Hex32
    hotkey: Hotkey
    lease: Hex32
    fencing: Positive


class Leased(OfLease):
    """`copies`: that the task wants from now on.

    `draw_index`: which draw of `hotkey` at `block` it was, among the `listed` first tasks.
    """

    coldkey: str
    block: Count
    listed: Count
    draw_index: Count
    copies: Positive


class Submitted(OfLease):
    late: bool
    accepted: bool


class Audited(Body):
    """What the hash of `block`, the one after the first lease's, drew: no more copies, or AUDIT_COPIES."""

    task: Hex32
    block: Count
    more: Count


class Scored(Body):
    task: Hex32
    hotkey: Hotkey
    validator: Hotkey
    outcome: Outcome


class Closed(Body):
    task: Hex32


class Banned(Body):
    coldkey: str
    reason: str


class Unbanned(Body):
    coldkey: str


class OptedOut(Body):
    domain: Domain
    since_block: Count


class OptedIn(Body):
    domain: Domain
    until_block: Count


@dataclass
class TaskLine:
    """A task as far as the chain names it: from its first lease on, `copies` null before. Counts are of leases."""

    copies: int | None = None
    active: int = 0
    accepted: int = 0
    closed: bool = False
    audited: bool = False
    first_block: int | None = None
    holders: dict[str, str] = field(default_factory=dict)
    """The coldkey of every hotkey that ever held a lease of it."""

    @property
    def filled(self) -> bool:
        return self.copies is not None and self.active + self.accepted >= self.copies

    def known_to(self, hotkey: str, coldkey: str) -> bool:
        """Whether the hotkey or its coldkey ever held a lease of it."""
        return hotkey in self.holders or coldkey in self.holders.values()


@dataclass
class LeaseLine:
    task: str
    hotkey: str
    coldkey: str
    fencing: int
    state: LeaseState = "active"
    submitted: bool = False


@dataclass(frozen=True)
class Batch:
    """Tasks that were imported together, and when (UTC microseconds)."""

    imported: Imported
    at: int


Rule = Callable[["LedgerState", Any, LedgerEvent], None]


@dataclass
class LedgerState:
    """What holds after the event `head` (null before the first).

    `bans`: reason by coldkey. `opt_outs`: since and until which block, by domain.
    """

    batches: list[Batch] = field(default_factory=list)
    tasks: dict[str, TaskLine] = field(default_factory=dict)
    leases: dict[str, LeaseLine] = field(default_factory=dict)
    bans: dict[str, str] = field(default_factory=dict)
    opt_outs: dict[str, list[tuple[int, int | None]]] = field(default_factory=dict)
    sheets: dict[Outcome, int] = field(default_factory=lambda: {"pass": 0, "fail": 0, "none": 0})
    num_tasks: int = 0
    head: EventHead | None = None
    _fencings: set[int] = field(default_factory=set)

    def apply(self, event: LedgerEvent) -> None:
        """The next event. Raises BadInput, naming its sequence, for what cannot have happened."""
        kind, rule = _RULES.get(event.kind, (None, None))
        try:
            if kind is None or rule is None:
                raise BadInput(f"its kind {event.kind[:40]!r} is not known here", remedy="update athena")
            rule(self, kind.model_validate(event.body), event)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise BadInput(f"event {event.sequence}: no {event.kind} has such a {where}") from error
        except BadInput as error:
            raise BadInput(f"event {event.sequence}: {error.message}", remedy=error.remedy) from error
        self.head = EventHead(sequence=event.sequence, hash=event.hash)

    def listed(self, block: int) -> int:
        """How many tasks are drawn from at a block."""
        return sum(batch.imported.tasks for batch in self.batches if batch.imported.block <= block)

    def _imported(self, batch: Imported, event: LedgerEvent) -> None:
        _require(batch.first_position == self.num_tasks, f"its tasks belong at position {self.num_tasks}")
        _require(not self.batches or self.batches[-1].imported.block <= batch.block, "it changes earlier draws")
        self.batches.append(Batch(batch, event.at))
        self.num_tasks += batch.tasks

    def _leased(self, new: Leased, _event: LedgerEvent) -> None:
        task = self.tasks.get(new.task) or TaskLine()
        _require(new.lease not in self.leases, f"lease {new.lease} was issued before")
        _require(new.fencing not in self._fencings, f"fencing token {new.fencing} was used before")
        _require(not task.known_to(new.hotkey, new.coldkey), f"this miner had a lease of task {new.task} before")
        _require(not task.closed, f"task {new.task} is closed")
        _require(new.coldkey not in self.bans, "its coldkey is barred")
        _require(task.copies in (None, new.copies), f"task {new.task} wants {task.copies} copies, not {new.copies}")
        _require(task.active + task.accepted < new.copies, f"task {new.task} has no slot left")
        if task.first_block is None:
            self.tasks[new.task] = task
            _require(len(self.tasks) <= self.num_tasks, f"only {self.num_tasks} tasks are listed")
            task.first_block = new.block
        task.copies = new.copies
        task.active += 1
        task.holders[new.hotkey] = new.coldkey
        self.leases[new.lease] = LeaseLine(new.task, new.hotkey, new.coldkey, new.fencing)
        self._fencings.add(new.fencing)

    def _ended(self, of: OfLease, event: LedgerEvent) -> None:
        lease = self._lease(of)
        _require(lease.state == "active", f"lease {of.lease} is {lease.state} already")
        lease.state = "expired" if event.kind == "expired" else "released"
        self.tasks[lease.task].active -= 1

    def _submitted(self, of: Submitted, _event: LedgerEvent) -> None:
        lease = self._lease(of)
        task = self.tasks[lease.task]
        _require(not lease.submitted, f"lease {of.lease} has a submission already")
        _require(lease.state in ("active", "expired"), f"lease {of.lease} is {lease.state}")
        _require(of.late == (lease.state == "expired"), f"lease {of.lease} is {lease.state}")
        if of.late and of.accepted:
            _require(not task.filled and not task.closed, f"task {of.task} has no slot left")
        _require(of.late or of.accepted, "a submission in time is accepted")
        lease.submitted = True
        if of.accepted:
            task.active -= lease.state == "active"
            task.accepted += 1
            lease.state = "submitted"

    def _audited(self, of: Audited, _event: LedgerEvent) -> None:
        task = self.tasks.get(of.task, TaskLine())
        _require(task.copies is not None and task.first_block == of.block - 1, "it follows no first lease")
        _require(not task.audited, f"task {of.task} is audited already")
        _require(of.more in (0, AUDIT_COPIES), f"an audit takes {AUDIT_COPIES} copies more")
        task.audited = True
        task.copies = (task.copies or 0) + of.more

    def _scored(self, of: Scored, _event: LedgerEvent) -> None:
        _require(of.hotkey in self.tasks.get(of.task, TaskLine()).holders, "there is no such lease")
        _require(of.hotkey != of.validator, "nobody scores their own work")
        self.sheets[of.outcome] += 1

    def _closed(self, of: Closed, _event: LedgerEvent) -> None:
        task = self.tasks.setdefault(of.task, TaskLine())
        _require(len(self.tasks) <= self.num_tasks, f"only {self.num_tasks} tasks are listed")
        _require(not task.closed, f"task {of.task} is closed already")
        task.closed = True

    def _banned(self, of: Banned, _event: LedgerEvent) -> None:
        self.bans[of.coldkey] = of.reason

    def _unbanned(self, of: Unbanned, _event: LedgerEvent) -> None:
        self.bans.pop(of.coldkey, None)

    def _opted_out(self, of: OptedOut, _event: LedgerEvent) -> None:
        self.opt_outs.setdefault(of.domain, []).append((of.since_block, None))

    def _opted_in(self, of: OptedIn, _event: LedgerEvent) -> None:
        entries = self.opt_outs.get(of.domain, [])
        place = next((i for i, (_, until) in enumerate(entries) if until is None), None)
        if place is None:
            raise BadInput(f"{of.domain} is not on the opt-out list")
        entries[place] = (entries[place][0], of.until_block)

    def _nothing(self, _of: Body, _event: LedgerEvent) -> None:
        pass

    def _lease(self, of: OfLease) -> LeaseLine:
        lease = self.leases.get(of.lease)
        if lease is None:
            raise BadInput(f"there is no lease {of.lease}")
        stated = (of.task, of.hotkey, of.fencing)
        _require(stated == (lease.task, lease.hotkey, lease.fencing), f"lease {of.lease} is another one")
        return lease


_RULES: Mapping[str, tuple[type[Body], Rule]] = {
    "imported": (Imported, LedgerState._imported),
    "leased": (Leased, LedgerState._leased),
    "released": (OfLease, LedgerState._ended),
    "expired": (OfLease, LedgerState._ended),
    "submitted": (Submitted, LedgerState._submitted),
    "audited": (Audited, LedgerState._audited),
    "scored": (Scored, LedgerState._scored),
    "closed": (Closed, LedgerState._closed),
    "banned": (Banned, LedgerState._banned),
    "unbanned": (Unbanned, LedgerState._unbanned),
    "opted-out": (OptedOut, LedgerState._opted_out),
    "opted-in": (OptedIn, LedgerState._opted_in),
    # These change nothing that can be replayed.
    "announced": (Body, LedgerState._nothing),
    "journaled": (Body, LedgerState._nothing),
    "key-created": (Body, LedgerState._nothing),
    "key-revoked": (Body, LedgerState._nothing),
}


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadInput(otherwise)
