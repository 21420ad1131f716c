"""The console commands that hold a task server to its word: `athena audit log` and `athena audit draw`."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athena.cli_records import LOCAL_SERVER, Json, Server
from athena.errors import BadInput, NotFound

if TYPE_CHECKING:
    from athena.audit import Draw, Draws, Writes
    from athena.ledger_state import Leased, LedgerState

app = typer.Typer(
    name="audit",
    help="Hold a task server to its word: its history is not rewritten, and work goes to whom it is due.",
    no_args_is_help=True,
)
Save = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="Keep the chain in this file: only what is newer is fetched."),
]
SHOWN_DRAWS = 40  # of a lease that walked far: the first, the last, and what is wrong


@app.command()
def log(
    file: Annotated[
        Path | None,
        typer.Argument(help="Verify this file, made by --save, without a server.", exists=True, dir_okay=False),
    ] = None,
    save: Save = None,
    as_json: Json = False,
    server: Server = LOCAL_SERVER,
) -> None:
    """Verify the event chain link by link, and replay it: nothing in it breaks the rules of leasing.

    Ends with the head of the chain. Whoever keeps a --save file learns of it when history is rewritten.

    Example: athena audit log --save events.jsonl
    """
    from athena.audit import START
    from athena.cli_output import json_line

    if file is not None and save is not None:
        raise BadInput("a file to verify excludes --save", remedy="leave out one of them")
    with _chain(file, save, server) as path:
        state, _ = _replayed(path)
    head = state.head or START
    if as_json:
        typer.echo(json_line(head))
        return
    states = Counter(lease.state for lease in state.leases.values())
    for name, text in {
        "head": f"{head.sequence} {head.hash}",
        "tasks": f"{state.num_tasks:,} imported, {sum(task.closed for task in state.tasks.values()):,} closed",
        "leases": ", ".join(f"{count:,} {name}" for name, count in sorted(states.items())) or "none",
        "sheets": ", ".join(f"{count:,} {outcome}" for outcome, count in state.sheets.items()),
        "barred": f"{len(state.bans):,} coldkeys",
    }.items():
        typer.echo(f"{name:<8} {text}")
    typer.echo(f"verified {head.sequence:,} events")


@app.command()
def draw(
    lease: Annotated[str | None, typer.Option(help="The lease with this id.")] = None,
    hotkey: Annotated[str | None, typer.Option(help="Only leases of this hotkey.")] = None,
    block: Annotated[int | None, typer.Option(min=0, help="Only leases drawn at this block.")] = None,
    block_hash: Annotated[
        str | None, typer.Option(help="Hash of that block (0x…); by default the chain is asked.")
    ] = None,
    network: Annotated[
        str, typer.Option(envvar="ATHENA_NETWORK", help="Chain: finney, test, or the ws:// address of a node.")
    ] = "finney",
    netuid: Annotated[int, typer.Option(envvar="ATHENA_NETUID", min=0, help="Subnet number.")] = 1,
    save: Save = None,
    as_json: Json = False,
    server: Server = LOCAL_SERVER,
) -> None:
    """Recompute from public data to whom each lease was due; exit code 1 if one was not.

    A lease is the first draw of its hotkey, at its block, whose task still had a slot that the hotkey might take. For
    one lease, or one hotkey at one block, every draw is shown with why its task was skipped or taken.

    Example: athena audit draw --hotkey 5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX --block 4201337
    """
    from athena.audit import check_draws, check_listing
    from athena.audit_log import saved
    from athena.cli_output import counted
    from athena.client import LedgerClient

    if block_hash is not None and lease is None and block is None:
        raise BadInput("--block-hash is of one block", remedy="give --block or --lease with it")

    def wanted(leased: Leased) -> bool:
        stated = ((lease, leased.lease), (hotkey, leased.hotkey), (block, leased.block))
        return all(filtered in (None, value) for filtered, value in stated)

    with _chain(None, save, server) as path, _block_hashes(block_hash, network, netuid) as hash_of:
        state, writes = _replayed(path)
        with LedgerClient(server, None) as client, closing(counted(client.tasks, "reading tasks")) as views:
            task_ids = check_listing(state, views)
        found = check_draws(saved(path), wanted=wanted, block_hash=hash_of, task_ids=task_ids, writes=writes)
        detailed = lease is not None or (hotkey is not None and block is not None)
        num_leases, num_undue = _report(found, detailed=detailed, as_json=as_json)
    if num_leases == 0:
        raise NotFound("the chain holds no such lease")
    verdict = f"{num_leases - num_undue:,} of {num_leases:,} leases were due to their hotkeys"
    if num_undue:
        typer.secho(verdict, fg="red", err=True)
        raise typer.Exit(1)
    if not as_json:
        typer.echo(verdict)


@contextmanager
def _chain(file: Path | None, save: Path | None, server: str) -> Iterator[Path]:
    """The file that the chain lies in: given, or brought up to date from the server."""
    if file is not None:
        yield file
        return
    from athena.audit_log import fetch
    from athena.cli_output import progress
    from athena.client import LedgerClient

    with tempfile.TemporaryDirectory(prefix="athena-audit-") as folder, LedgerClient(server, None) as client:
        path = save or Path(folder) / "events.jsonl"
        with progress("fetching events") as step:
            fetch(client, path, step)
        yield path


def _replayed(path: Path) -> tuple[LedgerState, Writes]:
    """The chain in a file, verified and replayed, and when it says that tasks were written to."""
    from athena.audit import Writes, verified
    from athena.audit_log import saved
    from athena.cli_output import counted
    from athena.ledger_state import LedgerState

    state, writes = LedgerState(), Writes()
    for event in verified(counted(lambda: saved(path), "verifying events")):
        state.apply(event)
        writes.note(event)
    return state, writes


@contextmanager
def _block_hashes(given: str | None, network: str, netuid: int) -> Iterator[Callable[[int], str]]:
    if given is not None:
        if not re.fullmatch(r"0x[0-9a-fA-F]{64}", given):
            raise BadInput("a block hash is 0x and 64 hex characters")
        yield lambda _number: given
        return
    from athena.chain.client import Chain

    with closing(Chain(network, netuid)) as chain:
        yield cache(lambda number: chain.head(number).hash)


def _report(found: Iterator[Draws], *, detailed: bool, as_json: bool) -> tuple[int, int]:
    """Shows leases, and in detail those that were not due; how many there were, and how many of these."""
    from athena.cli_output import cell, json_line, print_table, table_of

    num_leases, undue = 0, []
    summary = table_of("event", "lease", "hotkey", "block", "draw", "task", "due")
    for draws in found:
        num_leases += 1
        undue += [] if draws.due else [draws]
        leased = draws.leased
        if as_json:
            typer.echo(json_line(_as_json(draws)))
        elif detailed:
            _explain(draws)
        else:
            row = (draws.sequence, leased.lease, leased.hotkey, leased.block, leased.draw_index, leased.task, draws.due)
            summary.add_row(*map(cell, row))
    if summary.row_count:
        print_table(summary)
        for draws in undue:
            _explain(draws)
    return num_leases, len(undue)


def _explain(draws: Draws) -> None:
    from athena.cli_output import cell, print_table, table_of

    leased = draws.leased
    typer.echo(f"lease {leased.lease} of {leased.hotkey}: draws at block {leased.block} among {leased.listed} tasks")
    table = table_of("draw", "position", "task", "")
    last = len(draws.draws) - SHOWN_DRAWS
    for line in draws.draws:
        if line.index < SHOWN_DRAWS or line.index >= last or line.faulty:
            table.add_row(*map(cell, (line.index, line.position, line.task, _why(line))))
        elif line.index == SHOWN_DRAWS:
            table.add_row("…", "", "", f"{last - SHOWN_DRAWS:,} more that were skipped")
    print_table(table)
    if leased.listed != draws.listed:
        typer.echo(f"NOT DUE: {draws.listed} tasks were listed at that block")
    elif len(draws.draws) <= leased.draw_index:
        typer.echo(f"NOT DUE: there is no draw {leased.draw_index}")


def _why(line: Draw) -> str:
    texts = {
        "taken": "taken",
        "repeated": "drawn before",
        "held": "skipped: this miner had a lease of it",
        "closed": "skipped: closed",
        "filled": "skipped: no slot left",
        "raced": f"skipped: written to at that very moment by event {line.beside}",
        "free": "NOT DUE: this free task was skipped",
        "another": "NOT DUE: this is not the task that was leased",
    }
    return texts[line.reason]


def _as_json(draws: Draws) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "sequence": draws.sequence,
        "due": draws.due,
        "listed": draws.listed,
        "leased": draws.leased.model_dump(),
        "draws": [asdict(line) for line in draws.draws],
    }
