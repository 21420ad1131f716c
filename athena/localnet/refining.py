"""`athena refine`: anything that text is read from → a dataset folder, on this machine or on a cluster."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from athena.events import EventLog
from athena.localnet.trial import NOBODY, RULE_VERSION
from athena.protocol import MAX_WARCS_PER_SHARD, Manifest, Shard, Task, canonical_json
from athena.refine.assembly import Label, finished_manifest
from athena.refine.flow import Flow
from athena.refine.manifest import DATA_FILE
from athena.refine.parts import Parts
from athena.refine.recipe import Recipe, load_recipe
from athena.refine.report import write_report
from athena.refine.run import Finished, Work, refine_sources
from athena.refine.sources.opening import Source, open_sources

_LOCAL_CRAWL = "LOCAL-files"
_RATE_SECONDS = 20.0


@dataclass(frozen=True)
class Slurm:
    """Where Slurm runs the jobs, and how long one may take."""

    partition: str
    time_limit: str


@dataclass(frozen=True)
class Ray:
    """The cluster at RAY_ADDRESS, or one that is started on this machine."""


def refine_inputs(
    inputs: Sequence[str],
    recipe: str,
    out: Path,
    console: Console,
    *,
    workers: int,
    cluster: Slurm | Ray | None = None,
) -> None:
    """Refines what `open_sources` makes of the inputs into `out`, here or on a cluster; Slurm only takes the jobs.

    Interrupted and called again, it goes on. Raises what `open_sources`, `load_recipe` and `refine_sources` raise.
    """
    sources = sorted(open_sources(inputs), key=lambda source: source.name)
    work = Work(load_recipe(recipe), sources, workers=workers)
    label, out = _label(sources), out.absolute()
    done = finished_manifest(out, label, work.recipe)
    report = partial(_write_report, work.recipe, out)
    if done is not None and not Parts.beside(out).folder.exists():
        console.print("nothing to do: this dataset is finished")
        _summarise(done, out, console)
    elif isinstance(cluster, Slurm):
        from athena.refine.executors import submit_to_slurm  # datatrove's executors take a second to import

        job = submit_to_slurm(
            work, label, out, partition=cluster.partition, time_limit=cluster.time_limit, finished=report
        )
        console.print(f"submitted; the dataset is whole when job {job} has ended; scripts and logs: {out}.jobs")
    elif isinstance(cluster, Ray):
        from athena.refine.executors import run_on_ray

        _summarise(run_on_ray(work, label, out, finished=report), out, console)
    else:
        _summarise(_refine_here(work, label, out, report, console), out, console)


def _label(sources: Sequence[Source]) -> Label:
    """WARC files make the task that `athena score` finds them again by; its id derives from content in either case."""
    names = tuple(source.name for source in sources)
    if len(names) <= MAX_WARCS_PER_SHARD and all(name.startswith(f"crawl-data/{_LOCAL_CRAWL}/") for name in names):
        task = Task(shard=Shard(crawl=_LOCAL_CRAWL, warc_paths=names), rule_version=RULE_VERSION, opened_block=0)
        return Label(task.id, NOBODY, RULE_VERSION)
    digest = hashlib.sha256(canonical_json({"sources": list(names), "rule_version": RULE_VERSION}))
    return Label(digest.hexdigest()[:32], NOBODY, RULE_VERSION)


def _refine_here(work: Work, label: Label, out: Path, report: Finished, console: Console) -> Manifest:
    parts = Parts.beside(out)
    parts.open(work.identity(label))
    before = [parts.of(index).counts().records for index in range(len(work.sources))]
    if any(before):
        console.print(f"goes on after {sum(before):,} records of {sum(map(bool, before))} files", highlight=False)
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        board = _Board(progress, work)
        return refine_sources(work, label, out, events=EventLog(None), heartbeat=board.show, finished=report)


def _write_report(recipe: Recipe, out: Path, manifest: Manifest, flow: Flow) -> None:
    table = pq.read_table(out / DATA_FILE, use_threads=False)
    write_report(_report_of(out), manifest=manifest, recipe=recipe, table=table, flow=flow)


def _report_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.report.html")


class _Board:
    """One line: records, kept, pace over the last seconds, workers, files."""

    def __init__(self, progress: Progress, work: Work) -> None:
        self._progress, self._workers = progress, work.workers
        self._bar = progress.add_task("starting", total=len(work.sources))
        self._seen: deque[tuple[float, int]] = deque()

    def show(self, counts: dict[str, int]) -> None:
        records, rows = counts["records"], counts["rows"]
        text = f"{records:,} records, {rows:,} kept, {self._pace(records):.0f}/s"
        if "busy" in counts:
            text += f", {counts['busy']} of {self._workers} workers busy"
        if counts.get("replaced"):
            text += f", {counts['replaced']} replaced"
        self._progress.update(self._bar, description=text, completed=counts["warcs"])

    def _pace(self, records: int) -> float:
        now = time.monotonic()
        self._seen.append((now, records))
        while now - self._seen[0][0] > _RATE_SECONDS:
            self._seen.popleft()
        start, first = self._seen[0]
        return (records - first) / max(now - start, 1e-9)


def _summarise(manifest: Manifest, out: Path, console: Console) -> None:
    table = Table("dropped by", "records", box=None)
    for reason, count in sorted(manifest.rejected.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(reason, f"{count:,}")
    console.print(table)
    undecided = sum(count for reason, count in manifest.rejected.items() if reason.startswith("none."))
    if undecided:
        console.print(f"[yellow]{undecided:,} records could not be decided on this machine[/]: see none.* above")
    console.print(
        f"{manifest.rows:,} documents of {manifest.records:,} records, {manifest.tokens:,} tokens in {out}",
        highlight=False,
    )
    if _report_of(out).exists():
        console.print(f"report: {_report_of(out)}", highlight=False)
