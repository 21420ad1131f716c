"""A miner's work on one lease: refine, look through the gates, publish, commit, submit. Each step leaves a file, so a
restart goes on."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from athena.client import LedgerClient
from athena.crawl import Crawl
from athena.durable import write_file
from athena.errors import AthenaError, Conflict, NotFound
from athena.events import EventLog
from athena.hub import Hub
from athena.optout import left_out
from athena.protocol import Commitment, DatasetRef, Lease, Manifest, Submission, Verdict
from athena.refine.recipe import Recipe
from athena.refine.run import refine_task
from athena.refine.work.commits import CommitQueue
from athena.refine.work.status_board import StatusBoard

log = logging.getLogger("athena.miner")

Inspect = Callable[[Path, Lease, Crawl], Verdict]
"""The gates' word on the dataset in a folder, before anything is said about it in public."""


class Stopped(Exception):
    """The node is told to stop. What is on disk is whole: the next start goes on from it."""


class Unfit(AthenaError):
    """The finished dataset would fail a gate: committing to it would cost more than giving the task back."""

    code = "unfit"


class Heart:
    """Beats for one lease in a thread of its own, and tells the worker when the lease is lost."""

    def __init__(self, ledger: LedgerClient, lease: Lease) -> None:
        self._ledger = ledger
        self._lease = lease
        self._progress: dict[str, int] = {}
        self._lost: AthenaError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heart-{lease.id[:8]}", daemon=True)
        term = (lease.expires_at - lease.heartbeat_at).total_seconds()
        self._pause_seconds = min(60.0, max(0.2, term / 4))

    def report(self, progress: dict[str, int]) -> None:
        """Takes the worker's counts along. Raises Conflict once the server has given the lease up."""
        self._progress = dict(progress)
        self.check()

    def check(self) -> None:
        """Raises Conflict once the server has given the lease up."""
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        pause_seconds = 0.0  # a lease that was taken up again may be about to expire
        while not self._stop.wait(pause_seconds):
            pause_seconds = self._pause_seconds
            try:
                if self._ledger.heartbeat(self._lease, self._progress).cancel:
                    self._lost = Conflict(f"the task server cancelled lease {self._lease.id}")
            except (Conflict, NotFound) as error:
                self._lost = error if isinstance(error, Conflict) else Conflict(error.message)
            except AthenaError as error:  # out of reach: the lease outlives some missed beats
                log.warning("heartbeat of lease %s: %s", self._lease.id[:8], error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()


@dataclass(frozen=True)
class Workshop:
    """What a miner works with; shared by the threads of all its leases.

    `folder` holds one sub-folder per task that is not finished yet. `workers` are the refinery's processes for one
    lease. Once `stopping` is set, every lease stops within about a second of work, or of waiting for the chain.
    """

    ledger: LedgerClient
    commits: CommitQueue
    hub: Hub
    crawl: Crawl
    recipe: Recipe
    hotkey: str
    namespace: str
    folder: Path
    events: EventLog
    board: StatusBoard
    inspect: Inspect
    workers: int = 1
    stopping: threading.Event = field(default_factory=threading.Event)

    def sweep(self, held: Collection[str]) -> None:
        """Removes what is left of tasks that are not among those `held`."""
        for leftover in self.folder.glob("*"):
            if leftover.name not in held:
                log.info("removing what is left of task %s", leftover.name)
                shutil.rmtree(leftover, ignore_errors=True)

    def forget(self, lease: Lease) -> None:
        """Removes what there is of a task that this miner does not hold any more."""
        shutil.rmtree(self.folder / lease.task.id, ignore_errors=True)

    def carry_out(self, lease: Lease, heart: Heart) -> None:
        """From lease to submission; called again, it goes on where it was.

        Raises Conflict when the lease was lost, Late when its deadline cannot be met, Unfit when a gate would refuse
        the dataset, Stopped, and Unavailable when a service is away.
        """
        folder = self.folder / lease.task.id
        manifest = self._refine(folder, lease, heart)
        if not (folder / "committed").exists():
            self.commits.check(lease.deadline_block)
        dataset = self._publish(folder, lease, manifest, heart)
        heart.report({"rows": manifest.rows})
        self._commit(folder, lease, dataset, heart)
        self.board.stage(lease, "submitting")
        done = Submission(lease_id=lease.id, fencing=lease.fencing, dataset=dataset, manifest=manifest)
        accepted = self.ledger.submit(done).accepted
        if not accepted:
            log.warning("task %s: the submission came too late, and is not paid", lease.task.id)
        self.events.emit(
            "miner.submitted", task=lease.task.id, lease=lease.id, records=manifest.records, rows=manifest.rows,
            tokens=manifest.tokens, rejected=manifest.rejected,
        )  # fmt: skip
        shutil.rmtree(folder)
        self.board.submitted(lease, accepted=accepted)

    def _refine(self, folder: Path, lease: Lease, heart: Heart) -> Manifest:
        self.board.stage(lease, "refining")
        self.events.emit("miner.refining", task=lease.task.id, lease=lease.id)

        def beat(progress: dict[str, int]) -> None:
            self._go_on(heart)
            heart.report(progress)
            self.commits.check(lease.deadline_block)
            self.board.progress(lease, progress)

        excluded = left_out(self.ledger.opt_outs(), lease.issued_block)
        return refine_task(
            lease.task, self.hotkey, self.recipe, self.crawl, folder / "dataset",
            workers=self.workers, events=self.events, left_out=excluded, heartbeat=beat,
        )  # fmt: skip

    def _publish(self, folder: Path, lease: Lease, manifest: Manifest, heart: Heart) -> DatasetRef:
        """Publishes under a name that cannot be guessed: nobody finds the data before the commitment is revealed.

        The name is drawn once the dataset passed inspection, so that its file says so after a restart.
        """
        name_file = folder / "name"
        if not name_file.exists():
            self.board.stage(lease, "checking")
            verdict = self.inspect(folder / "dataset", lease, self.crawl)
            self.events.emit(
                "miner.inspected", task=lease.task.id, gate=verdict.gate, outcome=verdict.outcome,
                reason=verdict.reason,
            )  # fmt: skip
            if verdict.outcome == "fail":
                raise Unfit(f"the dataset would fail the gate {verdict.gate}: {verdict.reason}")
            self._go_on(heart)
            write_file(name_file, f"{self.namespace}/athena-{secrets.token_hex(16)}".encode())
        self.board.stage(lease, "publishing")
        name = name_file.read_text()
        revision = self.hub.publish(folder / "dataset", name, message=f"task {lease.task.id}")
        self.events.emit("miner.published", task=lease.task.id, revision=revision)
        return DatasetRef(location=f"{self.hub.scheme}:{name}", revision=revision, root=manifest.root)

    def _commit(self, folder: Path, lease: Lease, dataset: DatasetRef, heart: Heart) -> None:
        text = Commitment(dataset=dataset, task_id=lease.task.id, hotkey=self.hotkey).encode()
        done_file = folder / "committed"
        if done_file.exists() and done_file.read_text() == text:
            return
        self.board.stage(lease, "committing")
        self.commits.commit(text, lease.deadline_block, lambda: self._go_on(heart))
        write_file(done_file, text.encode())
        self.events.emit("miner.committed", task=lease.task.id, sealed=self.commits.sealed)
        self.board.committed(lease, dataset)

    def _go_on(self, heart: Heart) -> None:
        """Raises Stopped, or Conflict for a lost lease."""
        if self.stopping.is_set():
            raise Stopped
        heart.check()
