"""Who sent a write: proven by signature, registered on the subnet, and never accepted before."""

from __future__ import annotations

import hashlib
import time
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlmodel import col

from athena.chain.auth import MAX_AGE_SECONDS, MAX_SKEW_SECONDS, verify_request
from athena.wire import IDEMPOTENCY_KEY
from task_server.database import Database
from task_server.membership import Membership
from task_server.tables import NonceRow
from task_server.transaction import Write


class MemberNonces:
    """The requests that were accepted, in the database: every worker and every restart knows them.

    Only members' requests are stored, or anyone with a fresh key could keep the server writing: `check_and_store`
    raises Forbidden for a hotkey that is not registered.
    """

    def __init__(self, database: Database, membership: Membership) -> None:
        self._database = database
        self._membership = membership

    def check_and_store(self, hotkey: str, nonce_ns: int) -> bool:
        self._membership.member(hotkey)
        try:
            with self._database.write() as session:
                session.add(NonceRow(hotkey=hotkey, nonce_ns=nonce_ns))
        except IntegrityError:
            return False
        return True

    def forget_stale(self) -> None:
        """Drops what `verify_request` refuses as stale; after twice its window, for a clock that steps back."""
        oldest = time.time_ns() - round(2e9 * (MAX_AGE_SECONDS + MAX_SKEW_SECONDS))
        with self._database.write() as session:
            session.execute(delete(NonceRow).where(col(NonceRow.nonce_ns) < oldest))


async def _raw_body(request: Request) -> bytes:
    return await request.body()


class Gate:
    """The dependency of every write: gives its sender, its idempotency key and its digest.

    Raises Unauthorized, Forbidden for a hotkey that is not registered, Unavailable without a recent view of the chain.
    """

    def __init__(self, receiver: str, membership: Membership, nonces: MemberNonces) -> None:
        self._receiver = receiver
        self._membership = membership
        self._nonces = nonces

    def __call__(
        self,
        request: Request,
        body: Annotated[bytes, Depends(_raw_body)],
        key: Annotated[str, Header(alias=IDEMPOTENCY_KEY, pattern=r"^[\x21-\x7e]{8,128}$")],
    ) -> Write:
        query = request.scope["query_string"].decode("ascii")
        target = request.scope["raw_path"].decode("ascii") + (f"?{query}" if query else "")
        hotkey = verify_request(
            request.headers, body, method=request.method, target=target, receiver=self._receiver, nonces=self._nonces
        )
        asked = f"{request.method}\n{target}\n".encode() + body
        return Write(self._membership.member(hotkey), key, hashlib.sha256(asked).hexdigest())
