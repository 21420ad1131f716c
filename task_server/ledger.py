"""Every write to the ledger: leases and submissions by miners, score sheets by validators, releases by trainers.

A lease that ran out is found by query inside the transaction that may need its slot: no process has to remember it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_, exists, or_, update
from sqlmodel import col, select

from athena.chain.wallets import verify
from athena.errors import BadInput, Conflict, Forbidden, NotFound, Unavailable
from athena.events import EventLog
from athena.leasing import AUDIT_COPIES, MAX_DRAWS, is_audited, lease_positions
from athena.protocol import Lease, SignedRelease, SignedSheet, Submission, canonical_json
from athena.wire import Heartbeat, Leases, Receipt, SubmissionView
from task_server.database import Database
from task_server.settings import TaskServerSettings
from task_server.tables import LeaseRow, ReleaseRow, ShardRow, SheetRow, SubmissionRow, TaskRow, moment
from task_server.transaction import Clock, Transaction, Transactions, Write, utc_now

if TYPE_CHECKING:
    from athena.chain.client import Head, Neuron

DRAWS_PER_QUERY = 32


class Ledger:
    """The writes. Who signed a request is established before it gets here; who signed a paper is verified here.

    Verbs that take a `Write` are idempotent by its key: BadInput when the key belongs to another request, Unavailable
    when the database is busy.
    """

    def __init__(
        self, database: Database, settings: TaskServerSettings, clock: Clock = utc_now, events: EventLog | None = None
    ) -> None:
        self._settings = settings
        self._transactions = Transactions(database, clock, events or EventLog(None))

    def claim(self, write: Write, count: int, head: Head) -> Leases:
        """The caller's active leases, oldest first, topped up to `count` by the draws of `head`."""

        def act(tx: Transaction) -> Leases:
            self._expire(tx)
            held = (
                select(LeaseRow)
                .where(LeaseRow.hotkey == write.caller.hotkey, LeaseRow.state == "active")
                .order_by(col(LeaseRow.fencing))
                .limit(count)
            )
            rows = list(tx.session.exec(held))
            while len(rows) < count and (task_id := _draw(tx, write.caller, head)) is not None:
                rows.append(self._grant(tx, task_id, write.caller, head))
            return Leases(leases=tuple(_noun(tx, row) for row in rows))

        return self._transactions.once(write, Leases, act)

    def heartbeat(self, write: Write, lease_id: str, fencing: int, progress: Mapping[str, int]) -> Heartbeat:
        """Keeps a lease alive for lease_seconds from now, at most until its deadline.

        An expired lease stays expired; its holder is told to stop only once a late submission would be refused.
        Raises NotFound, Forbidden for another's lease, Conflict for a stale fencing token or a finished lease.
        """

        def act(tx: Transaction) -> Heartbeat:
            self._expire(tx)
            lease = _own_lease(tx, write.caller, lease_id, fencing)
            if lease.state in ("submitted", "released"):
                raise Conflict(f"the lease is {lease.state} already")
            lease.heartbeat_at = tx.now
            lease.progress = canonical_json(dict(progress)).decode()
            if lease.state == "active":
                lease.expires_at = min(tx.now + _micros(self._settings.lease_seconds), lease.deadline_at)
            cancel = lease.state == "expired" and not _has_slot(tx, lease.task_id)
            tx.note("server.heartbeat", lease, progress=dict(progress), cancel=cancel)
            return Heartbeat(expires_at=moment(lease.expires_at), cancel=cancel)

        return self._transactions.once(write, Heartbeat, act)

    def release(self, write: Write, lease_id: str, fencing: int) -> Lease:
        """Gives a lease back: another miner may take its slot. Released twice is released. Raises as `heartbeat`."""

        def act(tx: Transaction) -> Lease:
            self._expire(tx)
            lease = _own_lease(tx, write.caller, lease_id, fencing)
            if lease.state in ("submitted", "expired"):
                raise Conflict(f"the lease is {lease.state} already")
            if lease.state == "active":
                lease.state = "released"
                _return_slot(tx, lease.task_id)
                tx.note("server.released", lease)
            return _noun(tx, lease)

        return self._transactions.once(write, Lease, act)

    def submit(self, write: Write, submission: Submission) -> SubmissionView:
        """Records what a lease came to; the same submission again is answered as the first time.

        A submission after the lease expired is accepted while the task has a free slot. Raises NotFound, Forbidden
        for another's lease, BadInput for a manifest of another task or dataset, Conflict for a stale fencing token,
        a released lease, a second and different submission, or a task whose slots are taken.
        """
        body = submission.canonical().decode()

        def act(tx: Transaction) -> SubmissionView:
            self._expire(tx)
            lease = _own_lease(tx, write.caller, submission.lease_id, submission.fencing)
            _check_manifest(submission, lease, tx.session.get_one(TaskRow, lease.task_id))
            if lease.state == "submitted":
                earlier = tx.session.exec(select(SubmissionRow).where(SubmissionRow.lease_id == lease.id)).one()
                if earlier.body != body:
                    raise Conflict("the lease has another submission already")
                return earlier.view(revealed=True)
            late = lease.state == "expired"
            if lease.state == "released" or (late and not _take_slot(tx, lease.task_id)):
                raise Conflict(f"the lease is {lease.state}, and its slot is gone", remedy="claim another task")
            lease.state = "submitted"
            row = SubmissionRow.of(submission, lease, submitted_at=tx.now, late=late)
            tx.session.add(row)
            tx.note("server.submitted", lease, late=late, rows=row.rows, tokens=row.tokens)
            return row.view(revealed=True)

        return self._transactions.once(write, SubmissionView, act)

    def post_sheet(self, write: Write, signed: SignedSheet) -> Receipt:
        """Keeps a validator's score sheet; one that is kept already is not kept twice.

        Raises Forbidden without a validator permit, for a sheet in another's name or about work of one's own,
        Unauthorized unless the signature covers the sheet, NotFound for an unknown task.
        """
        sheet = signed.sheet
        if not write.caller.validator_permit:
            raise Forbidden("score sheets are for validators with a permit")
        if sheet.validator != write.caller.hotkey:
            raise Forbidden("the sheet is in another validator's name")
        verify(sheet.validator, sheet.canonical(), signed.signature)
        receipt = Receipt(sha256=sheet.digest())

        def act(tx: Transaction) -> Receipt:
            if tx.session.get(TaskRow, sheet.task_id) is None:
                raise NotFound(f"no task {sheet.task_id}")
            scored = select(LeaseRow.coldkey).where(LeaseRow.task_id == sheet.task_id, LeaseRow.hotkey == sheet.hotkey)
            if sheet.hotkey == write.caller.hotkey or tx.session.exec(scored).first() == write.caller.coldkey:
                raise Forbidden("nobody scores their own work")
            if tx.session.exec(select(SheetRow.digest).where(SheetRow.digest == receipt.sha256)).first() is None:
                tx.session.add(SheetRow.of(signed, received_at=tx.now))
                about = {"task": sheet.task_id, "hotkey": sheet.hotkey, "validator": sheet.validator}
                tx.events.append(("server.scored", {**about, "outcome": sheet.outcome}))
            return receipt

        return self._transactions.once(write, Receipt, act)

    def post_release(self, write: Write, signed: SignedRelease) -> Receipt:
        """Keeps the announcement of a model; one that is kept already is not kept twice.

        Raises Forbidden for a release in another's name, Unauthorized unless the signature covers it, Conflict when
        the trainer used the version for another release.
        """
        release = signed.release
        if release.trainer != write.caller.hotkey:
            raise Forbidden("the release is in another trainer's name")
        verify(release.trainer, release.canonical(), signed.signature)
        receipt = Receipt(sha256=release.digest())

        def act(tx: Transaction) -> Receipt:
            same_version = select(ReleaseRow.digest).where(
                ReleaseRow.trainer == release.trainer,
                ReleaseRow.name == release.name,
                ReleaseRow.version == release.version,
            )
            kept = tx.session.exec(same_version).first()
            if kept is None:
                tx.session.add(ReleaseRow.of(signed, received_at=tx.now))
                tx.events.append(("server.announced", {"name": release.name, "version": release.version}))
            elif kept != receipt.sha256:
                raise Conflict(f"{release.name} {release.version} is another release", remedy="raise the version")
            return receipt

        return self._transactions.once(write, Receipt, act)

    def expire(self) -> None:
        """Records leases that ran out, for those who watch: a claim finds them by itself."""
        with self._transactions.begin() as tx:
            self._expire(tx)

    def forget_replies(self) -> None:
        self._transactions.forget()

    def audits_due(self, head_block: int) -> list[int]:
        """Blocks up to the head whose hashes settle audit draws."""
        with self._transactions.begin() as tx:
            drawn_by_now = col(TaskRow.audit_block) <= head_block
            due = select(TaskRow.audit_block).where(col(TaskRow.audited).is_(None), drawn_by_now)
            return sorted({block for block in tx.session.exec(due) if block is not None})

    def settle_audits(self, block_hashes: Mapping[int, str]) -> None:
        """Draws which of the tasks first leased just before these blocks get audit duplicates."""
        share = self._settings.audit_share
        with self._transactions.begin() as tx:
            waiting = select(TaskRow).where(
                col(TaskRow.audited).is_(None), col(TaskRow.audit_block).in_(block_hashes.keys())
            )
            for task in tx.session.exec(waiting):
                assert task.audit_block is not None
                task.audited = is_audited(block_hashes[task.audit_block], task.id, share)
                task.slots += AUDIT_COPIES if task.audited else 0

    def _grant(self, tx: Transaction, task_id: str, caller: Neuron, head: Head) -> LeaseRow:
        if not _take_slot(tx, task_id):
            raise Unavailable("another claim took the task first")
        task = tx.session.get_one(TaskRow, task_id)
        if task.audit_block is None:
            task.audit_block = head.number + 1
        deadline_at = tx.now + _micros(self._settings.deadline_seconds)
        lease = LeaseRow(
            id=blake2b(f"{task_id}{caller.hotkey}".encode(), digest_size=16).hexdigest(),
            task_id=task_id,
            hotkey=caller.hotkey,
            coldkey=caller.coldkey,
            state="active",
            audit=bool(task.audited) and task.slots < AUDIT_COPIES,
            issued_at=tx.now,
            heartbeat_at=tx.now,
            expires_at=tx.now + _micros(self._settings.lease_seconds),
            deadline_at=deadline_at,
            issued_block=head.number,
            deadline_block=head.number + math.ceil(self._settings.deadline_seconds / self._settings.block_seconds),
        )
        tx.session.add(lease)
        tx.session.flush()  # gives the fencing token
        tx.note("server.leased", lease, block=head.number, audit=lease.audit)
        return lease

    def _expire(self, tx: Transaction) -> None:
        """Must be a transaction's first statement: rows loaded before it would be stale."""
        overdue = select(LeaseRow).where(LeaseRow.state == "active", LeaseRow.expires_at <= tx.now)
        for lease in tx.session.exec(overdue):
            lease.state = "expired"
            _return_slot(tx, lease.task_id)
            tx.note("server.expired", lease)
        tx.session.flush()


