"""JSON-RPC over a websocket: the methods that the SDK and btcli ask of a node.

One `Session` serves one connection; `Node` is what they share. Frames are single requests or batches. A subscriber
that does not read is disconnected rather than waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from athena.chain.devnode import runtime_api
from athena.chain.devnode.block import Block
from athena.chain.devnode.chain import Chain, Produced
from athena.chain.devnode.extrinsics import Invalid, Signed
from athena.errors import BadInput, NotFound

MAX_BATCH = 256
MAX_KEYS = 1000
MAX_UNREAD_NOTIFICATIONS = 4096

_PARSE_ERROR, _INVALID_REQUEST, _METHOD_NOT_FOUND, _INVALID_PARAMS = -32700, -32600, -32601, -32602
_SERVER_ERROR = -32000
_BAD_PARAMS = (BadInput, TypeError, ValueError, OverflowError, AttributeError)


class Node:
    """The chain with everyone who listens to it."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._sessions: set[Session] = set()

    def announce(self, produced: Produced) -> None:
        """Tells subscribers of a new block and of what became of the extrinsics they watch."""
        for session in list(self._sessions):
            session.announce(produced)

    async def serve(self, connection: ServerConnection) -> None:
        """Handles one connection until it closes."""
        session = Session(self.chain, connection)
        self._sessions.add(session)
        try:
            with contextlib.suppress(ConnectionClosed):
                await session.run()
        finally:
            self._sessions.discard(session)


