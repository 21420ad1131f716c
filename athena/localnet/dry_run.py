"""A miner's rehearsal: a sample of the crawl refined and judged on this machine, with nothing leased or committed."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from rich.console import Console

from athena.client import LedgerClient
from athena.crawl import Manners, local_crawl, open_crawl
from athena.errors import BadInput, NotFound, Unavailable
from athena.events import EventLog
from athena.judge.inspection import NO_PACK
from athena.judge.rules import rules_of
from athena.localnet.sheet_report import print_report
from athena.localnet.trial import NOBODY, RULE_VERSION, judge_alone
from athena.protocol import ScoreSheet, Shard, Task
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task
from athena.settings import MinerSettings

SAMPLE_BYTES = 64 << 20
"""Read of a WARC file: 1,700 pages of a crawl of 2026, a minute or two of one core."""
_CHUNK_BYTES = 1 << 20


class WouldFail(BadInput):
    """A validator would refuse what this recipe makes of the sample."""


def dry_run(settings: MinerSettings, console: Console | None = None) -> None:
    """Refines a sample with the miner's recipe and prints the verdicts of the gates.

    Without a validator's evaluation pack and other miners' sets, nothing is said about overlap with either. Raises
    WouldFail for a verdict of fail, Unavailable for one of none, NotFound where the task server has no open task, and
    what reading the sample raises.
    """
    console = console or Console()
    with tempfile.TemporaryDirectory(prefix="athena-dry-run-") as name:
        sheet = _rehearse(settings, Path(name), console)
    print_report(sheet, rules_of(sheet.rule_version), console)
    last = sheet.gates[-1]
    if sheet.outcome == "fail":
        raise WouldFail(f"validators would refuse this: {last.gate}: {last.reason}", remedy="mend the recipe")
    if sheet.outcome == "none":
        raise Unavailable(f"could not be judged: {last.gate}: {last.reason}", remedy="try again")


def _rehearse(settings: MinerSettings, folder: Path, console: Console) -> ScoreSheet:
    warc, rule_version = settings.dry_run_warc, RULE_VERSION
    if warc is None:
        warc = folder / "sample"
        rule_version = _fetch_sample(settings, warc, console)
    layout = local_crawl([warc], folder / "crawl")
    shard = Shard(crawl=layout.crawl_id, warc_paths=layout.warc_paths)
    task = Task(shard=shard, rule_version=rule_version, opened_block=0)
    with console.status("refining"):
        manifest = refine_task(
            task, NOBODY, load_recipe(settings.recipe), open_crawl((folder / "crawl").as_uri()), folder / "dataset",
            workers=settings.num_leases * settings.workers_per_lease, events=EventLog(None),
        )  # fmt: skip
    console.print(f"{manifest.rows} documents, {manifest.tokens:,} tokens of {manifest.records} records")
    with console.status("judging"):
        return judge_alone(folder / "dataset", manifest, task, folder, NO_PACK, rules_of(rule_version))


def _fetch_sample(settings: MinerSettings, into: Path, console: Console) -> str:
    """The beginning of a WARC file that a task is open for; the task's rule version.

    What the cut leaves of its last record is counted as broken and left out, as in any damaged file.
    """
    with LedgerClient(settings.task_server, None) as ledger:
        view = next(ledger.tasks(only_open=True), None)
    if view is None:
        raise NotFound("the task server has no open task", remedy="name a file with --dry-run-warc")
    path = view.task.shard.warc_paths[0]
    console.print(f"sample: the first {SAMPLE_BYTES >> 20} MiB of {path}", highlight=False)
    with (
        closing(open_crawl(settings.crawl_url, Manners(contact=settings.contact))) as crawl,
        crawl.open(path) as stream,
        into.open("wb") as file,
    ):
        left = SAMPLE_BYTES
        while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
            file.write(chunk)
            left -= len(chunk)
    return view.task.rule_version
