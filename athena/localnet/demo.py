"""The whole loop on one machine: crawl, chain, task server, miners, validators, trainer, release."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from athena.client import LedgerClient
from athena.crawl import local_crawl
from athena.errors import AthenaError, BadInput
from athena.events import EventLog
from athena.localnet.board import Board
from athena.localnet.ground import build_crawl, build_pack
from athena.localnet.network import VALIDATORS, Localnet
from athena.localnet.summary import closing_lines, describe, load_command, write_summary
from athena.localnet.supervise import Room, Supervisor

RECIPES = {"miner-canon": "fineweb-1", "miner-strict": "strict-1", "miner-lazy": "unfiltered-1"}
MARKER = "athena-demo"  # a folder with this file may be wiped by the next run


class NothingToTrain(AthenaError):
    """The loop ran, but no document of the crawl earned a place in the training set."""

    code = "nothing-to-train"
    exit_code = 3


@dataclass(frozen=True)
class DemoPlan:
    """What to run. Without `warcs` and `crawl`, a crawl is made from prose that lies on this machine."""

    out: Path
    warcs: tuple[Path, ...] = ()
    crawl: str | None = None
    crawl_url: str = "https://data.commoncrawl.org"
    limit_warcs: int = 2
    pages: int = 520
    seed: int = 0
    recipes: Mapping[str, str] = field(default_factory=lambda: dict(RECIPES))
    patience_seconds: float = 1800.0


class Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - start


def run_demo(plan: DemoPlan, console: Console) -> dict[str, Any]:
    """Runs the loop, writes `summary.json`, and returns the summary.

    Raises BadInput for input without a single usable WARC file, NothingToTrain when nothing was worth training on
    (the summary is written all the same), ProcessFailed when a process cannot run.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    watch = Stopwatch()
    folder = _clean_folder(plan.out)
    with watch.time("crawl"), console.status("laying out the crawl"):
        net = _lay_out(plan, folder / "run", console)
    hotkeys = net.create_wallets()
    net.write_plan(hotkeys)
    with Supervisor(EventLog(net.folder / "events" / "supervisor.jsonl")) as supervisor:
        with watch.time("start"), console.status("starting the chain and the task server"):
            _start_services(net, supervisor, hotkeys)
        ledger = LedgerClient(net.server_url, None)
        board, trainer = _start_nodes(net, supervisor, hotkeys, ledger)
        with Live(get_renderable=board.render, console=console, refresh_per_second=4, transient=True):
            nothing = _until_released(net, supervisor, board, trainer, plan.patience_seconds)
        release = None if nothing else _keep_release(net, trainer, folder)
        names = {hotkey: name for name, hotkey in hotkeys.items()}
        for stage in ("refine", "judge", "train"):
            first, last = board.span.get(stage, (0.0, 0.0))
            watch.seconds[stage] = last - first
        watch.seconds["total"] = time.monotonic() - started
        summary = describe(board, ledger, names, release, watch.seconds)
    write_summary(folder / "summary.json", summary)
    for line in closing_lines(summary):
        console.print(line, highlight=False, soft_wrap=True)
    if release is None:
        raise NothingToTrain(
            "no document of this crawl was accepted for training",
            remedy="give WARC files with English prose, or run without --warc",
        )
    console.print("\nTry it:\n  " + load_command(str(release)), highlight=False, soft_wrap=True, markup=False)
    return summary


def _clean_folder(out: Path) -> Path:
    """An empty folder, or the wiped one of an earlier run. Raises BadInput rather than wipe anything else."""
    out = out.absolute()
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise BadInput(f"{out} is not empty and not from an earlier demo", remedy="choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    (out / "run").mkdir(parents=True)
    (out / MARKER).write_text("made by `athena demo`; the next run wipes this folder\n")
    return out


def _lay_out(plan: DemoPlan, folder: Path, console: Console) -> Localnet:
    root = folder / "crawl"
    limit = None
    if plan.crawl is not None:
        crawl_id, crawl_url, limit = plan.crawl, plan.crawl_url, plan.limit_warcs
    elif plan.warcs:
        layout = local_crawl(list(plan.warcs), root)
        for path, reason in layout.refused:
            console.print(f"[yellow]left out[/] {path}: {reason}", highlight=False)
        if not layout.warc_paths:
            raise BadInput("none of the given files is a WARC file", remedy="give .warc or .warc.gz files")
        crawl_id, crawl_url = layout.crawl_id, root.as_uri()
    else:
        crawl_id, crawl_url = build_crawl(root, seed=plan.seed, pages=plan.pages, warcs=2).crawl_id, root.as_uri()
    net = Localnet(folder=folder, crawl_id=crawl_id, crawl_url=crawl_url, recipes=plan.recipes, limit_warcs=limit)
    build_pack(net.eval_pack, seed=plan.seed)
    return net


def _start_services(net: Localnet, supervisor: Supervisor, hotkeys: Mapping[str, str]) -> None:
    chain, crawl_import, server = net.chain(hotkeys), net.crawl_import(), net.server()
    _start(supervisor, chain, "devchain.ready")
    net.register_owner()
    supervisor.start(crawl_import)
    supervisor.wait(lambda: supervisor.finished("import"), what="importing the crawl's listing", seconds=600)
    _start(supervisor, server, "server.ready")


def _start(supervisor: Supervisor, room: Room, ready: str) -> None:
    supervisor.start(room)
    supervisor.wait(lambda: any(room.events(ready)), what=f"the start of {room.name}", seconds=60)


def _start_nodes(
    net: Localnet, supervisor: Supervisor, hotkeys: Mapping[str, str], ledger: LedgerClient
) -> tuple[Board, Room]:
    shards = ledger.stats().tasks
    trainer = net.trainer(min_datasets=1)
    rooms = [*net.miners(), *net.validators(), trainer]
    for room in rooms:
        supervisor.start(room)
    files = {room.name: room.event_file for room in rooms}
    files |= {name: net.folder / "events" / f"{name}.jsonl" for name in ("chain", "server")}
    names = {hotkeys[name]: name for name in net.recipes}
    return Board(files, names, shards), trainer


def _until_released(net: Localnet, supervisor: Supervisor, board: Board, trainer: Room, seconds: float) -> bool:
    """Watches until the trainer released, or all is judged and nothing was accepted (then returns True)."""
    submissions = board.shards * len(net.recipes)

    def settled_on_nothing() -> bool:
        outcomes = [board.validators[name].outcomes for name in VALIDATORS]
        passed = any("pass" in judged.values() for judged in outcomes)
        return not passed and all(len(judged) >= submissions for judged in outcomes)

    def done() -> bool:
        board.update()
        return supervisor.finished(trainer.name) or board.nothing or settled_on_nothing()

    supervisor.wait(done, what="the loop", seconds=seconds)
    board.update()
    return not supervisor.finished(trainer.name)


def _keep_release(net: Localnet, trainer: Room, folder: Path) -> Path:
    *_, released = trainer.events("trainer.released")
    target = folder / "release"
    shutil.copytree(Path(released["folder"]), target)
    return target
