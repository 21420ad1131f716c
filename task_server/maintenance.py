"""What keeps a ledger for long: `athena server migrate`, `athena server backup` and `athena server restore`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine

from athena.settings import parse_settings
from task_server import backup, schema
from task_server.engines import open_engine
from task_server.settings import BackupSettings, DatabaseSettings, MigrateSettings, RestoreSettings
from task_server.transaction import utc_micros


def migrate(context: typer.Context) -> None:
    """Bring the tables of a database to the version of this release."""
    with _engine(parse_settings(MigrateSettings, "athena server migrate", context.args)) as engine:
        before = schema.migrate(engine)
    if before == schema.HEAD:
        typer.echo(f"the database is at version {schema.HEAD} already")
    else:
        typer.echo(f"the database is at version {schema.HEAD} now; it was {before or 'empty'}")


def back_up(context: typer.Context) -> None:
    """Write the whole ledger to a file, while servers go on."""
    settings = parse_settings(BackupSettings, "athena server backup", context.args)
    with _engine(settings, existing=True) as engine, progress_bars() as bars:
        bar = bars.add_task("rows", total=None)
        rows = backup.write_backup(
            engine, settings.file, utc_micros(), lambda done, total: bars.update(bar, completed=done, total=total)
        )
    typer.echo(f"{settings.file}: {rows:,} rows")


def restore(context: typer.Context) -> None:
    """Fill an empty database from a backup, of either kind of database."""
    settings = parse_settings(RestoreSettings, "athena server restore", context.args)
    with _engine(settings) as engine, progress_bars() as bars:
        bar = bars.add_task("rows", total=None)
        rows = backup.restore_backup(
            engine, settings.file, lambda done, total: bars.update(bar, completed=done, total=total)
        )
    typer.echo(f"{rows:,} rows restored; the event chain is whole")


def progress_bars() -> Progress:
    """On standard error, gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


@contextmanager
def _engine(settings: DatabaseSettings, *, existing: bool = False) -> Iterator[Engine]:
    engine = open_engine(settings.database_url, existing=existing)
    try:
        yield engine
    finally:
        engine.dispose()
