"""Miners' writes: claim, heartbeat, release, submit. And what time itself changes: expiries and audit draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, insert, select, update
from sqlmodel import col

from athena.chain.auth import MAX_AGE_SECONDS, MAX_SKEW_SECONDS
from athena.errors import BadInput, Conflict
from athena.leasing import AUDIT_COPIES, is_audited
from athena.protocol import Lease, Manifest, Submission, canonical_json
from athena.wire import Heartbeat, Leases, SubmissionView
from task_server import accounts, leases
from task_server.books import CanaryRow
from task_server.columns import moment, table_of
from task_server.drawing import draw
from task_server.prepared import Prepared
from task_server.quota import Account, QuotaSpent
from task_server.settings import TaskServerSettings
from task_server.store import Store
from task_server.tables import SubmissionRow, TaskRow, lease_noun
from task_server.transaction import SECOND, Body, Reply, Transaction, Write, forget, once, spend

if TYPE_CHECKING:
    from athena.chain.client import Head

SWEEP_MICROS = SECOND  # a claim looks for leases that ran out if this process has not for so long
# Twice the window in which a signature is fresh, for a clock that steps back.
NONCE_SECONDS = 2 * (MAX_AGE_SECONDS + MAX_SKEW_SECONDS)

_SUBMISSIONS = table_of(SubmissionRow)
_SUBMISSION_OF = Prepared(select(_SUBMISSIONS).where(_SUBMISSIONS.c.lease_id == bindparam("lease")))
_SUBMIT = Prepared(insert(_SUBMISSIONS))
_TERMS = Prepared(
    select(col(TaskRow.rule_version), col(TaskRow.slots), col(TaskRow.closed)).where(
        col(TaskRow.id) == bindparam("task")
    )
)
_CANARY = Prepared(select(col(CanaryRow.manifest)).where(col(CanaryRow.task_id) == bindparam("task")))
_AUDITS_DUE = (
    select(col(TaskRow.audit_block))
    .where(col(TaskRow.audited).is_(None), col(TaskRow.audit_block) <= bindparam("head"))
    .distinct()
)
_WAITING = select(col(TaskRow.id), col(TaskRow.audit_block)).where(
    col(TaskRow.audited).is_(None), col(TaskRow.audit_block).in_(bindparam("blocks", expanding=True))
)
_AUDIT = (
    update(TaskRow)
    .where(col(TaskRow.id) == bindparam("task"), col(TaskRow.audited).is_(None))
    .values(
        audited=bindparam("drawn"), slots=TaskRow.slots + bindparam("more"), copies=TaskRow.copies + bindparam("more")
    )
)


class Ledger:
    """Who signed a request is established before it gets here.

    Verbs that take a `Write` are idempotent by its key, and give the future of the reply. It raises BadInput when the
    key belongs to another request, Unauthorized when the signature was used before, Forbidden for a barred coldkey,
    Unavailable when the database is busy; beside what each verb names.
    """

    def __init__(self, store: Store, settings: TaskServerSettings) -> None:
        self._store = store
        self._settings = settings
        self._sweep_at = 0

    def claim(self, write: Write, count: int, head: Head) -> Future[Reply[Leases]]:
        """The caller's active leases, oldest first, topped up to `count` by the draws of `head`.

        QuotaSpent when the caller holds none and may not take one now.
        """

        def act(tx: Transaction) -> Reply[Leases]:
            account = accounts.callers(tx, write.caller.coldkey, self._settings.initial_quota)
            return once(tx, write.asked, Leases, lambda: self._claim(tx, write, account, count, head))

        return self._store.submit(act, first=spend(write))

    def heartbeat(
        self, write: Write, lease_id: str, fencing: int, progress: Mapping[str, int]
    ) -> Future[Reply[Heartbeat]]:
        """Keeps a lease alive for lease_seconds from now, at most until its deadline.

        An expired lease stays expired; its holder is told to stop once a submission would not be paid. NotFound,
        Forbidden for another's lease, Conflict for a stale fencing token or a finished lease.
        """

        def beat(tx: Transaction) -> Heartbeat:
            lease = self._own(tx, write, lease_id, fencing)
            if lease.state in ("submitted", "released"):
                raise Conflict(f"the lease is {lease.state} already")
            expires_at = lease.expires_at
            if lease.state == "active":
                expires_at = min(tx.now + round(self._settings.lease_seconds * SECOND), lease.deadline_at)
            leases.beat(tx, lease, expires_at, canonical_json(dict(progress)).decode())
            terms = _TERMS.one(tx.connection, task=lease.task_id)
            cancel = terms.closed or (lease.state == "expired" and terms.slots < 1)
            tx.note(
                "heartbeat", task=lease.task_id, hotkey=lease.hotkey, lease=lease.id, fencing=lease.fencing,
                progress=dict(progress), cancel=cancel,
            )  # fmt: skip
            return Heartbeat(expires_at=moment(expires_at), cancel=cancel)

        return self._about_own_lease(write, Heartbeat, beat)

    def release(self, write: Write, lease_id: str, fencing: int) -> Future[Reply[Lease]]:
        """Gives a lease back: another miner may take its slot. Released twice is released. Raises as `heartbeat`."""

        def release(tx: Transaction) -> Lease:
            lease = self._own(tx, write, lease_id, fencing)
            if lease.state in ("submitted", "expired"):
                raise Conflict(f"the lease is {lease.state} already")
            if lease.state == "active":
                leases.set_state(tx, lease, "released")
                leases.return_slot(tx, lease.task_id)
                leases.record(tx, "released", lease)
                lease = self._own(tx, write, lease_id, fencing)
            return lease_noun(lease, leases.task_of(tx, lease.task_id), tx.now)

        return self._about_own_lease(write, Lease, release)

    def submit(self, write: Write, submission: Submission) -> Future[Reply[SubmissionView]]:
        """Records what a lease came to; the same submission again is answered as the first time.

        One that comes after the lease expired is accepted while its task has a free slot; else it is kept, unpaid.
        NotFound, Forbidden for another's lease, BadInput for a manifest of another task or dataset, Conflict for a
        stale fencing token, a released lease, or a second and different submission.
        """

        def submit(tx: Transaction) -> SubmissionView:
            lease = self._own(tx, write, submission.lease_id, submission.fencing)
            terms = _TERMS.one(tx.connection, task=lease.task_id)
            _check_manifest(submission, lease, terms.rule_version)
            earlier = _SUBMISSION_OF.first(tx.connection, lease=lease.id)
            if earlier is not None:
                if earlier.body != submission.canonical().decode():
                    raise Conflict("the lease has another submission already")
                return SubmissionRow(**earlier._asdict()).view(revealed=True)
            if lease.state == "released":
                raise Conflict("the lease was released", remedy="claim another task")
            return self._keep(tx, submission, lease)

        return self._about_own_lease(write, SubmissionView, submit)

    def tidy(self) -> Future[None]:
        """Records leases that ran out, for those who watch, and forgets spent nonces and old replies."""

        def act(tx: Transaction) -> None:
            leases.expire_overdue(tx, self._settings)
            forget(tx, NONCE_SECONDS)

        return self._store.submit(act)

    def audits_due(self, head_block: int) -> list[int]:
        """Blocks up to the head whose hashes settle audit draws."""
        with self._store.read() as session:
            due = session.connection().execute(_AUDITS_DUE, {"head": head_block})
            return sorted(block for (block,) in due if block is not None)

    def settle_audits(self, block_hashes: Mapping[int, str]) -> Future[None]:
        """Draws which of the tasks first leased just before these blocks get audit duplicates."""

        def act(tx: Transaction) -> None:
            waiting = tx.connection.execute(_WAITING, {"blocks": sorted(block_hashes)}).all()
            for task_id, block in sorted(waiting, key=lambda task: task.id):  # in the order in which a sweep takes them
                assert block is not None
                drawn = is_audited(block_hashes[block], task_id, self._settings.audit_share)
                more = AUDIT_COPIES if drawn else 0
                settled = tx.connection.execute(_AUDIT, {"task": task_id, "drawn": drawn, "more": more})
                if settled.rowcount == 1:
                    tx.record("audited", task=task_id, block=block, more=more)

        return self._store.submit(act)

    def _claim(self, tx: Transaction, write: Write, account: Account, count: int, head: Head) -> Leases:
        terms = self._settings
        rows = leases.held(tx, write.caller.hotkey, count)
        num_held = len(rows)
        if not rows:
            account.charged()  # raises before the sweep, which would be undone with the claim
        if tx.now >= self._sweep_at:
            self._sweep_at = tx.now + SWEEP_MICROS
            account = self._swept(tx, account)
        new_copies = terms.new_miner_copies if account.streak < terms.trusted_after else 0
        while len(rows) < count:
            try:
                charged = account.charged()
            except QuotaSpent:
                break
            drawn = draw(tx, write.caller, head, new_copies)
            if drawn is None:
                break
            account = charged
            rows.append(leases.issue(tx, drawn, write.caller, head, terms))
        if len(rows) > num_held:
            accounts.save(tx, account)
        return Leases(leases=tuple(lease_noun(row, leases.task_of(tx, row.task_id), tx.now) for row in rows))

    def _swept(self, tx: Transaction, account: Account) -> Account:
        """Ends leases that ran out; the caller's account as it is then."""
        if account.coldkey in leases.expire_overdue(tx, self._settings):
            return accounts.locked(tx, account.coldkey, self._settings.initial_quota)
        return account

    def _own(self, tx: Transaction, write: Write, lease_id: str, fencing: int) -> leases.LeaseLine:
        """The caller's lease, its expiry recorded if it ran out."""
        lease = leases.own(tx, write.caller, lease_id, fencing)
        if lease.state == "active" and lease.expires_at <= tx.now:
            leases.expire(tx, lease, self._settings)
            lease = leases.own(tx, write.caller, lease_id, fencing)
        return lease

    def _keep(self, tx: Transaction, submission: Submission, lease: leases.LeaseLine) -> SubmissionView:
        late = lease.state == "expired"
        accepted = not late or leases.take_slot(tx, lease.task_id)
        row = SubmissionRow.of(submission, lease, submitted_at=tx.now, late=late, accepted=accepted)
        row.canary_passed = self._canary_passed(tx, submission, lease)
        _SUBMIT.run(tx.connection, **row.model_dump(exclude={"sequence"}))
        if accepted:
            leases.set_state(tx, lease, "submitted")
        leases.record(
            tx, "submitted", lease,
            late=late, accepted=accepted, rows=row.rows, tokens=row.tokens, sha256=submission.digest(),
        )  # fmt: skip
        return row.view(revealed=True)

    def _canary_passed(self, tx: Transaction, submission: Submission, lease: leases.LeaseLine) -> bool | None:
        """Null for a task whose output is not known; a submission that contradicts it lowers its miner's quota."""
        known = _CANARY.first(tx.connection, task=lease.task_id)
        if known is None:
            return None
        passed = _agrees(submission.manifest, Manifest.model_validate_json(known.manifest))
        if not passed:
            account = accounts.locked(tx, lease.coldkey, self._settings.initial_quota)
            accounts.save(tx, account.punished())
        return passed

    def _about_own_lease(
        self, write: Write, kind: type[Body], verb: Callable[[Transaction], Body]
    ) -> Future[Reply[Body]]:
        def act(tx: Transaction) -> Reply[Body]:
            accounts.callers(tx, write.caller.coldkey, self._settings.initial_quota)
            return once(tx, write.asked, kind, lambda: verb(tx))

        return self._store.submit(act, first=spend(write))


def _check_manifest(submission: Submission, lease: leases.LeaseLine, rule_version: str) -> None:
    manifest = submission.manifest
    for name, stated, expected in (
        ("task", manifest.task_id, lease.task_id),
        ("hotkey", manifest.hotkey, lease.hotkey),
        ("rule version", manifest.rule_version, rule_version),
        ("Merkle root", manifest.root, submission.dataset.root),
    ):
        if stated != expected:
            raise BadInput(f"the manifest names {name} {stated}, not {expected}")


def _agrees(manifest: Manifest, known: Manifest) -> bool:
    """Whether a manifest fits what is known of the task's output.

    Every recipe meets the same records. The same recipe makes the same counts; its root differs, as it covers the
    hotkey.
    """
    if manifest.recipe.hash != known.recipe.hash:
        return manifest.records == known.records
    return all(getattr(manifest, name) == getattr(known, name) for name in ("records", "rows", "tokens", "rejected"))
