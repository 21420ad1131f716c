"""A miner's status file, its lock, and its disk budget."""

import os
import subprocess
import sys
from collections import namedtuple
from datetime import UTC, datetime

import pytest

from athena.errors import BadInput, Misconfigured, NotFound
from athena.protocol import DatasetRef, Lease, Shard, Task
from athena.refine.work import status_board
from athena.refine.work.disk import GIB, LEASE_BYTES, DiskBudget, folder_bytes
from athena.refine.work.status import MAX_STATUS_BYTES, STATUS_FILE, is_running, read_status, sole_node
from athena.refine.work.status_board import KEPT_COMMITMENTS, StatusBoard

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
DATASET = DatasetRef(location="file:alice/x", revision="0" * 40, root="1" * 64)


def a_lease(number=1):
    now = datetime.now(UTC)
    shard = Shard(crawl="CC-MAIN-2026-43", warc_paths=(f"{number}.warc.gz", "b.warc.gz"))
    return Lease(
        id=f"{number:032x}", task=Task(shard=shard, rule_version="1", opened_block=1), hotkey=HOTKEY, state="active",
        fencing=7, issued_at=now, heartbeat_at=now, expires_at=now, deadline_at=now, issued_block=1, deadline_block=99,
    )  # fmt: skip


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setattr(status_board, "_WRITE_SECONDS", 0.0)
    return StatusBoard(tmp_path, hotkey=HOTKEY, recipe="fineweb-1")


def test_the_file_follows_a_lease_through_its_stages(board, tmp_path):
    lease = a_lease()
    board.stage(lease, "refining")
    board.progress(lease, {"records": 10, "rows": 3})
    board.stage(lease, "publishing")
    (seen,) = read_status(tmp_path).leases
    assert (seen.task_id, seen.stage, seen.progress, seen.warcs) == (
        lease.task.id, "publishing", {"records": 10, "rows": 3}, 2,
    )  # fmt: skip
    board.committed(lease, DATASET)
    board.submitted(lease, accepted=False)
    status = read_status(tmp_path)
    assert status.leases == () and status.submitted == 1
    assert [made.accepted for made in status.commitments] == [False]


def test_what_an_earlier_run_did_is_kept_and_what_it_held_is_not(board, tmp_path):
    for number in range(KEPT_COMMITMENTS + 2):
        board.committed(a_lease(number), DATASET)
    board.given_up(a_lease(), "late", "too late \ud800" + "x" * 1000)
    board.stage(a_lease(2), "refining")
    status = StatusBoard(tmp_path, hotkey=HOTKEY, recipe="strict-1") and read_status(tmp_path)
    assert (status.recipe, status.leases, status.given_up) == ("strict-1", (), 1)
    assert len(status.commitments) == KEPT_COMMITMENTS
    assert status.last_error.code == "late" and len(status.last_error.message) == 500


@pytest.mark.parametrize("content", [b"{}", b"not json", b"x" * (MAX_STATUS_BYTES + 1)])
def test_a_file_of_another_form_is_refused_by_readers_and_replaced_by_the_node(tmp_path, content):
    with pytest.raises(NotFound):
        read_status(tmp_path)
    (tmp_path / STATUS_FILE).write_bytes(content)
    with pytest.raises(BadInput):
        read_status(tmp_path)
    StatusBoard(tmp_path, hotkey=HOTKEY, recipe="fineweb-1")
    assert read_status(tmp_path).hotkey == HOTKEY


def test_a_status_that_cannot_be_written_stops_nothing(board, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(status_board, "write_file", full)
    board.stage(a_lease(), "refining")


HOLD = """
import subprocess, sys, time
from pathlib import Path
from athena.refine.work.status import sole_node
with sole_node(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_one_process_holds_a_state_folder_until_it_is_killed(tmp_path):
    assert not is_running(tmp_path)
    node = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    child = int(node.stdout.readline())
    try:
        assert is_running(tmp_path)
        with pytest.raises(Misconfigured, match="another miner"), sole_node(tmp_path):
            pass
        node.kill()
        node.wait(10)
        assert not is_running(tmp_path)  # although its child lives
        with sole_node(tmp_path):
            pass
    finally:
        os.kill(child, 9)
        node.stdout.close()


Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A state folder with a given number of bytes free around it."""

    def of(max_bytes, free=1000 * GIB):
        monkeypatch.setattr("athena.refine.work.disk.shutil.disk_usage", lambda _: Usage(0, 0, free))
        return DiskBudget(tmp_path, tmp_path / "tasks", max_bytes)

    return of


def sparse(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def test_leases_are_claimed_while_their_need_fits(disk, tmp_path):
    assert disk(3 * GIB).room([]) == 3
    assert disk(3 * GIB).room(["a"]) == 2  # which may still grow to its need
    sparse(tmp_path / "tasks" / "a" / "data.part", 2 * LEASE_BYTES)
    assert disk(3 * GIB).room(["a"]) == 1
    sparse(tmp_path / "tasks" / "left-over" / "data.parquet", LEASE_BYTES)
    assert disk(3 * GIB).room(["a"]) == 0
    assert disk(50 * GIB, free=GIB).room(["a"]) == 1
    assert disk(50 * GIB, free=GIB - 1).room(["a"]) == 0
    assert disk(GIB).used_bytes() == 3 * GIB


def test_a_folder_that_is_not_there_takes_nothing(tmp_path):
    assert folder_bytes(tmp_path / "none") == 0
