"""The console command `athena score`: the very judge on any dataset, and on what a validator says it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from athena.errors import AthenaError, BadInput

if TYPE_CHECKING:
    from athena.judge.verification import Difference
    from athena.protocol import SignedSheet

_DATASET = "dataset"
EvalPack = Annotated[Path | None, typer.Option(help="Folder of the evaluation pack.", exists=True)]
Hub = Annotated[str, typer.Option(help="Where referenced datasets lie: hf:// or file:///folder.")]
Known = Annotated[
    list[Path] | None,
    typer.Option(help="Filter of a release that may not be repeated; may be given again.", exists=True),
]
Server = Annotated[str, typer.Option(envvar="ATHENA_TASK_SERVER", help="Address of a task server.")]


class SheetDiffers(AthenaError):
    """A score sheet that does not hold."""

    code = "sheet-differs"


class _DatasetFirst(TyperGroup):
    """`athena score PATH` is `athena score dataset PATH`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_DATASET, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="score",
    cls=_DatasetFirst,
    help="Judge a dataset as a validator does: `athena score PATH`; or check a validator: `athena score verify SHEET`.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command(_DATASET)
def score_dataset(
    dataset: Annotated[str, typer.Argument(help="Folder made by `athena refine`, or hf:org/name@revision#root.")],
    warc: Annotated[
        list[Path] | None, typer.Option(help="A WARC file that it was refined from; may be given again.", exists=True)
    ] = None,
    server: Server = "",
    crawl_url: Annotated[str, typer.Option(help="The crawl, where the task server knows the files.")] = "",
    hub: Hub = "hf://",
    eval_pack: EvalPack = None,
    known_release: Known = None,
    rules: Annotated[str, typer.Option(help="Rule version: 1, or demo-1 with small budgets.")] = "demo-1",
    proxy: Annotated[bool, typer.Option(help="Train the proxy models too (needs the validator extra).")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML page, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The score sheet instead of a report.")] = False,
) -> None:
    """Judge a dataset as a validator would, before anything is staked on it. `dataset` may be left out.

    Without --eval-pack, a pack is made of prose on this machine. The files that the dataset was made from are given
    with --warc; of a network's dataset, the task server names them, and the crawl has them.

    Example: athena score my-dataset --warc shard.warc.gz --proxy --html report.html
    """
    from rich.console import Console

    from athena.cli_output import json_line
    from athena.judge.rules import rules_of
    from athena.localnet.sheet_report import print_report, write_page
    from athena.localnet.trial import Sources
    from athena.localnet.trial import score_dataset as judged

    version = rules_of(rules)
    sources = Sources(hub, tuple(warc or ()), server, crawl_url, eval_pack, tuple(known_release or ()))
    trial = judged(dataset, sources, version, Console(stderr=as_json), proxies=proxy)
    if html is not None:
        write_page(html, trial.sheet, version, trial.measured)
    if as_json:
        typer.echo(json_line(trial.sheet))
    else:
        print_report(trial.sheet, version, Console(), trial.measured)


@app.command()
def verify(
    sheet: Annotated[Path, typer.Argument(help="File of signed score sheets, one a line.", exists=True)],
    crawl_url: Annotated[str, typer.Option(help="The crawl: judge the data again, too.")] = "",
    hub: Hub = "hf://",
    eval_pack: EvalPack = None,
    known_release: Known = None,
    server: Server = "",
    network: Annotated[
        str, typer.Option(help="Chain to look the seed block up on: finney, test or a ws:// address.")
    ] = "",
) -> None:
    """Check score sheets: signature, seeds, effect, verdict and units. With --crawl-url and --eval-pack, judge again.

    Judging again fetches the dataset, asks every gate and trains every arm with the sheet's own draws, and compares
    within the published tolerance. With --network, the block that the draws come from is looked up, too. The exit code
    is 0 where all holds, 1 where something differs, 75 where this machine could not tell.

    Example: athena scores --task 0f3c7a52d9b14e6685f2c3aa90d1be47 --json > sheets.jsonl
             athena score verify sheets.jsonl
    """
    from rich.console import Console

    from athena.localnet.recheck import Data, differences, judged_again, read_sheets, unlike_chain

    if bool(crawl_url) != (eval_pack is not None):
        raise BadInput("judging again takes both --crawl-url and --eval-pack", remedy="give both, or neither")
    bad = 0
    for signed in read_sheets(sheet):
        found = differences(signed)
        if not found and network:
            found = unlike_chain(signed.sheet, network)
        if not found and eval_pack is not None:
            data = Data(hub, crawl_url, eval_pack, server, tuple(known_release or ()))
            found = judged_again(signed.sheet, data, Console(stderr=True))
        _tell(signed, found)
        bad += bool(found)
    if bad:
        raise SheetDiffers(f"{bad} of these score sheets do not hold")


def _tell(signed: SignedSheet, found: list[Difference]) -> None:
    from athena.client_http import printable

    about = signed.sheet
    typer.echo(f"{'differs' if found else 'holds'}: task {about.task_id} of {about.hotkey} by {about.validator}")
    for difference in found:
        typer.echo(printable(f"  {difference.what}: stated {difference.stated}, found {difference.found}"))
