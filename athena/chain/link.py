"""The SDK's client on an event loop of its own: every use has a time limit, every failure a type of ours.

The SDK reconnects by itself at the next use after a connection broke; what was under way then fails as Unavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar, TypeVar

import bittensor as bt
from bittensor._transport.errors import StateDiscardedError
from bittensor.settings import default_archive_endpoints, default_fallback_endpoints, resolve_endpoint

from athena.errors import AthenaError, Misconfigured, NotFound, Unavailable

# Reading a subnet of 256 keys takes about 30 requests, which public endpoints answer at one a second.
READ_SECONDS = 120.0
# A shielded extrinsic lives for 8 blocks of 12 s and is final some 3 blocks later: 132 s.
WRITE_SECONDS = 180.0
# Python 3.11 may lose the cancellation that the SDK closes with (cpython issue 86296), so it is asked twice. The second
# limit leaves websockets the 10 s that it gives a silent peer to say goodbye.
CLOSE_SECONDS = (1.0, 15.0)
# What the pool says of an extrinsic that it let go of: nothing is wrong with it, and it may be sent again.
LET_GO = frozenset({"Dropped", "ExhaustsResources", "FinalityTimeout", "PriorityTooLow", "Retracted", "Usurped"})

Value = TypeVar("Value")
log = logging.getLogger(__name__)


class ChainRefused(AthenaError):
    """The chain, or the SDK's check before sending, refused what was asked. Asking again changes nothing by itself.

    `name` is the chain's own error name (`SpaceLimitExceeded`, `HotKeyNotRegisteredInSubNet`), or where the SDK
    stopped it first the SDK's code in capitals (`RATE_LIMITED`, `NOT_REGISTERED`).
    """

    status: ClassVar[int] = 409
    code: ClassVar[str] = "chain-refused"

    def __init__(self, message: str, *, name: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.name = name


class StateGone(NotFound):
    """The node keeps the state of recent blocks only, and was asked for an older one."""

    code: ClassVar[str] = "state-gone"


class Link:
    """One connection to one network: `finney`, `test`, or a ws:// or wss:// address. Nothing is sent before `call`.

    Raises Misconfigured for a network that the SDK does not know.
    """

    def __init__(self, network: str) -> None:
        try:
            self._network, self._endpoint = resolve_endpoint(network)
        except ValueError as error:
            raise Misconfigured(str(error), remedy="use finney, test or a ws:// address") from error
        self._substrate: _Substrate | None = None
        self._client: Any = None  # once it is connected
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._loop.set_exception_handler(_log_quietly)
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name=f"chain {network}", daemon=True)
        self._thread.start()

    def call(self, step: Callable[[Any, Any], Awaitable[Value]], *, seconds: float = READ_SECONDS) -> Value:
        """What `step(client, substrate)` returns, connecting first where needed.

        Raises Unavailable for a fault of the connection or after `seconds`, ChainRefused for a named refusal, and
        Misconfigured where SDK and chain do not understand each other.
        """
        future = asyncio.run_coroutine_threadsafe(self._bounded(step, seconds), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # does nothing to a finished one; a signal may have unwound us before

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def _serve(self) -> None:
        with self._runner:
            self._runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        await self._closing.wait()
        await self._disconnect()

    async def _bounded(self, step: Callable[[Any, Any], Awaitable[Value]], seconds: float) -> Value:
        with _our_errors(self._endpoint):
            try:
                async with asyncio.timeout(seconds):
                    if self._client is None:
                        await self._connect()
                    return await step(self._client, self._substrate)
            except TimeoutError as error:
                await self._disconnect()  # what is silent may stay silent: dial anew at the next use
                raise Unavailable(f"the chain at {self._endpoint} gave no answer in {seconds:g} s") from error

    async def _connect(self) -> None:
        self._substrate = _Substrate(
            self._endpoint,
            fallback_endpoints=default_fallback_endpoints(self._network),
            archive_endpoints=default_archive_endpoints(self._network),
        )
        client = bt.Client(self._network, substrate=self._substrate)
        try:
            await client.connect()
            self._client = client
        finally:
            if self._client is None:
                await self._disconnect()

    async def _disconnect(self) -> None:
        substrate, self._substrate, self._client = self._substrate, None, None
        for connection, seconds in itertools.product(substrate.dialled if substrate else (), CLOSE_SECONDS):
            # AssertionError: the SDK 11.3 trips over its own reason for a connection that the node closed in an
            # orderly way while it owed an answer, and then waits for that answer for ever. So the time limit.
            with contextlib.suppress(TimeoutError, OSError, AssertionError):
                async with asyncio.timeout(seconds):
                    await connection.close()


class _Substrate(bt.RpcSubstrate):  # type: ignore[misc]  # the SDK is untyped to us
    """Keeps all it dials: the SDK forgets, open, a connection whose opening is cut short by a time limit."""

    def __init__(self, endpoint: str, *, fallback_endpoints: list[str], archive_endpoints: list[str]) -> None:
        super().__init__(endpoint, fallback_endpoints=fallback_endpoints, archive_endpoints=archive_endpoints)
        self.dialled: list[Any] = []

    def _interface(self, endpoint: str, fallbacks: list[str]) -> Any:
        connection = super()._interface(endpoint, fallbacks)
        self.dialled.append(connection)
        return connection


@contextlib.contextmanager
def _our_errors(endpoint: str) -> Iterator[None]:
    try:
        yield
    except bt.ChainError as error:
        raise refusal_of(error) from error
    except bt.RpcPolicyError as error:
        raise Unavailable(f"{endpoint} turns us away: {error}", remedy="ask less often, or run a node") from error
    except (bt.RpcConnectionError, bt.ConnectionNotReady, OSError) as error:
        raise Unavailable(f"the chain at {endpoint} cannot be reached: {error}") from error
    except (bt.BittensorError, ValueError) as error:
        raise Misconfigured(
            f"the SDK cannot do this on {endpoint}: {error}", remedy="check the netuid, and pin the SDK to the runtime"
        ) from error


def refusal_of(error: bt.ChainError) -> AthenaError:
    """ChainRefused with the chain's error name, or Unavailable where the error says nothing of the request.

    Without a name the node itself failed (an internal error, an answer cut off half way), unless the SDK classified
    the text. StateGone for a block whose state the node, and the archive behind it where there is one, do not have.
    """
    if isinstance(error.__cause__, StateDiscardedError):
        return StateGone(f"the node has dropped the state: {error}", remedy="ask an archive node")
    if error.name in LET_GO or (error.name is None and error.code is bt.ErrorCode.UNKNOWN):
        return Unavailable(f"the chain did not go through with it: {error}")
    return ChainRefused(str(error), name=str(error.name or error.code.name), remedy=error.remediation)


def _log_quietly(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # The SDK leaves the exception of its connection task for the next caller to meet; asyncio would print it too.
    log.debug("%s", context.get("message"), exc_info=context.get("exception"))
