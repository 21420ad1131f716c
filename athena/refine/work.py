"""A miner's work on one lease: refine, publish, commit, submit. Each step leaves a file, so a restart goes on."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from athena.chain.client import Chain
from athena.client import LedgerClient
from athena.crawl import Crawl
from athena.durable import write_file
from athena.errors import AthenaError, Conflict, NotFound
from athena.events import EventLog
from athena.hub import Hub
from athena.optout import left_out
from athena.protocol import Commitment, DatasetRef, Lease, Manifest, Submission
from athena.refine.recipe import Recipe
from athena.refine.run import refine_task

log = logging.getLogger("athena.miner")


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
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        while not self._stop.wait(self._pause_seconds):
            try:
                if self._ledger.heartbeat(self._lease, self._progress).cancel:
                    self._lost = Conflict(f"the task server cancelled lease {self._lease.id}")
            except (Conflict, NotFound) as error:
                self._lost = error
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
    """What a miner works with. `folder` holds one sub-folder per task that is not finished yet."""

    ledger: LedgerClient
    chain: Chain
    hub: Hub
    crawl: Crawl
    recipe: Recipe
    hotkey: str
    namespace: str
    sealed: bool
    commit_read_blocks: int
    folder: Path
    events: EventLog

    def sweep(self, active: Iterable[Lease]) -> None:
        """Removes what is left of tasks that this miner no longer holds."""
        held = {lease.task.id for lease in active}
        for leftover in self.folder.glob("*"):
            if leftover.name not in held:
                shutil.rmtree(leftover, ignore_errors=True)

    def carry_out(self, lease: Lease) -> None:
        """From lease to submission. Raises Conflict when the lease was lost, Unavailable when a service is away."""
        folder = self.folder / lease.task.id
        with Heart(self.ledger, lease) as heart:
            self.events.emit("miner.refining", task=lease.task.id, lease=lease.id)
            excluded = left_out(self.ledger.opt_outs(), lease.issued_block)
            manifest = refine_task(
                lease.task, self.hotkey, self.recipe, self.crawl, folder / "dataset",
                events=self.events, left_out=excluded, heartbeat=heart.report,
            )  # fmt: skip
            dataset = self._publish(folder, lease, manifest)
            heart.report({"rows": manifest.rows})
            self._commit(folder, lease, dataset)
            done = Submission(lease_id=lease.id, fencing=lease.fencing, dataset=dataset, manifest=manifest)
            if not self.ledger.submit(done).accepted:
                log.warning("task %s: the submission came too late, and is not paid", lease.task.id)
        self.events.emit(
            "miner.submitted", task=lease.task.id, lease=lease.id, records=manifest.records, rows=manifest.rows,
            tokens=manifest.tokens, rejected=manifest.rejected,
        )  # fmt: skip
        shutil.rmtree(folder)

    def _publish(self, folder: Path, lease: Lease, manifest: Manifest) -> DatasetRef:
        """Publishes under a name that cannot be guessed: nobody finds the data before the commitment is revealed."""
        name_file = folder / "name"
        if not name_file.exists():
            write_file(name_file, f"{self.namespace}/athena-{secrets.token_hex(16)}".encode())
        name = name_file.read_text()
        revision = self.hub.publish(folder / "dataset", name, message=f"task {lease.task.id}")
        self.events.emit("miner.published", task=lease.task.id, revision=revision)
        return DatasetRef(location=f"{self.hub.scheme}:{name}", revision=revision, root=manifest.root)

    def _commit(self, folder: Path, lease: Lease, dataset: DatasetRef) -> None:
        text = Commitment(dataset=dataset, task_id=lease.task.id, hotkey=self.hotkey).encode()
        done_file = folder / "committed"
        if done_file.exists() and done_file.read_text() == text:
            return
        head = self._wait_for_the_last_commitment_to_be_read()
        self.chain.commit(text, sealed=self.sealed, reveal_in_blocks=max(1, lease.deadline_block - head))
        write_file(done_file, text.encode())
        self.events.emit("miner.committed", task=lease.task.id, sealed=self.sealed)

    def _wait_for_the_last_commitment_to_be_read(self) -> int:
        """The chain keeps one commitment per hotkey: two read intervals must pass before it is overwritten."""
        while True:
            head = self.chain.head().number
            mine = [c.commit_block for c in self.chain.commitments(head) if c.hotkey == self.hotkey]
            free_at = max(mine, default=-(10**9)) + 2 * self.commit_read_blocks
            if head >= free_at:
                return head
            time.sleep(1.0)
