"""`athena miner status`: what the miner on this machine holds and did, from its state folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from athena.cli_output import Columns
    from athena.refine.work.status import MinerStatus

NOT_RUNNING = 3  # as of a service's status (Linux Standard Base)

app = typer.Typer(name="miner", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def miner() -> None:
    """Look at the miner on this machine."""


@app.command()
def status(
    state: Annotated[Path, typer.Option(envvar="ATHENA_STATE", help="The miner's state folder.")] = Path(
        "~/.athena/miner"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show the leases in work, the last commitments, the disk in use and the last error.

    The node may run or not: the exit code is 0 where it runs, 3 where it does not, 1 where none ever did.

    Example: athena miner status --state ~/.athena/miner
    """
    from athena.cli_output import json_line
    from athena.refine.work.status import is_running, read_status

    folder = state.expanduser()
    found, running = read_status(folder), is_running(folder)
    if as_json:
        typer.echo(json_line({"running": running, **found.model_dump(mode="json")}))
    else:
        _show(found, running)
    if not running:
        raise typer.Exit(NOT_RUNNING)


def _show(found: MinerStatus, running: bool) -> None:
    from athena.cli_output import show
    from athena.client_http import printable

    gib = 1 << 30
    state = f"runs since {found.started_at:%Y-%m-%d %H:%M:%S}" if running else "does not run"
    typer.echo(f"{found.hotkey} {state}, recipe {found.recipe}, as of {found.written_at:%Y-%m-%d %H:%M:%S} UTC")
    typer.echo(
        f"{found.submitted} leases submitted, {found.given_up} given up, "
        f"{found.disk_bytes / gib:.2f} of {found.disk_budget_bytes / gib:.0f} GiB of disk in use"
    )
    leases: Columns = {
        "task": lambda lease: lease.task_id,
        "stage": lambda lease: lease.stage,
        "since": lambda lease: lease.since,
        "WARCs": lambda lease: f"{lease.progress.get('warcs', 0)}/{lease.warcs}",
        "records": lambda lease: lease.progress.get("records"),
        "rows": lambda lease: lease.progress.get("rows"),
        "deadline": lambda lease: lease.deadline_at,
        "block": lambda lease: lease.deadline_block,
    }
    commitments: Columns = {
        "task": lambda made: made.task_id,
        "committed": lambda made: made.committed_at,
        "dataset": lambda made: made.dataset.location,
        "accepted": lambda made: made.accepted,
    }
    for nouns, columns in ((found.leases, leases), (found.commitments, commitments)):
        if nouns:
            typer.echo()
            show(nouns, columns, as_json=False)
    if found.last_error is not None:
        error = found.last_error
        typer.echo(f"\nlast error, {error.at:%Y-%m-%d %H:%M:%S}: {error.code}: {printable(error.message)}")
