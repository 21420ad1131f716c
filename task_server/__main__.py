"""`athena server …`, which is `python -m task_server …`."""

from __future__ import annotations

import logging
import sys
from contextlib import closing

import typer

from athena.chain.client import Chain
from athena.errors import AthenaError
from athena.events import EventLog
from athena.settings import parse_settings
from task_server.crawl import Opening, import_crawl, opening_block
from task_server.listing import find_listing
from task_server.maintenance import back_up, migrate, progress_bars, restore
from task_server.openapi_command import openapi
from task_server.operator_commands import canary, keys
from task_server.serving import serve
from task_server.settings import ImportSettings, TaskServerSettings
from task_server.store import open_store

log = logging.getLogger("task_server")
cli = typer.Typer(help="The task server of Athena.", add_completion=False, no_args_is_help=True)
cli.add_typer(keys, name="key", no_args_is_help=True)
cli.command("canary")(canary)
cli.command("openapi")(openapi)
# Flags come from the settings classes, their help included.
_FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True}
cli.command("migrate", context_settings=_FORWARD, add_help_option=False)(migrate)
cli.command("backup", context_settings=_FORWARD, add_help_option=False)(back_up)
cli.command("restore", context_settings=_FORWARD, add_help_option=False)(restore)


@cli.command("import", context_settings=_FORWARD, add_help_option=False)
def import_(context: typer.Context) -> None:
    """Cut a crawl's listing into shards and open a task for each."""
    settings = parse_settings(ImportSettings, "athena server import", context.args)
    store = open_store(settings.database_url, events=EventLog(settings.events))
    with closing(store), progress_bars() as progress:
        bar = progress.add_task("listing", total=None)
        listing = find_listing(settings)
        block = settings.opened_block
        opening = Opening(
            crawl=listing.crawl,
            crawl_url=listing.url,
            warcs_per_shard=settings.warcs_per_shard,
            rule_version=settings.rule_version,
            replication=settings.replication,
            opened_block=opening_block(store, _head(settings)) if block is None else block,
            limit_warcs=settings.limit_warcs,
            from_list=settings.list is not None,
        )
        progress.update(bar, description="shards")
        done = import_crawl(
            store,
            listing.paths,
            opening,
            name=listing.name,
            on_progress=lambda stored, total: progress.update(bar, completed=stored, total=total),
        )
    named = listing.crawl if listing.name == listing.crawl else f"{listing.crawl} ({listing.name})"
    typer.echo(
        f"{named} is open: {done.tasks:,} new tasks for {done.warcs:,} WARC files, drawn from "
        f"block {opening.opened_block:,} on; {done.known_warcs:,} WARC files were there before"
    )


@cli.command("run", context_settings=_FORWARD, add_help_option=False)
def run(context: typer.Context) -> None:
    """Serve the HTTP API until told to stop."""
    serve(parse_settings(TaskServerSettings, "task_server run", context.args))


def _head(settings: ImportSettings) -> int:
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
