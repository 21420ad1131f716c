"""`athena validator status`: what the validator on this machine judged and has still to do, from its queue alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from athena.errors import NotFound

app = typer.Typer(name="validator", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def validator() -> None:
    """Look at the validator on this machine."""


@app.command()
def status(
    state: Annotated[Path, typer.Option(envvar="ATHENA_STATE", help="The validator's state folder.")] = Path(
        "~/.athena/validator"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Show how many cases are judged and open, and which blocks were read and weighed. The node may run or not.

    A validator that holds the sealed half of the evaluation pack also says who gains on the public half alone.

    Example: athena validator status --state ~/.athena/validator
    """
    from athena.cli_output import json_line
    from athena.judge.queue import QUEUE_FILE, CaseQueue
    from athena.judge.sealed import overfitting

    file = state.expanduser() / QUEUE_FILE
    if not file.exists():
        raise NotFound(f"no validator ran with state folder {file.parent}", remedy="name its folder with --state")
    with CaseQueue(file) as queue:
        found, alarmed = queue.status(), overfitting(queue)
    if as_json:
        typer.echo(json_line({**found, "overfitting": [asdict(excess) for excess in alarmed]}))
        return
    for name, value in found.items():
        typer.echo(f"{name.replace('_', ' '):22} {'-' if value is None else value}")
    for excess in alarmed:
        typer.echo(f"{'overfitting':22} {excess}: the evaluation pack is to be retired")
