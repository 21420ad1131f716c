"""Who sent a request: a member of the subnet by its signature, an operator by an API key."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from athena.chain.auth import verify_request
from athena.errors import Unauthorized
from athena.wire import IDEMPOTENCY_KEY
from task_server.limiting import Limits
from task_server.membership import Membership
from task_server.operators import Operators, Scope
from task_server.transaction import Asked, Write

Key = Annotated[
    str,
    Header(
        alias=IDEMPOTENCY_KEY,
        pattern=r"^[\x21-\x7e]{8,128}$",
        description="Names the request: sent again with the same body, it is answered as the first time.",
    ),
]
_BEARER = HTTPBearer(auto_error=False, scheme_name="operator", description="A key made by `athena server key`.")


async def _raw_body(request: Request) -> bytes:
    return await request.body()


RawBody = Annotated[bytes, Depends(_raw_body)]


class Gate:
    """The dependency of every member's write: its sender, idempotency key, digest and nonce.

    Raises Unauthorized, Forbidden for a hotkey that is not registered, Unavailable without a recent view of the
    chain, RateLimited. The nonce is spent with the write itself.
    """

    def __init__(self, receiver: str, membership: Membership, limits: Limits) -> None:
        self._receiver = receiver
        self._membership = membership
        self._limits = limits

    async def __call__(self, request: Request, body: RawBody, key: Key) -> Write:
        target = _target(request)
        proof = verify_request(request.headers, body, method=request.method, target=target, receiver=self._receiver)
        caller = self._membership.member(proof.hotkey)
        self._limits.count_member(request.scope, proof.hotkey)
        return Write(caller, Asked(proof.hotkey, key, _digest(request, target, body)), proof.nonce_ns)


class OperatorGate:
    """The dependency of an operator's write that takes `scope`. Raises Unauthorized, Forbidden without the scope."""

    def __init__(self, operators: Operators, scope: Scope) -> None:
        self._operators = operators
        self._scope = scope

    async def __call__(
        self,
        request: Request,
        body: RawBody,
        key: Key,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    ) -> Asked:
        if bearer is None:
            raise Unauthorized("this takes an operator's API key", remedy="send Authorization: Bearer ath_…")
        operator = await self._operators.named(bearer.credentials, self._scope)
        return Asked(operator, key, _digest(request, _target(request), body))


def _target(request: Request) -> str:
    """The request target as received: still escaped, with the query."""
    query = request.scope["query_string"].decode("ascii")
    path: str = request.scope["raw_path"].decode("ascii")
    return f"{path}?{query}" if query else path


def _digest(request: Request, target: str, body: bytes) -> str:
    return hashlib.sha256(f"{request.method}\n{target}\n".encode() + body).hexdigest()
