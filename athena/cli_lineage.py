"""The console command `athena lineage`: where a page, a domain or a miner's work ended up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from athena.errors import BadInput

if TYPE_CHECKING:
    from athena.release_lineage import Sought
    from athena.release_search import Place

TRAINER = Path("~/.athena/trainer")
SHELF = Path("~/.athena/lineage")
_COLUMNS = ("url", "hotkey", "dataset", "warc_path", "warc_offset", "record_id", "tokens")


def lineage(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of releases or datasets, or that hold some; or published releases, as athena@stable. "
            "By default all that the trainer on this machine holds."
        ),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Documents of this very page.")] = None,
    domain: Annotated[str | None, typer.Option(help="Documents of this domain and its sub-domains.")] = None,
    hotkey: Annotated[str | None, typer.Option(help="Documents that this miner refined.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Show at most this many documents of each place.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="All documents, one JSON object a line.")] = False,
    hub: Annotated[str, typer.Option(envvar="ATHENA_HUB", help="Where published releases lie.")] = "hf://",
) -> None:
    """Find every release, dataset and row that holds a page, a domain or a miner's work. Ends with 1 if none does.

    A domain that is put on the opt-out list is left out of every later mixture; what is found here is what was made
    before.

    Example: athena lineage athena@stable --domain example.org
    """
    from athena.release_lineage import Sought

    if url is None and domain is None and hotkey is None:
        raise BadInput("nothing to look for", remedy="give --url, --domain or --hotkey")
    sought = Sought(url, domain, hotkey)
    found = 0
    for place in _places(places or [str(TRAINER.expanduser())], hub):
        found += _print_rows(place, sought) if as_json else _print_place(place, sought, limit)
    if not found:
        typer.echo("found nowhere", err=True)
        raise typer.Exit(1)


def _places(names: list[str], hub: str) -> Iterator[Place]:
    from athena.chain.wallets import verify
    from athena.hub import open_hub
    from athena.release_hub import Wanted
    from athena.release_search import places_below, published_place

    for name in names:
        if name.startswith((".", "/", "~")) or Path(name).is_dir():
            yield from places_below([Path(name).expanduser()])
        else:
            yield published_place(open_hub(hub, kind="model"), Wanted.parse(name), SHELF.expanduser(), verify)


def _print_rows(place: Place, sought: Sought) -> int:
    from athena.cli_output import json_line

    found = 0
    for table in place.find(sought):
        found += table.num_rows
        for row in table.to_pylist():
            typer.echo(json_line({"kind": place.kind, "place": place.name, **{name: row[name] for name in _COLUMNS}}))
    return found


def _print_place(place: Place, sought: Sought, limit: int) -> int:
    from athena.cli_output import cell, print_table, table_of

    shown: list[dict[str, Any]] = []
    documents: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for table in place.find(sought):
        if len(shown) < limit:
            shown += table.slice(0, limit - len(shown)).to_pylist()
        sums = table.group_by("dataset").aggregate([("tokens", "sum"), ("tokens", "count")]).to_pylist()
        for row in sums:
            documents[row["dataset"]] += row["tokens_count"]
            tokens[row["dataset"]] += row["tokens_sum"]
    if not documents:
        return 0
    typer.secho(f"{place.kind} {place.name}", bold=True, nl=False)
    typer.echo(f" in {place.folder}: {documents.total():,} documents, {tokens.total():,} tokens")
    for dataset in sorted(documents):
        typer.echo(f"  {documents[dataset]:,} documents, {tokens[dataset]:,} tokens of {dataset}")
    listed = table_of(*_COLUMNS)
    for row in shown:
        listed.add_row(*(cell(row[name]) for name in _COLUMNS))
    if shown:
        print_table(listed)
    if documents.total() > len(shown):
        typer.echo(f"  and {documents.total() - len(shown):,} more: --json lists all")
    return documents.total()
