"""`athena devchain`: a websocket JSON-RPC node that the unmodified bittensor SDK and btcli talk to."""

from __future__ import annotations

import asyncio
import logging
import signal
import time

from websockets.asyncio.server import serve as serve_websocket

from athena.chain.devnode.chain import Chain
from athena.chain.devnode.rpc import Node
from athena.chain.devnode.settings import DevnodeSettings
from athena.errors import Misconfigured
from athena.events import EventLog

logger = logging.getLogger(__name__)
MAX_FRAME_BYTES = 1 << 20
BLOCKS_PER_EVENT = 20


def serve(settings: DevnodeSettings) -> None:
    """Serves the chain until SIGTERM or SIGINT. A killed node goes on from its last block at the next start.

    Raises Misconfigured when the port is taken or the database belongs to another chain.
    """
    asyncio.run(_serve(settings))


async def _serve(settings: DevnodeSettings) -> None:
    log = EventLog(settings.events)
    chain = Chain(settings, now_ms=lambda: time.time_ns() // 1_000_000)
    try:
        node = Node(chain)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            # A page in a browser sends its origin; no client of a node does.
            server = await serve_websocket(
                node.serve, settings.host, settings.port, origins=[None], max_size=MAX_FRAME_BYTES
            )
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}", remedy="choose another port"
            ) from error
        async with server:
            port = next(iter(server.sockets)).getsockname()[1]
            logger.warning(
                "ws://%s:%d is a stand-in for a chain: no consensus, no value, and sealed commitments hide nothing",
                settings.host,
                port,
            )
            log.emit("devchain.ready", port=port, block=chain.head.number, genesis=chain.genesis_hash)
            await _produce(chain, node, log, stop)
    finally:
        chain.close()


async def _produce(chain: Chain, node: Node, log: EventLog, stop: asyncio.Event) -> None:
    """A block every `block_seconds` until `stop`. A late block moves the ones after it: none are made in a burst."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + chain.settings.block_seconds, loop.time())
        try:
            async with asyncio.timeout_at(due):
                await stop.wait()
            return
        except TimeoutError:
            produced = chain.produce()
        node.announce(produced)
        for event, fields in produced.notes:
            log.emit(event, **fields)
        number = produced.block.number
        if number % BLOCKS_PER_EVENT == 0:
            log.emit("devchain.block", block=number, pending=len(chain.pool), sealed=chain.num_sealed())
