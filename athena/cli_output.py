"""How console commands show nouns: as a table, or as one JSON object a line.

What a server sent can neither move the cursor nor colour the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from athena.client_http import printable
from athena.protocol import Noun, canonical_json

PIPE_COLUMNS = 400  # where no terminal says how wide it is, lines are not broken
REFRESH_EVERY = 50  # items between two looks at the progress bar
Item = TypeVar("Item")
Columns = Mapping[str, Callable[[Any], object]]


def json_line(value: Noun | Mapping[str, Any]) -> str:
    """Canonical JSON; what a terminal would act on, and canonical JSON leaves as it is, is escaped."""
    text = (value.canonical() if isinstance(value, Noun) else canonical_json(value)).decode()
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def show(nouns: Iterable[Noun], columns: Columns, *, as_json: bool) -> int:
    """Writes nouns to standard output; how many."""
    shown = 0
    if as_json:
        for shown, noun in enumerate(nouns, 1):  # noqa: B007  the count outlives the loop
            typer.echo(json_line(noun))
        return shown
    table = table_of(*columns)
    for shown, noun in enumerate(nouns, 1):  # noqa: B007
        table.add_row(*(cell(column(noun)) for column in columns.values()))
    if shown:
        print_table(table)
    return shown


def table_of(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def cell(value: object) -> Text:
    match value:
        case None:
            return Text("-", style="dim")
        case bool():
            return Text("yes" if value else "no")
        case float():
            return Text(f"{value:.4g}")
        case datetime():
            return Text(f"{value:%Y-%m-%d %H:%M:%S}")
        case _:
            return Text(printable(str(value)))


def print_table(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_COLUMNS)
    console.print(table)


def note(text: str) -> None:
    """A remark beside the result, on standard error."""
    typer.secho(text, err=True, dim=True)


def counted(read: Callable[[], Iterable[Item]], what: str) -> Generator[Item, None, None]:
    """What `read` gives, counted on standard error while it comes in, if somebody watches. Exhaust or close it."""
    with progress(what) as step:
        for number, item in enumerate(read(), 1):
            step(number, None)
            yield item


@contextmanager
def downloading(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if somebody watches, that takes (bytes here, bytes in all)."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda here, total: bar.update(task, completed=here, total=total)


@contextmanager
def progress(what: str, every: int = REFRESH_EVERY) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, if somebody watches, that takes (done, total or null where it is not known).

    It is drawn anew after `every` items: often where they take long.
    """
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)

        def step(done: int, total: int | None) -> None:
            if done % every == 0:
                bar.update(task, completed=done, total=total)

        yield step