class Session:
    """One connection: its requests, its subscriptions to heads and its watched extrinsics."""

    def __init__(self, chain: Chain, connection: ServerConnection) -> None:
        self._chain = chain
        self._connection = connection
        self._outbox: asyncio.Queue[str] = asyncio.Queue(MAX_UNREAD_NOTIFICATIONS)
        self._after_answer: list[tuple[str, str, Any]] = []
        self._ids = itertools.count(1)
        self._heads: dict[str, str] = {}
        self._watched: dict[bytes, str] = {}
        self._methods: dict[str, Callable[..., Any]] = {
            "author_submitAndWatchExtrinsic": self._submit_and_watch,
            "author_submitExtrinsic": self._submit,
            "author_unwatchExtrinsic": self._unwatch,
            "account_nextIndex": self._next_index,
            "chain_getBlock": self._block,
            "chain_getBlockHash": self._block_hash,
            "chain_getFinalizedHead": self._head,
            "chain_getHead": self._head,
            "chain_getHeader": self._header,
            "chain_subscribeFinalizedHeads": lambda: self._subscribe("chain_finalizedHead"),
            "chain_subscribeNewHeads": lambda: self._subscribe("chain_newHead"),
            "chain_unsubscribeFinalizedHeads": self._unsubscribe,
            "chain_unsubscribeNewHeads": self._unsubscribe,
            "state_call": self._call,
            "state_getKeysPaged": self._keys,
            "state_getRuntimeVersion": self._runtime_version,
            "state_getStorageAt": self._storage,
            "state_queryStorageAt": self._query_storage,
        }

    async def run(self) -> None:
        notifier = asyncio.create_task(self._notify())
        try:
            async for frame in self._connection:
                await self._connection.send(json.dumps(self._answer_frame(frame)))
                for notification in self._after_answer:
                    self._push(*notification)
                self._after_answer.clear()
        finally:
            notifier.cancel()

    async def _notify(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._connection.send(await self._outbox.get())

    def _push(self, subscription: str, method: str, result: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": {"subscription": subscription, "result": result}}
        try:
            self._outbox.put_nowait(json.dumps(message))
        except asyncio.QueueFull:
            self._connection.transport.abort()

    def announce(self, produced: Produced) -> None:
        for subscription, method in self._heads.items():
            self._push(subscription, method, produced.block.header)
        block_hash = "0x" + produced.block.hash.hex()
        for extrinsic in produced.included:
            self._end_watch(extrinsic, {"inBlock": block_hash}, {"finalized": block_hash})
        for extrinsic in produced.expired:
            self._end_watch(extrinsic, "invalid")

    def _end_watch(self, extrinsic: Signed, *statuses: Any) -> None:
        if extrinsic.hash in self._watched:
            subscription = self._watched.pop(extrinsic.hash)
            for status in statuses:
                self._push(subscription, "author_extrinsicUpdate", status)

    def _answer_frame(self, frame: str | bytes) -> Any:
        try:
            request = json.loads(frame)
        except (ValueError, RecursionError):
            return _error(None, _PARSE_ERROR, "Parse error")
        if not isinstance(request, list):
            return self._answer(request)
        if not 0 < len(request) <= MAX_BATCH:
            return _error(None, _INVALID_REQUEST, f"a batch holds 1 to {MAX_BATCH} requests")
        return [self._answer(single) for single in request]

    def _answer(self, request: Any) -> dict[str, Any]:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, _INVALID_REQUEST, "Invalid request")
        identity, method, params = request.get("id"), request["method"], request.get("params") or []
        handler = self._methods.get(method)
        if not isinstance(params, list):
            return _error(identity, _INVALID_PARAMS, "Invalid params: a list is expected")
        if handler is None:
            return _error(identity, _METHOD_NOT_FOUND, f"Method not found: {method}")
        try:
            return {"jsonrpc": "2.0", "id": identity, "result": handler(*params)}
        except Invalid as refusal:
            return _error(identity, refusal.rpc_code, refusal.message, refusal.data)
        except NotFound as missing:
            return _error(identity, _SERVER_ERROR, missing.message)
        except _BAD_PARAMS as error:
            return _error(identity, _INVALID_PARAMS, f"Invalid params: {error}")

    def _at(self, block_hash: str | None) -> Block:
        if block_hash is None:
            return self._chain.head
        block = self._chain.block_by_hash(_bytes(block_hash))
        if block is None:
            raise NotFound(f"UnknownBlock: {block_hash}")
        return block

    def _submit(self, extrinsic: str) -> str:
        signed, _ = self._chain.submit(_bytes(extrinsic))
        return "0x" + signed.hash.hex()

    def _submit_and_watch(self, extrinsic: str) -> str:
        signed, is_ready = self._chain.submit(_bytes(extrinsic))
        subscription = self._new_id()
        self._watched[signed.hash] = subscription
        self._after_answer.append((subscription, "author_extrinsicUpdate", "ready" if is_ready else "future"))
        return subscription

    def _unwatch(self, subscription: str) -> bool:
        watched = [extrinsic for extrinsic, watcher in self._watched.items() if watcher == subscription]
        for extrinsic in watched:
            del self._watched[extrinsic]
        return bool(watched)

    def _next_index(self, account: str) -> int:
        return self._chain.pool.next_nonce(account)

    def _block(self, block_hash: str | None = None) -> dict[str, Any]:
        block = self._at(block_hash)
        extrinsics = ["0x" + extrinsic.hex() for extrinsic in block.extrinsics]
        return {"block": {"header": block.header, "extrinsics": extrinsics}, "justifications": None}

    def _block_hash(self, number: int | None = None) -> str | None:
        found = self._chain.head.hash if number is None else self._chain.block_hash(int(number))
        return None if found is None else "0x" + found.hex()

    def _head(self) -> str:
        return "0x" + self._chain.head.hash.hex()

    def _header(self, block_hash: str | None = None) -> dict[str, object] | None:
        try:
            return self._at(block_hash).header
        except NotFound:
            return None

    def _new_id(self) -> str:
        return f"{id(self):x}-{next(self._ids)}"

    def _subscribe(self, method: str) -> str:
        subscription = self._new_id()
        self._heads[subscription] = method
        self._after_answer.append((subscription, method, self._chain.head.header))
        return subscription

    def _unsubscribe(self, subscription: str) -> bool:
        return self._heads.pop(subscription, None) is not None

    def _call(self, name: str, parameters: str, block_hash: str | None = None) -> str:
        return "0x" + runtime_api.call(name, _bytes(parameters), self._chain.view(self._at(block_hash).number)).hex()

    def _keys(self, prefix: str, count: int, start: str | None = None, block_hash: str | None = None) -> list[str]:
        if not 0 < int(count) <= MAX_KEYS:
            raise BadInput(f"a page holds 1 to {MAX_KEYS} keys")
        keys = self._chain.keys(_bytes(prefix), _bytes(start or prefix), int(count), self._at(block_hash))
        return ["0x" + key.hex() for key in keys]

    def _runtime_version(self, block_hash: str | None = None) -> dict[str, Any]:
        self._at(block_hash)
        return runtime_api.RUNTIME_VERSION

    def _storage(self, key: str, block_hash: str | None = None) -> str | None:
        value = self._chain.storage(_bytes(key), self._at(block_hash))
        return None if value is None else "0x" + value.hex()

    def _query_storage(self, keys: list[str], block_hash: str | None = None) -> list[dict[str, Any]]:
        if len(keys) > MAX_KEYS:
            raise BadInput(f"{len(keys)} keys, {MAX_KEYS} at most")
        block = self._at(block_hash)
        changes = []
        for key in keys:
            value = self._chain.storage(_bytes(key), block)
            changes.append([key, None if value is None else "0x" + value.hex()])
        return [{"block": "0x" + block.hash.hex(), "changes": changes}]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _error(identity: Any, code: int, message: str, data: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": identity, "error": error}
