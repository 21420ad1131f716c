"""`python -m task_server import …` and `python -m task_server run …`."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from contextlib import closing
from datetime import UTC, datetime

import typer
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from athena.chain.client import Chain
from athena.chain.wallets import hotkey_of, open_wallet
from athena.crawl import open_crawl
from athena.errors import AthenaError, Misconfigured
from athena.events import EventLog
from athena.settings import parse_settings
from task_server.app import create_app
from task_server.crawl import Opening, import_crawl
from task_server.database import Database
from task_server.identity import Gate, MemberNonces
from task_server.ledger import Ledger
from task_server.membership import ChainMembership
from task_server.settings import ImportSettings, TaskServerSettings
from task_server.stats import Records
from task_server.upkeep import Upkeep

GRACE_SECONDS = 5  # for requests in flight when the server is told to stop

log = logging.getLogger("task_server")
cli = typer.Typer(help="The task server of Athena.", add_completion=False, no_args_is_help=True)
# Flags come from the settings classes, their help included.
_FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True}


@cli.command("import", context_settings=_FORWARD, add_help_option=False)
def import_(context: typer.Context) -> None:
    """Cut a crawl's listing into shards and open a task for each."""
    settings = parse_settings(ImportSettings, "task_server import", context.args)
    opening = Opening(
        crawl=settings.crawl,
        crawl_url=settings.crawl_url,
        warcs_per_shard=settings.warcs_per_shard,
        rule_version=settings.rule_version,
        replication=settings.replication,
        opened_block=_head(settings) if settings.opened_block is None else settings.opened_block,
        limit_warcs=settings.limit_warcs,
    )
    crawl = open_crawl(settings.crawl_url)
    database = Database(settings.database_url)
    with closing(crawl), closing(database), _progress() as progress:
        bar = progress.add_task("shards", total=None)
        done = import_crawl(
            database,
            list(crawl.warc_paths(settings.crawl)),
            opening,
            datetime.now(UTC),
            lambda stored, total: progress.update(bar, completed=stored, total=total),
        )
    typer.echo(f"{settings.crawl}: {done.tasks} tasks opened, {done.known_warcs} WARC files were known before")


@cli.command("run", context_settings=_FORWARD, add_help_option=False)
def run(context: typer.Context) -> None:
    """Serve the HTTP API until told to stop."""
    settings = parse_settings(TaskServerSettings, "task_server run", context.args)
    events = EventLog(settings.events)
    receiver = hotkey_of(open_wallet(settings.wallet, settings.hotkey, settings.wallet_path.expanduser()))
    listener = listen(settings.host, settings.port)
    database = Database(settings.database_url)
    chain = Chain(settings.network, settings.netuid)
    membership = ChainMembership(chain, settings.membership_age_seconds)
    ledger = Ledger(database, settings, events=events)
    nonces = MemberNonces(database, membership)
    upkeep = Upkeep(membership, ledger, nonces, settings.refresh_seconds)
    gate = Gate(receiver, membership, nonces)
    app = create_app(settings, ledger, Records(database), membership, gate, receiver)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn hands the signal on after its graceful end
    upkeep.start()
    try:
        AnnouncingServer(app, events).run(sockets=[listener])
    finally:
        upkeep.stop()
        chain.close()
        database.close()


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
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {host}:{port}: {error.strerror}", remedy="choose another port"
        ) from error


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _head(settings: TaskServerSettings) -> int:
    with closing(Chain(settings.network, settings.netuid)) as chain:
        return chain.head().number


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.INFO)
    try:
        cli()
    except AthenaError as error:
        log.error("%s: %s", error.code, error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
