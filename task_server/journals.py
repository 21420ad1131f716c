"""Journals of releases: what trainers sign of their models' states and aliases, and the table that follows from it."""

from __future__ import annotations

import json
from concurrent.futures import Future

from sqlalchemy import bindparam, select, update
from sqlmodel import col

from athena.chain.wallets import verify
from athena.errors import Conflict, Forbidden
from athena.registry import Registry, SignedEntry
from athena.wire import Receipt
from task_server import accounts
from task_server.settings import TaskServerSettings
from task_server.store import Store
from task_server.tables import JournalRow, VersionRow
from task_server.transaction import Reply, Transaction, Write, once, spend

_ENTRIES = (
    select(col(JournalRow.digest), col(JournalRow.body))
    .where(col(JournalRow.trainer) == bindparam("of"), col(JournalRow.model) == bindparam("named"))
    .order_by(col(JournalRow.number))
)
_OF_VERSION = (
    (col(VersionRow.trainer) == bindparam("of"))
    & (col(VersionRow.model) == bindparam("named"))
    & (col(VersionRow.version) == bindparam("as_version"))
)
_MOVED = ("release", "state", "aliases", "gate", "location", "revision", "changed_at")
_UPDATE = update(VersionRow).where(_OF_VERSION).values({name: bindparam(f"to_{name}") for name in _MOVED})


class Journals:
    """Who signed a request is established before it gets here; who signed an entry is verified here. See Ledger."""

    def __init__(self, store: Store, settings: TaskServerSettings) -> None:
        self._store = store
        self._settings = settings

    def post_entry(self, write: Write, signed: SignedEntry) -> Future[Reply[Receipt]]:
        """Keeps the next entry of a trainer's journal; one that is kept already is not kept twice.

        Raises at once: Forbidden for an entry in another's name, Unauthorized unless the signature covers it. The
        future: Conflict for one that does not follow the last, or that the version's state does not allow.
        """
        entry = signed.entry
        if entry.by != write.caller.hotkey:
            raise Forbidden("the entry is in another trainer's name")
        verify(entry.by, entry.canonical(), signed.signature)

        def act(tx: Transaction) -> Reply[Receipt]:
            accounts.callers(tx, write.caller.coldkey, self._settings.initial_quota)
            return once(tx, write.asked, Receipt, lambda: _keep(tx, signed))

        return self._store.submit(act, first=spend(write))


def _keep(tx: Transaction, signed: SignedEntry) -> Receipt:
    entry, digest = signed.entry, signed.entry.digest()
    before = Registry(entry.model)
    for row in tx.connection.execute(_ENTRIES, {"of": entry.by, "named": entry.model}):
        if row.digest == digest:
            return Receipt(sha256=digest)
        before = before.after(SignedEntry.model_validate_json(row.body).entry)
    after = before.after(entry)
    kept = tx.insert_new(
        JournalRow, digest=digest, trainer=entry.by, model=entry.model, number=entry.number, received_at=tx.now,
        body=signed.canonical().decode(),
    )  # fmt: skip
    if not kept:  # another server of the same ledger was first
        raise Conflict("the entry does not follow the journal's last one", remedy="read the journal again")
    _move(tx, entry.by, before, after)
    tx.record(
        "journaled", name=entry.model, version=entry.version, action=entry.action, trainer=entry.by, sha256=digest
    )
    return Receipt(sha256=digest)


def _move(tx: Transaction, trainer: str, before: Registry, after: Registry) -> None:
    """Brings the table of versions from one state of the registry to the next: only what changed is written."""
    old, new = _rows(before), _rows(after)
    for version, values in new.items():
        if old.get(version) == values:
            continue
        place = {"of": trainer, "named": after.model, "as_version": version}
        moved = {**values, "changed_at": tx.now}
        if version in old:
            tx.connection.execute(_UPDATE, place | {f"to_{name}": value for name, value in moved.items()})
        else:
            tx.insert_new(VersionRow, trainer=trainer, model=after.model, version=version, **moved)


def _rows(registry: Registry) -> dict[str, dict[str, str | None]]:
    aliases = registry.aliases
    return {
        version: {
            "release": standing.release,
            "state": standing.state,
            "aliases": json.dumps([alias for alias, named in aliases.items() if named == version]),
            "gate": standing.gate,
            "location": standing.location,
            "revision": standing.revision,
        }
        for version, standing in registry.standings.items()
    }
