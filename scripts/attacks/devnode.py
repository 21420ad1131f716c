"""A dev chain on loopback, in a thread of this process, that makes a block when one is asked for or has work to do."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

from websockets.asyncio.server import serve as serve_websocket

from athena.chain.devnode.chain import Chain
from athena.chain.devnode.rpc import Node
from athena.chain.devnode.settings import DevnodeSettings

POLL_SECONDS = 0.005
START_SECONDS = 60.0
MAX_FRAME_BYTES = 1 << 20


class DevNode:
    """The product's dev chain over the database in `settings`. Its clock is the machine's.

    A submitted extrinsic gets a block at once; other blocks come from `advance`, so that time on the chain passes only
    where a simulation says so.
    """

    def __init__(self, settings: DevnodeSettings) -> None:
        self._settings = settings
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="devnode", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._chain: Chain
        self._node: Node
        self._stop: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        self._port = self._ready.result(START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    @property
    def database(self) -> Path:
        return self._settings.database

    @property
    def height(self) -> int:
        return self._chain.head.number

    def advance(self, blocks: int) -> int:
        """Makes `blocks` blocks; the new height."""

        async def make() -> int:
            for _ in range(blocks):
                self._produce()
            return self.height

        return asyncio.run_coroutine_threadsafe(make(), self._loop).result()

    def advance_to_read(self, every: int) -> int:
        """Makes blocks up to the next multiple of `every` and one more, so that the multiple is final."""
        return self.advance(every - self.height % every + 1)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._chain = Chain(self._settings, now_ms=lambda: time.time_ns() // 1_000_000)
        try:
            self._node = Node(self._chain)
            async with serve_websocket(
                self._node.serve, "127.0.0.1", 0, origins=[None], max_size=MAX_FRAME_BYTES
            ) as server:
                self._ready.set_result(next(iter(server.sockets)).getsockname()[1])
                while not self._stop.is_set():
                    if len(self._chain.pool):
                        self._produce()
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            self._chain.close()

    def _produce(self) -> None:
        self._node.announce(self._chain.produce())