def _draw(tx: Transaction, caller: Neuron, head: Head) -> str | None:
    """The first eligible task in the public order of draws (athena.leasing), or None when no task is eligible."""
    listed = (
        select(TaskRow.position)
        .where(TaskRow.opened_block <= head.number)
        .order_by(col(TaskRow.opened_block).desc(), col(TaskRow.position).desc())
        .limit(1)
    )
    last = tx.session.exec(listed).first()
    if last is None:
        return None
    drawn = list(islice(lease_positions(head.hash, caller.hotkey, last + 1), MAX_DRAWS))
    distinct = list(dict.fromkeys(drawn))
    eligible = _eligible(caller)
    for start in range(0, len(distinct), DRAWS_PER_QUERY):
        some = distinct[start : start + DRAWS_PER_QUERY]
        found = select(TaskRow.position, TaskRow.id).where(col(TaskRow.position).in_(some), eligible)
        by_position = dict(tx.session.exec(found).all())
        for position in some:
            if position in by_position:
                return by_position[position]
    for span in (TaskRow.position > drawn[-1], TaskRow.position <= drawn[-1]):
        walk = select(TaskRow.id).where(span, TaskRow.position <= last, eligible).order_by(col(TaskRow.position))
        task_id = tx.session.exec(walk.limit(1)).first()
        if task_id is not None:
            return task_id
    return None


