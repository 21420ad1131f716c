"""The product's task server on loopback, in a thread of this process, over a ledger and a clock in our hand."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import uvicorn

from athena.chain.auth import ReplySigner
from athena.chain.client import Chain
from athena.chain.wallets import Wallet
from athena.client import LedgerClient
from task_server.app import create_app
from task_server.columns import micros, moment
from task_server.ledger import Ledger
from task_server.membership import ChainMembership
from task_server.settings import TaskServerSettings
from task_server.store import open_store
from task_server.transaction import SECOND
from task_server.upkeep import keep_up

START = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass
class HeldClock:
    """A clock of the task server that stands still until it is moved."""

    micros: int = micros(START)

    def __call__(self) -> int:
        return self.micros

    @property
    def now(self) -> datetime:
        return moment(self.micros)

    def advance(self, seconds: float) -> None:
        self.micros += round(seconds * SECOND)


class LedgerService:
    """Serves the ledger in `database` to the members of the chain at `chain_url`."""

    def __init__(self, settings: TaskServerSettings, signer: Wallet) -> None:
        self._settings, self._signer = settings, ReplySigner(signer)
        self._stack = ExitStack()
        self.clock = HeldClock()

    def __enter__(self) -> Self:
        settings = self._settings
        store = self._stack.enter_context(closing(open_store(settings.database_url, self.clock)))
        chain = self._stack.enter_context(closing(Chain(settings.network, settings.netuid)))
        self._membership = ChainMembership(chain, settings.membership_age_seconds)
        self._ledger = Ledger(store, settings)
        self.keep_up()
        app = create_app(settings, store, self._membership, self._signer, self.clock)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, name="task server", daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the task server did not start")
            thread.join(0.01)

        def stop() -> None:
            server.should_exit = True
            thread.join()

        self._stack.callback(stop)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def keep_up(self) -> None:
        """What the server's own threads do between requests: reads the chain, ends leases that ran out."""
        keep_up(self._membership, self._ledger)

    def pass_time(self, seconds: float) -> None:
        """Moves the server's clock."""
        self.clock.advance(seconds)
        self.keep_up()

    @property
    def writes_per_minute(self) -> int:
        """What one hotkey may ask for."""
        return self._settings.writes_per_minute

    def client(
        self, wallet: Wallet | None, *, retry_seconds: float = 5.0, transport: httpx.BaseTransport | None = None
    ) -> LedgerClient:
        return LedgerClient(self.url, wallet, self._signer.hotkey, retry_seconds=retry_seconds, transport=transport)


def server_settings(database: Path, chain_url: str, crawl_url: str, replication: int) -> TaskServerSettings:
    """Every miner gets every task; heartbeats are due every hour, so that nobody has to send any.

    All share one address, which may ask as often as it likes.
    """
    return TaskServerSettings(
        database=f"sqlite:///{database}",
        network=chain_url,
        netuid=1,
        crawl_url=crawl_url,
        rule_version="demo-1",
        replication=replication,
        new_miner_copies=0,
        audit_share=0.0,
        requests_per_minute=100_000,
        lease_seconds=3600.0,
        membership_age_seconds=3600.0,
        refresh_seconds=1800.0,
    )
