"""How often one party may ask: counted per address before anything else, and per hotkey once it is proven."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from ipaddress import IPv6Address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from athena.errors import RateLimited
from task_server.edge import render

MINUTE = 60.0
_ROUNDING = 1e-6  # of a request
_STATE = "athena.limit"
_NETWORK_BYTES = 8  # of an IPv6 address: whoever has one has the 2^64 of its network


class Allowance:
    """So many requests a minute for each of any number of parties: as many at once, refilled evenly.

    Kept in this process's memory: a deployment of n processes allows up to n times as much. For one thread.
    """

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._interval = MINUTE / per_minute
        self._monotonic = monotonic
        # When each party's allowance is full again. It is at most a minute away, so of two generations that change
        # every minute the older may be dropped.
        self._full_at: dict[str, float] = {}
        self._older: dict[str, float] = {}
        self._change_at = 0.0

    def spend(self, who: str) -> tuple[int, float, float]:
        """Takes one request: how many are left, seconds until all are back, and to wait if this one was too many."""
        now = self._monotonic()
        if now >= self._change_at:
            self._full_at, self._older = {}, self._full_at if now < self._change_at + MINUTE else {}
            self._change_at = now + MINUTE
        full_at = self._full_at.get(who) or self._older.get(who, now)
        after = max(full_at, now) + self._interval
        excess = after - now - MINUTE
        if excess > _ROUNDING * self._interval:
            return 0, after - self._interval - now, excess
        self._full_at[who] = after
        return math.floor(_ROUNDING - excess / self._interval), after - now, 0.0


class Limits:
    """What one address, and one hotkey, may send."""

    def __init__(self, requests_per_minute: int, writes_per_minute: int) -> None:
        self._requests_per_minute = requests_per_minute
        self._writes_per_minute = writes_per_minute
        self._by_address = Allowance(requests_per_minute)
        self._by_hotkey = Allowance(writes_per_minute)

    def count_address(self, scope: Scope) -> None:
        """Raises RateLimited when the client's address has asked too often."""
        client = scope.get("client")
        spent = self._by_address.spend(_network(client[0]) if client else "")
        _tell(scope, self._requests_per_minute, *spent)

    def count_member(self, scope: Scope, hotkey: str) -> None:
        """Raises RateLimited when the hotkey has asked too often."""
        _tell(scope, self._writes_per_minute, *self._by_hotkey.spend(hotkey))


def _tell(scope: Scope, limit: int, remaining: int, reset_seconds: float, wait_seconds: float) -> None:
    scope[_STATE] = [
        (b"ratelimit-limit", b"%d" % limit),
        (b"ratelimit-remaining", b"%d" % remaining),
        (b"ratelimit-reset", b"%d" % math.ceil(reset_seconds)),
    ]
    if wait_seconds:
        raise RateLimited(f"more than {limit} requests a minute", retry_after_seconds=wait_seconds)


def _network(address: str) -> str:
    """Who an address stands for: itself, or the network that an IPv6 address lies in."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address)
    except ValueError:  # what a proxy in front makes of an address
        return address
    return str(parsed.ipv4_mapped or parsed.packed[:_NETWORK_BYTES].hex())


class RateLimit:
    """ASGI middleware: refuses an address that asks too often, and tells everyone else what is left (RateLimit-*)."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *scope.get(_STATE, ())]
            await send(message)

        try:
            self._limits.count_address(scope)
        except RateLimited as error:
            await render(error)(scope, receive, telling)
            return
        await self._app(scope, receive, telling)