def _eligible(caller: Neuron) -> ColumnElement[bool]:
    """A free slot, and never a lease of this hotkey or its coldkey."""
    own = or_(col(LeaseRow.hotkey) == caller.hotkey, col(LeaseRow.coldkey) == caller.coldkey)
    return and_(col(TaskRow.slots) > 0, ~exists().where(col(LeaseRow.task_id) == col(TaskRow.id), own))


def _own_lease(tx: Transaction, caller: Neuron, lease_id: str, fencing: int) -> LeaseRow:
    lease = tx.session.exec(select(LeaseRow).where(LeaseRow.id == lease_id)).first()
    if lease is None:
        raise NotFound(f"no lease {lease_id}")
    if lease.hotkey != caller.hotkey:
        raise Forbidden("the lease is another miner's")
    if lease.fencing != fencing:
        raise Conflict("the fencing token is not this lease's", remedy="claim again to see the leases that you hold")
    return lease


def _check_manifest(submission: Submission, lease: LeaseRow, task: TaskRow) -> None:
    manifest = submission.manifest
    for name, stated, expected in (
        ("task", manifest.task_id, lease.task_id),
        ("hotkey", manifest.hotkey, lease.hotkey),
        ("rule version", manifest.rule_version, task.rule_version),
        ("Merkle root", manifest.root, submission.dataset.root),
    ):
        if stated != expected:
            raise BadInput(f"the manifest names {name} {stated}, not {expected}")


def _has_slot(tx: Transaction, task_id: str) -> bool:
    return tx.session.exec(select(TaskRow.slots).where(TaskRow.id == task_id)).one() > 0


def _take_slot(tx: Transaction, task_id: str) -> bool:
    """One conditional statement, so that two writers can never take the same slot, whatever the database."""
    free = update(TaskRow).where(col(TaskRow.id) == task_id, col(TaskRow.slots) > 0)
    taken = tx.session.execute(free.values(slots=TaskRow.slots - 1).returning(col(TaskRow.id)))
    return taken.first() is not None


def _return_slot(tx: Transaction, task_id: str) -> None:
    tx.session.execute(update(TaskRow).where(col(TaskRow.id) == task_id).values(slots=TaskRow.slots + 1))


def _noun(tx: Transaction, lease: LeaseRow) -> Lease:
    task = tx.session.get_one(TaskRow, lease.task_id)
    return lease.noun(task.noun(tx.session.get_one(ShardRow, task.shard_id)), tx.now)


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
