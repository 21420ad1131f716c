"""`athena miner status` on a state folder, whether the node runs or not."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from athena.cli import app
from athena.errors import NotFound
from athena.protocol import DatasetRef, Lease, Shard, Task
from athena.refine.work import status
from athena.refine.work.status_board import StatusBoard

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.fixture
def state(tmp_path):
    """The state folder of a miner with a lease in work and one done."""
    board, now = StatusBoard(tmp_path, hotkey=HOTKEY, recipe="fineweb-1"), datetime.now(UTC)
    shard = Shard(crawl="CC-MAIN-2026-43", warc_paths=("a.warc.gz", "b.warc.gz"))
    lease = Lease(
        id="1" * 32, task=Task(shard=shard, rule_version="1", opened_block=1), hotkey=HOTKEY, state="active", fencing=7,
        issued_at=now, heartbeat_at=now, expires_at=now, deadline_at=now, issued_block=1, deadline_block=4711,
    )  # fmt: skip
    done = lease.model_copy(update={"task": lease.task.model_copy(update={"opened_block": 2})})
    board.committed(done, DatasetRef(location="hf:alice/x", revision="0" * 40, root="1" * 64))
    board.submitted(done, accepted=True)
    board.given_up(done.model_copy(update={"id": "2" * 32}), "unfit", "the set repeats itself \x1b[31m")
    board.stage(lease, "refining")
    board.progress(lease, {"records": 1234, "rows": 56, "warcs": 1})
    board.disk(3 << 30, 50 << 30)
    return tmp_path


def ask(state, *options):
    arguments = ["miner", "status", "--state", str(state), *options]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "300", "NO_COLOR": "1"})


def test_a_stopped_node_says_what_it_held_and_did(state):
    shown = ask(state)
    assert shown.exit_code == 3, shown.output
    for part in ("does not run", "1 leases submitted, 1 given up", "3.00 of 50 GiB", "refining", "4711", "hf:alice/x"):
        assert part in shown.output, shown.output
    assert "last error" in shown.output and "the set repeats itself" in shown.output and "\x1b" not in shown.output


def test_json_is_one_object_and_a_running_node_is_told_by_its_lock(state, monkeypatch):
    monkeypatch.setattr(status, "is_running", lambda folder: True)
    shown = ask(state, "--json")
    assert shown.exit_code == 0
    (line,) = shown.output.splitlines()
    found = json.loads(line)
    assert found["running"] is True and found["hotkey"] == HOTKEY
    assert [lease["stage"] for lease in found["leases"]] == ["refining"]


def test_where_no_miner_ran_there_is_no_status(tmp_path):
    assert isinstance(ask(tmp_path).exception, NotFound)
