"""The console commands over the table of runs: look at them, compare, cancel, resume, branch, run what is queued."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athena.cli_records import Json

if TYPE_CHECKING:
    from athena.cli_output import Columns
    from athena.train.runs_record import Run
    from athena.train.runs_table import RunTable
    from athena.train.runs_view import Comparison

REDRAW_SECONDS = 1.0
TICK_SECONDS = 0.5

app = typer.Typer(
    name="runs",
    help="The table of training runs: what is queued, runs, ended, and what sets runs apart.",
    no_args_is_help=True,
)
State = Annotated[
    Path, typer.Option(envvar="ATHENA_STATE", help="The trainer's state folder, which the table of runs lies in.")
]
Html = Annotated[Path | None, typer.Option(help="Also write the curves as one HTML page that needs no network.")]
DEFAULT_STATE = Path("~/.athena/trainer")


@app.command("list")
def list_runs(state: State = DEFAULT_STATE, html: Html = None, as_json: Json = False) -> None:
    """List all runs, with the step, loss and speed of each.

    Example: athena runs list --html curves.html
    """
    from athena.cli_output import note, show
    from athena.train.curves import write_curves
    from athena.train.runs_view import view_of

    with _table(state) as table:
        runs = table.runs()
    show(map(view_of, runs), _columns(), as_json=as_json)
    if html is not None:
        write_curves(html, runs)
        note(f"curves in {html}")


@app.command("show")
def show_run(
    name: Annotated[str, typer.Argument(help="The run's name.")],
    state: State = DEFAULT_STATE,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Show one run: its settings, what it trains on, where it is, and why it ended.

    Example: athena runs show athena --html athena.html
    """
    from athena.cli_output import cell, json_line, note, print_table, table_of
    from athena.train.curves import write_curves
    from athena.train.runs_view import view_of

    with _table(state) as table:
        run = table.run(name)
    view = view_of(run)
    if as_json:
        typer.echo(json_line(view))
    else:
        shown = table_of("", view.name)
        for field, value in view.model_dump().items():
            if field in ("config", "lineage"):
                for part, inner in value.items():
                    shown.add_row(cell(f"{field}.{part}"), cell(inner))
            elif field != "name" and value not in (None, (), 0, False):
                shown.add_row(cell(field), cell(", ".join(value) if isinstance(value, tuple) else value))
        print_table(shown)
    if html is not None:
        write_curves(html, [run])
        note(f"curves in {html}")


