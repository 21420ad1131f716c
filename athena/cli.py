"""The console command `athena`. Imports what a command needs when it runs: `athena --help` answers at once."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from athena import (
    cli_audit,
    cli_eval,
    cli_evalpack,
    cli_explain,
    cli_judge,
    cli_lineage,
    cli_recipe,
    cli_records,
    cli_release,
    cli_runs,
    cli_score,
    cli_site,
    cli_train,
)
from athena.errors import AthenaError, BadInput, Misconfigured

app = typer.Typer(
    name="athena",
    help="Turn the public web into training data, prove which data is good, train a model on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def main() -> None:
    """Runs a command; a typed error becomes one line with its remedy, and an exit code."""
    try:
        app()
    except AthenaError as error:
        typer.secho(f"athena: {error.message}", fg="red", err=True)
        if error.remedy:
            typer.secho(f"  {error.remedy}", err=True)
        sys.exit(error.exit_code)


@app.command()
def demo(
    warc: Annotated[list[Path] | None, typer.Option(help="WARC file to use as the crawl; may be given again.")] = None,
    crawl: Annotated[str | None, typer.Option(help="A Common Crawl id such as CC-MAIN-2026-43.")] = None,
    crawl_url: Annotated[str, typer.Option(help="Where that crawl lies.")] = "https://data.commoncrawl.org",
    limit_warcs: Annotated[int, typer.Option(min=1, help="How many WARC files of the crawl to use.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the summary, the release and all state.")] = Path("demo-out"),
    pages: Annotated[int, typer.Option(min=20, help="Pages of the crawl that is made from local prose.")] = 520,
    seed: Annotated[int, typer.Option(help="Seed of that crawl.")] = 0,
) -> None:
    """Run the whole network on this machine: WARC files in, a released model out.

    Without --warc or --crawl it makes a small crawl from prose that lies on this machine, so it needs no network.
    """
    from rich.console import Console

    from athena.localnet.demo import DemoPlan, run_demo

    if warc and crawl:
        raise BadInput("--warc and --crawl exclude each other", remedy="give one of them")
    plan = DemoPlan(
        out=out,
        warcs=tuple(warc or ()),
        crawl=crawl,
        crawl_url=crawl_url,
        limit_warcs=limit_warcs,
        pages=pages,
        seed=seed,
    )
    run_demo(plan, Console())


@app.command()
def devchain(
    database: Annotated[Path, typer.Option(help="File of the chain's state; an existing one goes on.")] = Path(
        "devchain.sqlite"
    ),
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 9944,
    netuid: Annotated[int, typer.Option(help="Number of the one subnet.")] = 1,
    tempo: Annotated[int, typer.Option(min=2, help="Blocks per epoch.")] = 40,
    block_seconds: Annotated[float, typer.Option(min=0.05, help="Seconds per block.")] = 0.25,
    reveal_blocks: Annotated[int, typer.Option(min=1, help="Blocks until a sealed commitment is revealed.")] = 8,
    stake: Annotated[
        list[str] | None, typer.Option(help="HOTKEY=TAO: stake of a validator; may be given again.")
    ] = None,
    balance: Annotated[
        list[str] | None, typer.Option(help="COLDKEY=TAO: balance at genesis; may be given again.")
    ] = None,
    events: Annotated[Path | None, typer.Option(help="File to append one JSON line per event to.")] = None,
) -> None:
    """Run a stand-in chain on this machine, which the unmodified bittensor SDK and btcli talk to.

    Signatures, nonces, quotas and errors are as on the real chain; consensus, fees and drand are not. Loopback only.
    """
    from pydantic import ValidationError

    from athena.chain.devnode.server import serve
    from athena.chain.devnode.settings import DevnodeSettings

    try:
        settings = DevnodeSettings(
            database=database,
            port=port,
            netuid=netuid,
            tempo=tempo,
            block_seconds=block_seconds,
            reveal_blocks=reveal_blocks,
            stakes=_amounts(stake or []),
            balances=_amounts(balance or []),
            events=events,
        )
    except ValidationError as error:
        problems = "; ".join(f"{e['loc'][0] if e['loc'] else 'settings'}: {e['msg']}" for e in error.errors())
        raise Misconfigured(problems, remedy="see athena devchain --help") from error
    serve(settings)


def _amounts(pairs: list[str]) -> dict[str, float]:
    try:
        return {key: float(amount) for key, amount in (pair.split("=", 1) for pair in pairs)}
    except ValueError as error:
        raise BadInput(f"not KEY=TAO: {error}") from error


def _become(module: str, context: typer.Context) -> None:
    """Replaces this process by a room's own: the library never imports the loops or the task server."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *context.args])


@app.command(context_settings=PASS_THROUGH)
def server(context: typer.Context) -> None:
    """Run, fill and look after the task server: `athena server --help`."""
    _become("task_server", context)


