"""`python -m task_server run` as an operator meets it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from athena.chain.wallets import hotkey_of
from athena.events import read_events
from task_server.__main__ import main


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


def test_a_wrong_setting_ends_with_a_remedy(monkeypatch, environment, caplog):
    monkeypatch.setenv("ATHENA_SERVER_WALLET_PATH", environment["ATHENA_SERVER_WALLET_PATH"])
    for arguments, message in (
        (["run", "--lease-seconds", "10", "--deadline-seconds", "5"], "longer than deadline_seconds"),
        (["run", "--wallet", "nobody"], "btcli wallet new-hotkey"),
        (["import", "../etc"], "crawl"),
    ):
        caplog.clear()
        monkeypatch.setattr(sys, "argv", ["task_server", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 78
        assert message in caplog.text


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
