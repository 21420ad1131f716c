"""What validators and trainers sign and the server keeps: score sheets and announcements of releases."""

from __future__ import annotations

from concurrent.futures import Future

from sqlalchemy import bindparam, select, update
from sqlmodel import col

from athena.chain.wallets import verify
from athena.errors import Conflict, Forbidden, NotFound
from athena.protocol import ScoreSheet, SignedRelease, SignedSheet
from athena.wire import Receipt
from task_server import accounts
from task_server.settings import TaskServerSettings
from task_server.store import Store
from task_server.tables import LeaseRow, ReleaseRow, SheetRow, SubmissionRow
from task_server.transaction import Reply, Transaction, Write, once, spend

_SCORED = select(col(LeaseRow.id), col(LeaseRow.coldkey)).where(
    col(LeaseRow.task_id) == bindparam("task"), col(LeaseRow.hotkey) == bindparam("hotkey")
)
_SAID = (
    select(col(SheetRow.validator), col(SheetRow.outcome), col(SheetRow.stake))
    .where(col(SheetRow.task_id) == bindparam("task"), col(SheetRow.hotkey) == bindparam("hotkey"))
    .order_by(col(SheetRow.sequence))
)
_JUDGED = select(col(SubmissionRow.verdict), col(SubmissionRow.accepted)).where(
    col(SubmissionRow.lease_id) == bindparam("lease")
)
_JUDGE = update(SubmissionRow).where(col(SubmissionRow.lease_id) == bindparam("lease")).values(verdict=bindparam("to"))
_ANNOUNCED = select(col(ReleaseRow.digest)).where(
    col(ReleaseRow.trainer) == bindparam("of"),
    col(ReleaseRow.name) == bindparam("named"),
    col(ReleaseRow.version) == bindparam("as_version"),
)


class Papers:
    """Who signed a request is established before it gets here; who signed a paper is verified here. See Ledger."""

    def __init__(self, store: Store, settings: TaskServerSettings) -> None:
        self._store = store
        self._settings = settings

    def post_sheet(self, write: Write, signed: SignedSheet) -> Future[Reply[Receipt]]:
        """Keeps a validator's score sheet; one that is kept already is not kept twice.

        Raises at once: Forbidden without a validator permit or its stake, for a sheet in another's name or about
        work of one's own; Unauthorized unless the signature covers the sheet. The future: NotFound for a task or
        miner that no lease knows, Forbidden for work of one's own coldkey.
        """
        sheet, caller = signed.sheet, write.caller
        if not caller.validator_permit:
            raise Forbidden("score sheets are for validators with a permit")
        if caller.stake < self._settings.min_validator_stake:
            raise Forbidden(f"score sheets take a stake of {self._settings.min_validator_stake:g} or more")
        if sheet.validator != caller.hotkey:
            raise Forbidden("the sheet is in another validator's name")
        if sheet.hotkey == caller.hotkey:
            raise Forbidden("nobody scores their own work")
        verify(sheet.validator, sheet.canonical(), signed.signature)

        def act(tx: Transaction) -> Reply[Receipt]:
            accounts.admit(tx, caller.coldkey)
            scored = tx.connection.execute(_SCORED, {"task": sheet.task_id, "hotkey": sheet.hotkey}).first()
            if scored is None:
                raise NotFound(f"no lease of task {sheet.task_id} by {sheet.hotkey}")
            if scored.coldkey == caller.coldkey:
                raise Forbidden("nobody scores their own work")
            # Of the miner, not of the validator: one account is all that this transaction holds.
            account = accounts.locked(tx, scored.coldkey, self._settings.initial_quota)

            def keep() -> Receipt:
                row = SheetRow.of(signed, stake=caller.stake, received_at=tx.now)
                if tx.insert_new(SheetRow, **row.model_dump(exclude={"sequence"})):
                    tx.record(
                        "scored", task=sheet.task_id, hotkey=sheet.hotkey, validator=sheet.validator,
                        outcome=sheet.outcome, sha256=row.digest,
                    )  # fmt: skip
                    verdict = self._settle(tx, sheet, scored.id)
                    if verdict == "pass":
                        accounts.save(tx, account.rewarded(self._settings.max_quota))
                    elif verdict == "fail":
                        accounts.save(tx, account.punished())
                return Receipt(sha256=row.digest)

            return once(tx, write.asked, Receipt, keep)

        return self._store.submit(act, first=spend(write))

    def post_release(self, write: Write, signed: SignedRelease) -> Future[Reply[Receipt]]:
        """Keeps the announcement of a model; one that is kept already is not kept twice.

        Raises at once: Forbidden for a release in another's name, Unauthorized unless the signature covers it. The
        future: Conflict when the trainer used the version for another release.
        """
        release = signed.release
        if release.trainer != write.caller.hotkey:
            raise Forbidden("the release is in another trainer's name")
        verify(release.trainer, release.canonical(), signed.signature)

        def act(tx: Transaction) -> Reply[Receipt]:
            accounts.callers(tx, write.caller.coldkey, self._settings.initial_quota)
            return once(tx, write.asked, Receipt, lambda: _announce(tx, signed))

        return self._store.submit(act, first=spend(write))

    def _settle(self, tx: Transaction, sheet: ScoreSheet, lease_id: str) -> str | None:
        """The validators' verdict if this sheet has just changed it; null otherwise.

        Each validator's last word counts, by its stake. Only a greater stake makes a fail; `none` does not count.
        """
        submission = tx.connection.execute(_JUDGED, {"lease": lease_id}).first()
        if submission is None or not submission.accepted:
            return None
        said = tx.connection.execute(_SAID, {"task": sheet.task_id, "hotkey": sheet.hotkey})
        words = {validator: (outcome, stake) for validator, outcome, stake in said if outcome != "none"}
        if not words:
            return None
        passing, failing = (
            sum(stake for outcome, stake in words.values() if outcome == side) for side in ("pass", "fail")
        )
        unanimous = {outcome for outcome, _ in words.values()} == {"fail"}
        verdict = "fail" if failing > passing or unanimous else "pass"
        if verdict == submission.verdict:
            return None
        tx.connection.execute(_JUDGE, {"lease": lease_id, "to": verdict})
        return verdict


def _announce(tx: Transaction, signed: SignedRelease) -> Receipt:
    release = signed.release
    row = ReleaseRow.of(signed, received_at=tx.now)
    named = {"of": release.trainer, "named": release.name, "as_version": release.version}
    kept = tx.connection.execute(_ANNOUNCED, named).scalar()
    if kept is None:
        tx.insert_new(ReleaseRow, **row.model_dump(exclude={"sequence"}))
        tx.record("announced", name=release.name, version=release.version, trainer=release.trainer, sha256=row.digest)
    elif kept != row.digest:
        raise Conflict(f"{release.name} {release.version} is another release", remedy="raise the version")
    return Receipt(sha256=row.digest)
