"""Judging files on this machine, with nobody else: `athena score`."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from athena.crawl import local_crawl, open_crawl
from athena.errors import BadInput
from athena.evalpack import EvalPack, load_pack
from athena.events import EventLog
from athena.hub import open_hub
from athena.judge.assess import Bench, Case, assess
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.rules import Rules, rules_of
from athena.localnet.ground import build_pack
from athena.protocol import MAX_WARCS_PER_SHARD, Commitment, DatasetRef, Manifest, ScoreSheet, Shard, Task
from athena.refine.manifest import Limits, load_dataset

NOBODY = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"  # the all-zero key: a trial is in nobody's name
RULE_VERSION = "1"


def _lay_out(inputs: Sequence[Path], root: Path, console: Console) -> Task:
    """A crawl of the files below `root`, and the task of refining them all."""
    if len(inputs) > MAX_WARCS_PER_SHARD:
        raise BadInput(f"{len(inputs)} files, over {MAX_WARCS_PER_SHARD}", remedy="refine them in several datasets")
    layout = local_crawl(list(inputs), root)
    for path, reason in layout.refused:
        console.print(f"[yellow]left out[/] {path}: {reason}", highlight=False)
    shard = Shard(crawl=layout.crawl_id, warc_paths=tuple(sorted(layout.warc_paths)))
    return Task(shard=shard, rule_version=RULE_VERSION, opened_block=0)


def score_folder(
    dataset: Path, warcs: Sequence[Path], eval_pack: Path | None, rules_version: str, proxies: bool, console: Console
) -> ScoreSheet:
    """Judges a dataset that `athena refine` made of `warcs`, and prints the verdicts.

    Raises BadInput when the dataset is malformed or was not made of these files.
    """
    manifest = load_dataset(dataset, limits=Limits()).manifest
    with tempfile.TemporaryDirectory(prefix="athena-score-") as name:
        folder = Path(name)
        task = _lay_out(warcs, folder / "crawl", console)
        if manifest.task_id != task.id:
            raise BadInput(f"{dataset} was not refined from these files", remedy="give all of them, and no others")
        with ProxyWorkers() as workers:
            pack = _pack(eval_pack, folder, console)
            proxies_by = workers if proxies else None
            with console.status("judging"):
                sheet = judge_alone(dataset, manifest, task, folder, pack, rules_of(rules_version), proxies_by)
    report(sheet, console)
    return sheet


def judge_alone(
    dataset: Path,
    manifest: Manifest,
    task: Task,
    folder: Path,
    pack: EvalPack,
    rules: Rules,
    workers: ProxyWorkers | None = None,
) -> ScoreSheet:
    """What a validator finds in a dataset of the crawl in `folder`/crawl, with draws that nobody could foresee."""
    hub = open_hub((folder / "hub").as_uri())
    revision = hub.publish(dataset, "trial/dataset", message="trial")
    reference = DatasetRef(location=f"{hub.scheme}:trial/dataset", revision=revision, root=manifest.root)
    bench = Bench(
        hub=hub,
        crawl=open_crawl((folder / "crawl").as_uri()),
        pack=pack,
        rules=rules,
        validator=NOBODY,
        workdir=folder / "work",
        events=EventLog(None),
        workers=workers,
    )
    entropy = "0x" + secrets.token_hex(32)
    case = Case(
        task=task,
        commitment=Commitment(dataset=reference, task_id=task.id, hotkey=manifest.hotkey),
        issued_block=0,
        deadline_block=0,
        commit_block=0,
        seed_block=0,
        block_hash=entropy,
        reference_hash=entropy,
    )
    return assess(case, bench)


def _pack(eval_pack: Path | None, folder: Path, console: Console) -> EvalPack:
    if eval_pack is not None:
        return load_pack(eval_pack)
    with console.status("making an evaluation pack of local prose"):
        return build_pack(folder / "eval-pack")


def report(sheet: ScoreSheet, console: Console) -> None:
    """The gates' verdicts as a table, and what the proxies found where they ran."""
    table = Table("gate", "verdict", "why", box=None)
    for verdict in sheet.gates:
        table.add_row(verdict.gate, verdict.outcome, Text(verdict.reason))  # reasons quote the data
    console.print(table)
    if sheet.effect is not None:
        effect = sheet.effect
        console.print(
            f"{effect.mean:+.4f} [{effect.low:+.4f}, {effect.high:+.4f}] bits per byte better than canonical, "
            f"yield {sheet.yield_ratio:.2f}",
            highlight=False,
        )
