"""The console commands for whoever answers for a rule version: `athena judge calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from athena import cli_known
from athena.cli_records import Json

if TYPE_CHECKING:
    from athena.judge.calibration import Calibration

app = typer.Typer(
    name="judge",
    help="Measure the noise of the judge's proxy models, which the pay formula's constants are made of.",
    no_args_is_help=True,
)
app.add_typer(cli_known.app)


@app.command()
def calibrate(
    paths: Annotated[list[str], typer.Argument(help="WARC files of the crawl, each a task of its own; ten or more.")],
    crawl_url: Annotated[str, typer.Option(help="Where the crawl lies.")],
    eval_pack: Annotated[Path, typer.Option(help="Folder of the evaluation pack.", exists=True, file_okay=False)],
    rules: Annotated[str, typer.Option(help="Rule version.")] = "1",
    seeds: Annotated[int, typer.Option(min=2, help="Arms of each text.")] = 8,
    processes: Annotated[int, typer.Option(min=1, help="Arms at a time, each on one core.")] = 1,
    workdir: Annotated[Path, typer.Option(help="Folder of texts and results; an existing one goes on.")] = Path(
        "calibration"
    ),
    as_json: Json = False,
) -> None:
    """Measure how noisy a rule version's proxy models are, over seeds, domains and tasks.

    Each WARC file is refined with the canonical recipe, another honest one and the raw one; small models are trained
    on each text as a validator does it, over many seeds, and on canonical text with its words shuffled. Says what the
    version's σ are to be, and how far the canaries lie from canonical text.

    Example: athena judge calibrate crawl-data/…/00000.warc.gz --crawl-url file:///srv/crawl --eval-pack eval-pack
    """
    from athena.cli_output import json_line, note, progress
    from athena.crawl import open_crawl
    from athena.durable import write_file
    from athena.evalpack import load_pack
    from athena.judge.calibration_runs import CalibrationPlan
    from athena.judge.proxy.arms import ProxyWorkers
    from athena.judge.rules import rules_of

    plan = CalibrationPlan(
        tuple(dict.fromkeys(paths)), open_crawl(crawl_url), load_pack(eval_pack), rules_of(rules), seeds, workdir
    )
    with progress("refining files", every=1) as step:
        tasks = plan.tasks(lambda done: step(done, len(plan.paths)))
    with ProxyWorkers(processes) as workers, progress("training arms", every=1) as step:
        found = plan.measure(tasks, workers, step)
    result = workdir / "calibration.json"
    write_file(result, found.canonical())
    if as_json:
        typer.echo(json_line(found))
    else:
        _print(found)
    note(f"kept in {result}")


def _print(found: Calibration) -> None:
    from athena.cli_output import cell, print_table, table_of

    table = table_of("noise, bits per byte", "measured", "degrees of freedom")
    rows = (
        ("over seeds, mean over domains (sigma_seed)", found.sigma_seed, found.seed_freedom),
        ("over seeds, one domain (sigma_domain)", found.sigma_domain, found.seed_freedom),
        ("over tasks, one recipe (sigma_task)", found.sigma_task, found.task_freedom),
        ("over documents, one domain of a comparison", found.document_error, None),
        *((f"over seeds, {domain}", sigma, found.seed_freedom) for domain, sigma in found.by_domain.items()),
    )
    for row in rows:
        table.add_row(*map(cell, row))
    print_table(table)
    table = table_of("text", "effect against canonical", "lowest", "highest", "spread over seeds")
    for contrast in found.contrasts:
        span = (contrast.mean, min(contrast.effects), max(contrast.effects), contrast.sigma_seed)
        table.add_row(*map(cell, (contrast.name, *span)))
    print_table(table)
    typer.echo(f"canaries out of order in {found.abstained} of {found.tasks} tasks")
    typer.echo(f"for the rules of version {found.rule_version}: {found.constants}")
