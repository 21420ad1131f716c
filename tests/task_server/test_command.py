"""`python -m task_server` as an operator meets it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing

import httpx
import pytest
from sqlalchemy import select

from athena.chain.wallets import hotkey_of
from athena.events import read_events
from athena.protocol import Manifest, RecipeRef
from task_server.__main__ import main
from task_server.store import open_store
from task_server.tables import TaskRow


@pytest.fixture
def environment(tmp_path, wallets):
    wallets("athena")
    return os.environ | {
        "ATHENA_SERVER_STATE": str(tmp_path / "state"),
        "ATHENA_SERVER_WALLET_PATH": str(wallets("athena").path),
    }


def test_it_serves_without_a_chain_refuses_writes_and_stops_cleanly(tmp_path, environment, wallets):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        dead = f"ws://127.0.0.1:{nobody.getsockname()[1]}"
    events = tmp_path / "events.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "task_server", "run", "--port", "0", "--network", dead, "--events", str(events)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        port = _port(process, events)
        info = httpx.get(f"http://127.0.0.1:{port}/v1/server").json()
        assert (info["hotkey"], info["crawl"]) == (hotkey_of(wallets("athena")), None)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.fixture
def run(monkeypatch, environment, capsys, caplog):
    """Runs a command in this process: its exit code, what it printed, and what it logged."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def main_with(*arguments: str) -> tuple[int, str, str]:
        caplog.clear()
        monkeypatch.setattr(sys, "argv", ["task_server", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().out, caplog.text

    return main_with


def test_a_wrong_setting_ends_with_a_remedy(run):
    for arguments, message in (
        (["run", "--lease-seconds", "10", "--deadline-seconds", "5"], "longer than deadline_seconds"),
        (["run", "--initial-quota", "10", "--max-quota", "5"], "above max_quota"),
        (["run", "--wallet", "nobody"], "btcli wallet new-hotkey"),
        (["import", "../etc"], "crawl"),
    ):
        code, _, logged = run(*arguments)
        assert code == 78
        assert message in logged


def test_keys_are_made_listed_and_revoked(run):
    _, printed, _ = run("key", "create", "--scope", "bans", "--scope", "tasks", "--note", "night shift")
    key = printed.strip()
    key_id = key.split("_")[1]
    _, listed, _ = run("key", "list")
    assert all(part in listed for part in (key_id, "bans", "night shift"))
    assert key.split("_", 2)[2] not in listed, "it is shown once"
    assert run("key", "revoke", key_id)[0] == 0
    for arguments, code, message in (
        (["revoke", key_id], 1, f"no key {key_id}"),
        (["create", "--scope", "everything"], 2, "no scope everything"),
    ):
        ended, _, logged = run("key", *arguments)
        assert ended == code
        assert message in logged


def test_a_manifest_makes_its_task_a_canary(run, tmp_path, open_tasks):
    with closing(open_store(f"sqlite:///{tmp_path}/state/ledger.sqlite")) as store:
        open_tasks(store, 1)
        with store.read() as session:
            task_id = session.execute(select(TaskRow.id)).scalar_one()
    manifest = Manifest(
        task_id=task_id, hotkey="5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", rule_version="demo-1", files=(),
        records=1, rows=1, rejected={}, tokens=1, root="b" * 64,
        recipe=RecipeRef(name="fineweb-1", version="1", hash="b" * 64),
    )  # fmt: skip
    path = tmp_path / "manifest.json"
    for content, code, message in (
        (manifest.canonical(), 0, ""),
        (manifest.canonical(), 1, "canary already"),
        (manifest.model_copy(update={"task_id": "0" * 32}).canonical(), 1, "no task"),
        (b"{}", 2, "is no manifest"),
        (b" " * 2**21, 2, "is over"),
    ):
        path.write_bytes(content)
        ended, _, logged = run("canary", str(path))
        assert ended == code, logged
        assert message in logged


def test_it_starts_without_torch_and_datatrove():
    code = "import sys, task_server.__main__; print({'torch', 'datatrove', 'transformers'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.strip() == "set()"


def _port(process, events) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for event in read_events(events):
            if event["event"] == "server.ready":
                return event["port"]
        time.sleep(0.05)
    raise AssertionError("the server did not start")