@app.command("compare")
def compare_runs(
    names: Annotated[list[str], typer.Argument(help="Two or more runs.")],
    state: State = DEFAULT_STATE,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Compare runs: their losses at the tokens that all of them reached, and the settings that differ.

    Example: athena runs compare adamw muon --html compared.html
    """
    from athena.cli_output import json_line, note
    from athena.errors import BadInput
    from athena.train.curves import write_curves
    from athena.train.runs_view import compare

    if len(set(names)) < 2:
        raise BadInput("one run cannot be compared with itself", remedy="name two or more")
    with _table(state) as table:
        runs = [table.run(name) for name in dict.fromkeys(names)]
    found = compare(runs)
    if as_json:
        typer.echo(json_line(found))
    else:
        _show_comparison(found)
    if html is not None:
        write_curves(html, runs)
        note(f"curves in {html}")


def _show_comparison(found: Comparison) -> None:
    from athena.cli_output import cell, print_table, show, table_of

    columns: Columns = {
        "run": lambda run: run.name,
        "state": lambda run: run.state,
        "steps": lambda run: run.steps,
        "tokens": lambda run: run.tokens,
        f"loss at {found.tokens:,} tokens": lambda run: run.loss,
        "loss at its end": lambda run: run.last_loss,
        "tokens/s": lambda run: run.tokens_per_second,
    }
    show(found.runs, columns, as_json=False)
    if found.differing:
        typer.echo()
        table = table_of("differs in", *(run.name for run in found.runs))
        for name, values in found.differing.items():
            table.add_row(cell(name), *map(cell, values))
        print_table(table)


@app.command()
def cancel(
    name: Annotated[str, typer.Argument(help="The run's name.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Cancel a run. One that runs is stopped by its scheduler; its checkpoints stay, and `resume` goes on from them.

    Example: athena runs cancel athena-0000200
    """
    with _table(state) as table:
        run = table.cancel(name, now=time.time())
    typer.echo(f"{name} is to be stopped" if run.cancelling else f"{name} is {run.state}")


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="The run's name.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Queue a failed or cancelled run again. It goes on from its last checkpoint.

    Example: athena runs resume athena
    """
    with _table(state) as table:
        table.resume(name, now=time.time())
    typer.echo(f"{name} is queued")


@app.command()
def branch(
    name: Annotated[str, typer.Argument(help="The trunk's name.")],
    decay_share: Annotated[
        float | None, typer.Option(min=0.01, max=0.9, help="Share of the branch's steps that anneal; else the trunk's.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Cut a decay branch from a trunk's newest checkpoint: the model that a release is made of. The trunk goes on.

    The trainer releases what comes of it, where it passes the gate.

    Example: athena runs branch athena --decay-share 0.1
    """
    from athena.train.trunk import cut_branch

    with _table(state) as table:
        spec = cut_branch(table, table.run(name), decay_share=decay_share, now=time.time())
    typer.echo(f"{spec.name} is queued: {spec.config['decay_steps']} steps from step {spec.lineage['branch_step']}")


@app.command()
def add(
    folder: Annotated[
        Path, typer.Argument(help="A run's folder, as `athena train run` takes it.", exists=True, file_okay=False)
    ],
    name: Annotated[str | None, typer.Option(help="The run's name; by default the folder's.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Devices that it needs at a time.")] = 1,
    state: State = DEFAULT_STATE,
) -> None:
    """Queue the run in a folder. The trainer, or `athena runs work`, starts it when devices are free.

    Example: athena runs add runs/muon-lr-0.01 --devices 4
    """
    from athena.train.runs_record import spec_of_folder
    from athena.train.runs_table import RUNS_FILE, RunTable

    spec = spec_of_folder(folder.absolute(), name, devices)
    with RunTable(state.expanduser() / RUNS_FILE) as table:
        new = table.add(spec, now=time.time())
    typer.echo(f"{spec.name} is {'queued' if new else 'in the table already'}")


@app.command()
def work(
    devices: Annotated[
        str, typer.Option(help="auto, cpu:2 (two runs at a time on the processor), or GPU indices as 0,1,2.")
    ] = "auto",
    until_done: Annotated[bool, typer.Option("--until-done", help="End when nothing is queued any more.")] = False,
    events: Annotated[Path | None, typer.Option(help="File to append one JSON line per event to.")] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Start queued runs as devices free up, and show them live. What is interrupted goes on the next time.

    Example: athena runs work --devices 0,1,2,3 --until-done
    """
    from athena.events import EventLog
    from athena.train.runs_table import RUNS_FILE, RunTable
    from athena.train.scheduler import Scheduler, parse_devices

    names = parse_devices(devices)
    with RunTable(state.expanduser() / RUNS_FILE) as table, Scheduler(table, names, EventLog(events)) as scheduler:

        def step() -> bool:
            scheduler.tick()
            return until_done and not scheduler.busy and all(run.state != "queued" for run in table.runs())

        _watch(table, step, TICK_SECONDS)


@app.command()
def watch(state: State = DEFAULT_STATE) -> None:
    """Watch the runs live until all have ended: steps, losses, speed, time left.

    Example: athena runs watch
    """
    with _table(state) as table:
        _watch(table, lambda: all(run.state not in ("queued", "running") for run in table.runs()), REDRAW_SECONDS)


def _watch(table: RunTable, step: Callable[[], bool], pause_seconds: float) -> None:
    """Draws the table on a terminal, elsewhere says in a line what changed, until `step()` says that all is done."""
    from rich.console import Console
    from rich.live import Live

    from athena.train.runs_board import render_runs

    console, said = Console(), dict[str, str]()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            done = step()
            runs = table.runs()
            if console.is_terminal:
                live.update(render_runs(runs), refresh=True)
            for run in runs:
                if said.get(run.name) != run.state:
                    said[run.name] = run.state
                    console.print(_line(run), highlight=False, markup=False, soft_wrap=True)
            if done:
                return
            time.sleep(pause_seconds)


def _line(run: Run) -> str:
    from athena.client_http import printable

    why = f": {printable(run.error)}" if run.error else ""
    where = f" on {', '.join(run.held)}" if run.held else ""
    return f"{run.name} is {run.state}{where}, step {run.step}{why}"


def _columns() -> Columns:
    return {
        "run": lambda view: view.name,
        "kind": lambda view: view.kind,
        "state": lambda view: "stopping" if view.cancelling else view.state,
        "devices": lambda view: ", ".join(view.devices) or f"needs {view.devices_wanted}",
        "step": lambda view: f"{view.step}/{view.steps}" if view.steps else view.step,
        "tokens": lambda view: view.tokens,
        "loss": lambda view: view.loss,
        "tokens/s": lambda view: view.tokens_per_second,
        "queued": lambda view: view.queued_at,
        "ended": lambda view: view.ended_at,
        "note": lambda view: view.error or view.result,
    }


@contextmanager
def _table(state: Path) -> Iterator[RunTable]:
    from athena.train.runs_table import RunTable

    with RunTable.existing(state.expanduser()) as table:
        yield table
