"""One server process: listens, serves, and announces that it is ready."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from functools import partial

import uvicorn
from fastapi import FastAPI

from athena.chain.auth import ReplySigner
from athena.chain.client import Chain
from athena.chain.wallets import open_wallet
from athena.errors import Misconfigured
from athena.events import EventLog
from task_server.app import create_app
from task_server.crawl import continue_imports
from task_server.ledger import Ledger
from task_server.membership import ChainMembership
from task_server.settings import TaskServerSettings
from task_server.store import open_store
from task_server.upkeep import Recurring, keep_up

GRACE_SECONDS = 5  # for requests in flight when the server is told to stop
BACKLOG = 2048
IMPORT_SECONDS = 5.0  # between two looks for crawls that operators asked for

log = logging.getLogger("task_server")


def serve(settings: TaskServerSettings) -> None:
    """Serves until told to stop. Raises Misconfigured, or Unavailable when the database is out of reach."""
    events = EventLog(settings.events)
    signer = ReplySigner(open_wallet(settings.wallet, settings.hotkey, settings.wallet_path.expanduser()))
    listener = listen(settings.host, settings.port)
    store = open_store(settings.database_url, events=events)
    chain = Chain(settings.network, settings.netuid)
    membership = ChainMembership(chain, settings.membership_age_seconds)
    ledger = Ledger(store, settings)
    threads = (
        Recurring("upkeep", partial(keep_up, membership, ledger), settings.refresh_seconds),
        # A listing may be slow to come: the view of the chain must not grow old meanwhile.
        Recurring("imports", lambda: continue_imports(store, settings, membership.head().number), IMPORT_SECONDS),
    )
    app = create_app(settings, store, membership, signer)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn hands the signal on after its graceful end
    for thread in threads:
        thread.start()
    try:
        AnnouncingServer(app, events).run(sockets=[listener])
    finally:
        for thread in threads:
            thread.stop()
        chain.close()
        store.close()


class AnnouncingServer(uvicorn.Server):
    """Announces the port once connections are accepted: a free one is only known by then."""

    def __init__(self, app: FastAPI, events: EventLog) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_SECONDS
            )
        )
        self._events = events

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        log.info("serving on port %d", port)
        self._events.emit("server.ready", port=port)


def listen(host: str, port: int) -> socket.socket:
    """Raises Misconfigured when the address cannot be listened on."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {host}:{port}: {error.strerror}", remedy="choose another port"
        ) from error
