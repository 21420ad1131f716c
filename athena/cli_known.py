"""The console commands for filters of known releases: `athena judge known-release build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from athena.errors import BadInput

app = typer.Typer(
    name="known-release",
    help="Make filters by which a validator knows the documents of public releases.",
    no_args_is_help=True,
)


@app.command()
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files of text or tables, folders, hf://datasets/ORG/NAME@REVISION/path: what `athena refine` reads."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of the filter.", dir_okay=False)],
    name: Annotated[str | None, typer.Option(help="Name of the release; the first source's by default.")] = None,
    false_positives: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Probability that a strange run of words is taken for known.")
    ] = 0.01,
    one_in: Annotated[
        int, typer.Option(min=1, max=1 << 16, help="Of so many runs of 13 words one is kept; a power of two.")
    ] = 16,
) -> None:
    """Make the filter of a public release, for a validator's --known-releases. Goes on where it was interrupted.

    At the defaults it takes about 1.2 bytes for every 16 words of the release.

    Example: athena judge known-release build hf://datasets/HuggingFaceFW/fineweb/sample/10BT --out fineweb-10BT.known
    """
    from athena.cli_output import note, progress
    from athena.judge.known_build import KnownPlan, build_known
    from athena.refine.sources.opening import open_sources

    if one_in.bit_count() != 1:
        raise BadInput(f"{one_in} is no power of two", remedy="use --one-in 16")
    plan = KnownPlan(name or _shown(sources[0]), false_positives, one_in.bit_length() - 1)
    with progress("reading documents") as step:
        info, rejected = build_known(open_sources(sources), plan, out, step)
    if rejected:
        note("passed over: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(rejected.items())))
    note(f"{info.name} at {info.revision}: {info.documents:,} documents, {info.items:,} items")
    typer.echo(f"{out}  {out.stat().st_size:,} bytes  sha256 of its bits {info.sha256}")


def _shown(source: str) -> str:
    """Of a file or folder its last name, which says nothing of this machine."""
    return source if "://" in source else Path(source).name or source
