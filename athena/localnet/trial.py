"""Judging on this machine, with nobody else: `athena score`."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from athena.client import LedgerClient
from athena.crawl import Crawl, Manners, local_crawl, open_crawl
from athena.errors import BadInput
from athena.evalpack import EvalPack, load_pack
from athena.events import EventLog
from athena.hub import Hub, open_hub
from athena.judge.assess import Bench, Case, assess
from athena.judge.known import KnownRelease, open_known
from athena.judge.proxy.arms import Measured, ProxyWorkers
from athena.judge.proxy.comparison import Comparison
from athena.judge.rules import Rules
from athena.localnet.ground import build_pack
from athena.protocol import MAX_WARCS_PER_SHARD, Commitment, DatasetRef, Manifest, ScoreSheet, Shard, Task
from athena.refine.manifest import MANIFEST_FILE, Limits

NOBODY = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"  # the all-zero key: a trial is in nobody's name
RULE_VERSION = "1"
_QUERY_SECONDS = 15.0  # of retries: somebody waits for the answer


@dataclass(frozen=True)
class Sources:
    """Where a trial finds what it needs beside the dataset.

    `warcs` are the files that it was refined from; without any, the task server at `server` names them, and the crawl
    at `crawl_url` has them. Without an evaluation pack one is made of local prose. `known_releases` are filters of
    releases that the dataset may not repeat.
    """

    hub: str = "hf://"
    warcs: tuple[Path, ...] = ()
    server: str = ""
    crawl_url: str = ""
    eval_pack: Path | None = None
    known_releases: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Trial:
    """What was found about a dataset; `measured` by the arms of its comparison, none where there was none."""

    sheet: ScoreSheet
    measured: tuple[Measured, ...]


def score_dataset(dataset: str, sources: Sources, rules: Rules, console: Console, *, proxies: bool) -> Trial:
    """Judges a dataset: a folder that `athena refine` made, or a reference such as hf:org/name@revision#root.

    Raises BadInput when it is malformed or was not made of these files, NotFound where it or its task is not, and
    Unavailable for faults of the hub, the task server or this machine.
    """
    with tempfile.TemporaryDirectory(prefix="athena-score-") as name:
        folder = Path(name)
        hub, ref, manifest = _opened(dataset, sources.hub, folder)
        task, crawl = _task(dataset, manifest, sources, folder, console)
        if manifest.root != ref.root:
            raise BadInput(f"the manifest of {dataset} has another root than the reference")
        pack = pack_of(sources.eval_pack, folder, console)
        with ProxyWorkers() if proxies else nullcontext() as workers, console.status("judging"):
            return judge(
                ref, manifest.hotkey, task, folder, hub=hub, crawl=crawl, pack=pack, rules=rules, workers=workers,
                known=tuple(map(open_known, sources.known_releases)),
            )  # fmt: skip


def judge_alone(
    dataset: Path, manifest: Manifest, task: Task, folder: Path, pack: EvalPack, rules: Rules
) -> ScoreSheet:
    """What the gates find in a dataset folder of the crawl in `folder`/crawl."""
    hub, ref = _shelved(dataset, manifest.root, folder)
    crawl = open_crawl((folder / "crawl").as_uri())
    return judge(ref, manifest.hotkey, task, folder, hub=hub, crawl=crawl, pack=pack, rules=rules, workers=None).sheet


def judge(
    ref: DatasetRef,
    hotkey: str,
    task: Task,
    folder: Path,
    *,
    hub: Hub,
    crawl: Crawl,
    pack: EvalPack,
    rules: Rules,
    workers: ProxyWorkers | None,
    known: tuple[KnownRelease, ...] = (),
) -> Trial:
    """What a validator finds in a dataset, with draws that nobody could foresee."""
    bench = Bench(
        hub=hub, crawl=crawl, pack=pack, rules=rules, validator=NOBODY, workdir=folder / "work",
        events=EventLog(None), workers=workers, known=known,
    )  # fmt: skip
    entropy = "0x" + secrets.token_hex(32)
    case = Case(
        task=task,
        commitment=Commitment(dataset=ref, task_id=task.id, hotkey=hotkey),
        issued_block=0,
        deadline_block=0,
        commit_block=0,
        seed_block=0,
        block_hash=entropy,
        reference_hash=entropy,
    )
    comparisons = list[Comparison]()
    sheet = assess(case, bench, comparisons.append)
    return Trial(sheet, tuple(measured for comparison in comparisons for measured in comparison.measured))


def pack_of(eval_pack: Path | None, folder: Path, console: Console) -> EvalPack:
    """The pack in a folder, or one that is made of local prose."""
    if eval_pack is not None:
        return load_pack(eval_pack)
    with console.status("making an evaluation pack of local prose"):
        return build_pack(folder / "eval-pack")


def _opened(dataset: str, hub_url: str, folder: Path) -> tuple[Hub, DatasetRef, Manifest]:
    """The hub that a dataset lies on, where on it, and its manifest."""
    if Path(dataset).is_dir():
        hub, ref = _shelved(Path(dataset), "0" * 64, folder)
        manifest = _manifest(hub, ref, folder)
        return hub, ref.model_copy(update={"root": manifest.root}), manifest
    if "@" not in dataset:
        raise BadInput(f"{dataset} is no folder and no reference", remedy="a reference is hf:org/name@revision#root")
    ref = DatasetRef.parse(dataset)
    hub = open_hub(hub_url)
    if ref.scheme != hub.scheme:
        raise BadInput(f"{hub_url} is another kind of hub than {ref.scheme}:", remedy="name the right one with --hub")
    return hub, ref, _manifest(hub, ref, folder)


def _shelved(dataset: Path, root: str, folder: Path) -> tuple[Hub, DatasetRef]:
    """A folder as it would lie on a hub."""
    hub = open_hub((folder / "hub").as_uri())
    revision = hub.publish(dataset, "trial/dataset", message="trial")
    return hub, DatasetRef(location=f"{hub.scheme}:trial/dataset", revision=revision, root=root)


def _manifest(hub: Hub, ref: DatasetRef, folder: Path) -> Manifest:
    most = Limits().max_manifest_bytes
    into = hub.fetch(ref.repository, ref.revision, folder / "manifest", max_bytes=most, suffixes=(MANIFEST_FILE,))
    file = into / MANIFEST_FILE
    if not file.exists():
        raise BadInput(f"{ref.location} has no {MANIFEST_FILE}", remedy="name a dataset that `athena refine` made")
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"the manifest of {ref.location} is none: {error.error_count()} faults") from error


def _task(dataset: str, manifest: Manifest, sources: Sources, folder: Path, console: Console) -> tuple[Task, Crawl]:
    """What was refined, and the crawl that has it."""
    if sources.warcs:
        task = _lay_out(sources.warcs, folder / "crawl", console)
        if manifest.task_id != task.id:
            raise BadInput(f"{dataset} was not refined from these files", remedy="give all of them, and no others")
        return task, open_crawl((folder / "crawl").as_uri())
    if not (sources.server and sources.crawl_url):
        raise BadInput("nothing to check the dataset against", remedy="give --warc, or --server and --crawl-url")
    with LedgerClient(sources.server, None, retry_seconds=_QUERY_SECONDS) as client:
        task = client.task(manifest.task_id)
    return task, open_crawl(sources.crawl_url, Manners())


def _lay_out(inputs: Sequence[Path], root: Path, console: Console) -> Task:
    """A crawl of the files below `root`, and the task of refining them all."""
    if len(inputs) > MAX_WARCS_PER_SHARD:
        raise BadInput(f"{len(inputs)} files, over {MAX_WARCS_PER_SHARD}", remedy="refine them in several datasets")
    layout = local_crawl(list(inputs), root)
    for path, reason in layout.refused:
        console.print(f"[yellow]left out[/] {path}: {reason}", highlight=False)
    shard = Shard(crawl=layout.crawl_id, warc_paths=tuple(sorted(layout.warc_paths)))
    return Task(shard=shard, rule_version=RULE_VERSION, opened_block=0)
