"""What the server's operator may change: crawls, tasks, bans, opt-outs, canaries, and the keys that allow it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from concurrent.futures import Future
from typing import Literal, get_args

from sqlalchemy import bindparam, insert, select, update
from sqlmodel import col

from athena.errors import Conflict, Forbidden, NotFound, Unauthorized
from athena.protocol import Manifest
from athena.wire import AskOptOut, Ban, CrawlView, OpenCrawl, OptOut, TaskView
from task_server import accounts, leases
from task_server.books import ApiKeyRow, CanaryRow, OptOutRow
from task_server.columns import table_of
from task_server.crawl import Opening, request_crawl
from task_server.settings import TaskServerSettings
from task_server.store import Store
from task_server.tables import TaskRow
from task_server.transaction import Asked, Reply, Transaction, once

Scope = Literal["crawls", "tasks", "bans", "opt-outs"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
KEY_PREFIX = "ath_"
_ID_CHARACTERS = 8

_KEYS = table_of(ApiKeyRow)
_VALID = (_KEYS.c.id == bindparam("named"), _KEYS.c.revoked_at.is_(None))
_KEY = select(_KEYS).where(*_VALID)
_REVOKE = update(_KEYS).where(*_VALID).values(revoked_at=bindparam("at"))
_TASK = select(TaskRow).where(col(TaskRow.id) == bindparam("task")).with_for_update(key_share=True)
_CLOSE = update(TaskRow).where(col(TaskRow.id) == bindparam("task")).values(closed=True)
_OPT_OUTS = table_of(OptOutRow)
_LISTED = (
    select(_OPT_OUTS)
    .where(_OPT_OUTS.c.domain == bindparam("of"), _OPT_OUTS.c.until_block.is_(None))
    .with_for_update(key_share=True)
)
_WITHDRAW = update(_OPT_OUTS).where(_OPT_OUTS.c.sequence == bindparam("of")).values(until_block=bindparam("until"))


class Operators:
    """Who asks is established before it gets here. Verbs that take an `Asked` are idempotent by its key."""

    def __init__(self, store: Store, settings: TaskServerSettings) -> None:
        self._store = store
        self._settings = settings

    def create_key(self, scopes: tuple[Scope, ...], note: str) -> str:
        """A new API key. It is shown once: only its hash is kept."""
        secret = secrets.token_urlsafe(32)
        key_id = hashlib.sha256(secret.encode()).hexdigest()[:_ID_CHARACTERS]

        def act(tx: Transaction) -> None:
            tx.connection.execute(
                insert(_KEYS),
                {
                    "id": key_id,
                    "sha256": _hash(secret),
                    "scopes": " ".join(scopes),
                    "note": note,
                    "created_at": tx.now,
                },
            )
            tx.record("key-created", id=key_id, scopes=list(scopes))

        self._store.submit(act).result()
        return f"{KEY_PREFIX}{key_id}_{secret}"

    def revoke_key(self, key_id: str) -> None:
        """Raises NotFound for a key that does not exist, or no longer."""

        def act(tx: Transaction) -> None:
            if tx.connection.execute(_REVOKE, {"named": key_id, "at": tx.now}).rowcount != 1:
                raise NotFound(f"no key {key_id}")
            tx.record("key-revoked", id=key_id)

        self._store.submit(act).result()

    def list_keys(self) -> list[ApiKeyRow]:
        with self._store.read() as session:
            return [ApiKeyRow(**row._mapping) for row in session.connection().execute(select(_KEYS))]

    async def named(self, credentials: str, scope: Scope) -> str:
        """The name of the key in `credentials`, such as key:1a2b3c4d. Raises Unauthorized, or Forbidden."""
        key_id, _, secret = credentials.removeprefix(KEY_PREFIX).partition("_")
        key = await asyncio.to_thread(self._find, key_id)
        # Compared in constant time, and against something even where there is no such key.
        if not hmac.compare_digest(_hash(secret), key.sha256 if key else _hash("")) or key is None:
            raise Unauthorized("no such API key")
        if scope not in key.scopes.split():
            raise Forbidden(f"the key does not have the scope {scope}")
        return f"key:{key.id}"

    def request_crawl(self, asked: Asked, wish: OpenCrawl, head_block: int) -> Future[Reply[CrawlView]]:
        """Has the servers import a crawl soon. BadInput for an address that they cannot fetch from."""
        opening = Opening(
            crawl=wish.crawl,
            crawl_url=wish.crawl_url or self._settings.crawl_url,
            warcs_per_shard=wish.warcs_per_shard,
            rule_version=self._settings.rule_version,
            replication=wish.replication or self._settings.replication,
            opened_block=head_block,
            limit_warcs=wish.limit_warcs,
        )
        return self._store.submit(lambda tx: once(tx, asked, CrawlView, lambda: request_crawl(tx, opening)))

    def close_task(self, asked: Asked, task_id: str) -> Future[Reply[TaskView]]:
        """No more leases of the task; holders of active ones are told to stop. Closing twice is closing. NotFound."""

        def close(tx: Transaction) -> TaskView:
            task = tx.connection.execute(_TASK, {"task": task_id}).first()
            if task is None:
                raise NotFound(f"no task {task_id}")
            if not task.closed:
                tx.connection.execute(_CLOSE, {"task": task_id})
                tx.record("closed", task=task_id, by=asked.by)
            return TaskRow(**{**task._mapping, "closed": True}).view(leases.task_of(tx, task_id))

        return self._store.submit(lambda tx: once(tx, asked, TaskView, lambda: close(tx)))

    def ban(self, asked: Asked, ban: Ban) -> Future[Reply[Ban]]:
        """Bars a coldkey from every write, or lifts the ban."""

        def decide(tx: Transaction) -> Ban:
            account = accounts.locked(tx, ban.coldkey, self._settings.initial_quota)
            accounts.save(tx, account.barred(ban.reason))
            if ban.reason is None:
                tx.record("unbanned", coldkey=ban.coldkey, by=asked.by)
            else:
                tx.record("banned", coldkey=ban.coldkey, reason=ban.reason, by=asked.by)
            return ban

        return self._store.submit(lambda tx: once(tx, asked, Ban, lambda: decide(tx)))

    def opt_out(self, asked: Asked, wish: AskOptOut, head_block: int) -> Future[Reply[OptOut]]:
        """Leaves a domain out of work leased from the next block on, or takes it in again.

        A domain that is on the list stays as it is. NotFound when a domain to withdraw is not.
        """

        def decide(tx: Transaction) -> OptOut:
            row = tx.connection.execute(_LISTED, {"of": wish.domain}).first()
            if wish.withdraw:
                if row is None:
                    raise NotFound(f"{wish.domain} is not on the opt-out list")
                until = max(head_block + 1, row.since_block)
                tx.connection.execute(_WITHDRAW, {"of": row.sequence, "until": until})
                tx.record("opted-in", domain=wish.domain, until_block=until, by=asked.by)
                return OptOutRow(**{**row._mapping, "until_block": until}).view()
            if row is not None:
                return OptOutRow(**row._mapping).view()
            since = head_block + 1
            entry = {"domain": wish.domain, "reason": wish.reason, "since_block": since, "added_at": tx.now}
            tx.connection.execute(insert(_OPT_OUTS), entry)
            tx.record("opted-out", domain=wish.domain, since_block=since, reason=wish.reason, by=asked.by)
            return OptOut(domain=wish.domain, reason=wish.reason, since_block=since)

        return self._store.submit(lambda tx: once(tx, asked, OptOut, lambda: decide(tx)))

    def set_canary(self, manifest: Manifest) -> None:
        """Makes the manifest's task a canary: what miners submit is compared with it. NotFound, Conflict."""

        def act(tx: Transaction) -> None:
            if tx.connection.execute(_TASK, {"task": manifest.task_id}).first() is None:
                raise NotFound(f"no task {manifest.task_id}")
            kept = {"task_id": manifest.task_id, "manifest": manifest.canonical().decode(), "set_at": tx.now}
            if not tx.insert_new(CanaryRow, **kept):
                raise Conflict(f"task {manifest.task_id} is a canary already")

        self._store.submit(act).result()

    def _find(self, key_id: str) -> ApiKeyRow | None:
        with self._store.read() as session:
            row = session.connection().execute(_KEY, {"named": key_id}).first()
            return ApiKeyRow(**row._mapping) if row is not None else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
