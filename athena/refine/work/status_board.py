"""The node's side of its status file: what its threads report, put together and written."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from athena.durable import write_file
from athena.errors import BadInput, NotFound
from athena.protocol import DatasetRef, Lease
from athena.refine.work.status import (
    STATUS_FILE,
    CommitmentStatus,
    LeaseStatus,
    MinerStatus,
    Stage,
    Trouble,
    read_status,
)

KEPT_COMMITMENTS = 20
MAX_ERROR_CHARS = 500  # errors quote other parties
_WRITE_SECONDS = 2.0  # counts go up about every second in every lease


class StatusBoard:
    """The node's side of the file. Safe to use from several threads; what an earlier run counted goes on."""

    def __init__(self, folder: Path, *, hotkey: str, recipe: str) -> None:
        self._path = folder / STATUS_FILE
        self._lock = threading.Lock()
        self._leases: dict[str, LeaseStatus] = {}
        self._written = 0.0
        now = _now()
        try:
            self._status = read_status(folder).model_copy(
                update={"hotkey": hotkey, "recipe": recipe, "started_at": now, "leases": ()}
            )
        except (NotFound, BadInput):  # it only informs: a node starts without it
            self._status = MinerStatus(hotkey=hotkey, recipe=recipe, started_at=now, written_at=now)
        self._change(lambda status: status)

    def stage(self, lease: Lease, stage: Stage) -> None:
        """A lease begins a stage of its work; its counts stay."""
        with self._lock:
            before = self._leases.get(lease.task.id)
            self._leases[lease.task.id] = LeaseStatus(
                task_id=lease.task.id,
                lease_id=lease.id,
                stage=stage,
                since=_now(),
                progress=before.progress if before is not None else {},
                warcs=len(lease.task.shard.warc_paths),
                deadline_at=lease.deadline_at,
                deadline_block=lease.deadline_block,
            )
        self._change(lambda status: status)

    def progress(self, lease: Lease, counts: dict[str, int]) -> None:
        """A lease's counts; they reach the file with a delay of some seconds."""
        with self._lock:
            known = self._leases.get(lease.task.id)
            if known is not None:
                self._leases[lease.task.id] = known.model_copy(update={"progress": dict(counts)})
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self._change(lambda status: status)

    def committed(self, lease: Lease, dataset: DatasetRef) -> None:
        made = CommitmentStatus(task_id=lease.task.id, dataset=dataset, committed_at=_now())

        def add(status: MinerStatus) -> MinerStatus:
            earlier = tuple(c for c in status.commitments if c.task_id != lease.task.id)
            return status.model_copy(update={"commitments": (*earlier, made)[-KEPT_COMMITMENTS:]})

        self._change(add)

    def submitted(self, lease: Lease, *, accepted: bool) -> None:
        """A lease's work is done, and the task server has its submission."""

        def settle(status: MinerStatus) -> MinerStatus:
            known = tuple(
                c.model_copy(update={"accepted": accepted}) if c.task_id == lease.task.id else c
                for c in status.commitments
            )
            return status.model_copy(update={"commitments": known, "submitted": status.submitted + 1})

        self._leave(lease, settle)

    def given_up(self, lease: Lease, code: str, message: str) -> None:
        """A lease ended without a submission."""
        trouble = _trouble(lease.task.id, code, message)
        self._leave(lease, lambda s: s.model_copy(update={"last_error": trouble, "given_up": s.given_up + 1}))

    def failed(self, code: str, message: str) -> None:
        """The node stops with an error; its leases stay."""
        trouble = _trouble(None, code, message)
        self._change(lambda status: status.model_copy(update={"last_error": trouble}))

    def disk(self, used_bytes: int, budget_bytes: int) -> None:
        self._change(lambda s: s.model_copy(update={"disk_bytes": used_bytes, "disk_budget_bytes": budget_bytes}))

    def _leave(self, lease: Lease, change: Callable[[MinerStatus], MinerStatus]) -> None:
        with self._lock:
            self._leases.pop(lease.task.id, None)
        self._change(change)

    def _change(self, change: Callable[[MinerStatus], MinerStatus]) -> None:
        with self._lock:
            self._status = change(self._status).model_copy(
                update={"leases": tuple(self._leases.values()), "written_at": _now()}
            )
            with contextlib.suppress(OSError):  # watching never decides: a full disk stops the work itself soon enough
                write_file(self._path, self._status.canonical())
            self._written = time.monotonic()


def _trouble(task_id: str | None, code: str, message: str) -> Trouble:
    readable = message[:MAX_ERROR_CHARS].encode("utf-8", "replace").decode()
    return Trouble(at=_now(), task_id=task_id, code=code, message=readable)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