@app.command(context_settings=PASS_THROUGH)
def miner(context: typer.Context) -> None:
    """Run a miner: `athena miner --help`. What the one on this machine holds and did: `athena miner status`."""
    if context.args[:1] == ["status"]:
        from athena import cli_miner

        cli_miner.app(context.args, prog_name="athena miner")  # exits
    _become("neurons.miner", context)


@app.command(context_settings=PASS_THROUGH)
def validator(context: typer.Context) -> None:
    """Run a validator: `athena validator --help`. What the one on this machine did: `athena validator status`."""
    if context.args[:1] == ["status"]:
        from athena import cli_validator

        cli_validator.app(context.args, prog_name="athena validator")  # exits
    _become("neurons.validator", context)


@app.command(context_settings=PASS_THROUGH)
def trainer(context: typer.Context) -> None:
    """Run a trainer: `athena trainer --help`."""
    _become("neurons.trainer", context)


class Executor(StrEnum):
    LOCAL = "local"
    SLURM = "slurm"
    RAY = "ray"


@app.command()
def refine(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Files (WARC, WET, text, tables, PDF), folders, https:// or hf://datasets/ addresses."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    recipe: Annotated[str, typer.Option(help="Recipe name, or a Python file that defines RECIPE.")] = "fineweb-1",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, or cluster tasks, at a time; by default one per core.")
    ] = None,
    executor: Annotated[
        Executor, typer.Option(help="local: this machine. slurm, ray: a cluster that shares the folder.")
    ] = Executor.LOCAL,
    partition: Annotated[str, typer.Option(help="Slurm's partition.")] = "cpu",
    time_limit: Annotated[str, typer.Option(help="Slurm's limit for one file.")] = "04:00:00",
) -> None:
    """Refine files into a dataset (Parquet and a manifest), as a miner does. Goes on where it was interrupted."""
    from rich.console import Console

    from athena.localnet.refining import Ray, Slurm, refine_inputs

    cluster = {Executor.LOCAL: None, Executor.SLURM: Slurm(partition, time_limit), Executor.RAY: Ray()}[executor]
    refine_inputs(inputs, recipe, out, Console(), workers=workers or os.cpu_count() or 1, cluster=cluster)


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(help="Model, as athena@stable, org/name@0.1.0 or org/name@<revision>; @latest by default.")
    ],
    into: Annotated[Path | None, typer.Option(help="Folder to write to; by default named like the model.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check a folder that is there already.")] = False,
    trainer: Annotated[str | None, typer.Option(help="Hotkey that has to have signed it.")] = None,
    network: Annotated[
        str, typer.Option(help="Chain on which the trainer has to have committed to it: finney, test or ws://….")
    ] = "",
    netuid: Annotated[int, typer.Option(help="Subnet number on that chain.")] = 1,
    hub: Annotated[str, typer.Option(envvar="ATHENA_HUB", help="hf:// or file:///folder.")] = "hf://",
) -> None:
    """Download a released model; its files, signature and journal are verified before it gets its name.

    Goes on where it was interrupted. What was changed, or yanked, is refused.

    Example: athena download athena@stable --verify --network finney --netuid 63
    """
    from athena.cli_output import downloading
    from athena.client_http import printable
    from athena.release_hub import Wanted, obtain

    wanted = Wanted.parse(name, trainer=trainer, network=network, netuid=netuid)
    with downloading(f"downloading {printable(name)}") as step:
        release, folder = obtain(wanted, hub, into, again=verify, progress=step)
    typer.echo(f"{release.name} {release.version}, {release.parameters:,} parameters, verified: {folder}")
    typer.echo(f"  signed by {release.trainer}")


@app.command()
def doctor(
    network: Annotated[str, typer.Option(help="Chain that this node will talk to.")] = "finney",
    wallet: Annotated[str | None, typer.Option(help="Wallet that this node will use.")] = None,
) -> None:
    """Say what this machine lacks for each kind of node, and how to mend it."""
    from athena.localnet.doctor import examine

    findings = examine(network, wallet)
    for finding in findings:
        typer.secho(f"{'ok  ' if finding.ok else 'LACK'} {finding.what}", fg=None if finding.ok else "red")
        if not finding.ok:
            typer.echo(f"     {finding.remedy}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


for query in cli_records.COMMANDS:
    app.command()(query)
app.command()(cli_eval.eval)
app.command()(cli_explain.explain)
app.command()(cli_site.crawl_site)
app.add_typer(cli_audit.app)
app.add_typer(cli_evalpack.app)
app.add_typer(cli_judge.app)
app.command()(cli_lineage.lineage)
app.add_typer(cli_recipe.app)
app.add_typer(cli_release.app)
app.add_typer(cli_runs.app)
app.add_typer(cli_score.app)
app.add_typer(cli_train.app)


if __name__ == "__main__":
    main()
