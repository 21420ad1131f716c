"""What a miner holds and did, in one small file of its state folder: written by the node, read by anyone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from athena.errors import BadInput, Misconfigured, NotFound
from athena.protocol import DatasetRef, Hex32, Noun

STATUS_FILE = "status.json"
LOCK_FILE = "node.lock"
MAX_STATUS_BYTES = 1 << 20

Stage = Literal["refining", "checking", "publishing", "committing", "submitting"]


class LeaseStatus(Noun):
    """A lease in work. `progress` are the refinery's counts so far; the deadline is the server's and the chain's."""

    task_id: Hex32
    lease_id: Hex32
    stage: Stage
    since: datetime
    progress: dict[str, int]
    warcs: int
    deadline_at: datetime
    deadline_block: int


class CommitmentStatus(Noun):
    """A commitment that was made; `accepted` is the task server's answer, null until it came."""

    task_id: Hex32
    dataset: DatasetRef
    committed_at: datetime
    accepted: bool | None = None


class Trouble(Noun):
    """Why a lease was given up, or the node stopped."""

    at: datetime
    task_id: Hex32 | None
    code: str
    message: str


class MinerStatus(Noun):
    """Everything in the file. `submitted` and `given_up` count leases since the state folder was made."""

    format: Literal["athena-miner-status/1"] = "athena-miner-status/1"
    hotkey: str
    recipe: str
    started_at: datetime
    written_at: datetime
    leases: tuple[LeaseStatus, ...] = ()
    commitments: tuple[CommitmentStatus, ...] = ()
    last_error: Trouble | None = None
    submitted: int = 0
    given_up: int = 0
    disk_bytes: int = 0
    disk_budget_bytes: int = 0


def read_status(folder: Path) -> MinerStatus:
    """The status in a miner's state folder. Raises NotFound where none was written, BadInput for another form."""
    path = folder / STATUS_FILE
    try:
        with path.open("rb") as file:
            content = file.read(MAX_STATUS_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"no miner ran with state folder {folder}", remedy="name its folder with --state") from error
    if len(content) > MAX_STATUS_BYTES:
        raise BadInput(f"{path} is over {MAX_STATUS_BYTES} bytes")
    try:
        return MinerStatus.model_validate_json(content)
    except ValidationError as error:
        raise BadInput(f"{path} is no miner's status: {error.error_count()} faults") from error


@contextmanager
def sole_node(folder: Path) -> Iterator[None]:
    """Holds a state folder for this process, until it ends in whatever way. Raises Misconfigured where another does.

    A record lock: unlike flock's, no child process inherits it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            remedy = "stop it, or give each miner a --state of its own"
            raise Misconfigured(f"another miner runs on {folder}", remedy=remedy) from error
        yield


def is_running(folder: Path) -> bool:
    """Whether another process of this machine holds the state folder."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
