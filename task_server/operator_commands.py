"""What an operator does at the server's own machine: `athena server key …` and `athena server canary …`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from athena.errors import BadInput
from athena.protocol import Manifest
from athena.settings import parse_settings
from task_server.columns import moment
from task_server.operators import SCOPES, Operators
from task_server.settings import TaskServerSettings
from task_server.store import open_store

MAX_MANIFEST_BYTES = 2**20

keys = typer.Typer(help="API keys, which allow operators to open crawls, close tasks, bar miners, honour opt-outs.")


@contextmanager
def _operators() -> Iterator[Operators]:
    """Over the database that the environment names (ATHENA_SERVER_DATABASE, ATHENA_SERVER_STATE)."""
    settings = parse_settings(TaskServerSettings, "task_server", [])
    with closing(open_store(settings.database_url)) as store:
        yield Operators(store, settings)


@keys.command("create")
def create(
    scope: Annotated[list[str], typer.Option(help=f"What the key allows; may be given again: {', '.join(SCOPES)}.")],
    note: Annotated[str, typer.Option(help="Who holds it.")] = "",
) -> None:
    """Make a key and print it, once: the server keeps only its hash."""
    scopes = tuple(known for known in SCOPES if known in scope)
    if set(scope) - set(scopes):
        raise BadInput(f"no scope {', '.join(sorted(set(scope) - set(scopes)))}", remedy=f"use {', '.join(SCOPES)}")
    with _operators() as operators:
        typer.echo(operators.create_key(scopes, note))


@keys.command("list")
def list_() -> None:
    """Show which keys there are."""
    table = Table("key", "scopes", "note", "made", "revoked")
    with _operators() as operators:
        for key in operators.list_keys():
            revoked = "" if key.revoked_at is None else f"{moment(key.revoked_at):%Y-%m-%d %H:%M}"
            table.add_row(key.id, key.scopes, key.note, f"{moment(key.created_at):%Y-%m-%d %H:%M}", revoked)
    Console().print(table)


@keys.command("revoke")
def revoke(key: Annotated[str, typer.Argument(help="The first part of the key, as `list` shows it.")]) -> None:
    """End a key at once."""
    with _operators() as operators:
        operators.revoke_key(key)


def canary(
    manifest: Annotated[
        Path, typer.Argument(help="manifest.json of a dataset that was refined from the task here.", exists=True)
    ],
) -> None:
    """Make a task a canary: what miners submit of it is compared with an output that is known.

    Refine the task's WARC files with `athena refine` on a machine that you trust; put the task's id into the manifest.
    """
    if manifest.stat().st_size > MAX_MANIFEST_BYTES:
        raise BadInput(f"{manifest} is over {MAX_MANIFEST_BYTES} bytes")
    try:
        known = Manifest.model_validate_json(manifest.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{manifest} is no manifest: {error.error_count()} faults") from error
    with _operators() as operators:
        operators.set_canary(known)
