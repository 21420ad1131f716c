"""Patience: with what passes, and with nothing else."""

import os
import signal
import subprocess
import sys

import pytest

from athena.errors import BadInput, Blocked, Misconfigured, RateLimited, Unavailable
from athena.node import patiently, require_registration


def failing(*errors):
    queue = list(errors)

    def step():
        if queue:
            raise queue.pop(0)
        return "done"

    return step


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


def test_what_passes_is_tried_again():
    assert patiently(failing(Unavailable("away"), RateLimited("slowly", retry_after_seconds=1))) == "done"


def test_arguments_are_passed_on_at_every_attempt():
    step = failing(Unavailable("away"))
    assert patiently(lambda *given, **named: (step(), given, named), 1, two=2) == ("done", (1,), {"two": 2})


@pytest.mark.parametrize("error", [BadInput("bad"), Blocked("go away"), ValueError("bug")])
def test_what_does_not_pass_is_raised_at_once(error):
    step = failing(error, Unavailable("never reached"))
    with pytest.raises(type(error)):
        patiently(step)


def test_an_unregistered_hotkey_is_told_what_to_do():
    require_registration("a", {"a"}, 7)
    with pytest.raises(Misconfigured, match="--netuid 7"):
        require_registration("a", {"b"}, 7)


PROGRAM = """
import sys, time
from athena.errors import {error}
from athena.node import run_node
from athena.settings import MinerSettings
def loop(settings, events):
    print("running", flush=True)
    {body}
sys.argv = ["miner", "--network", "ws://127.0.0.1:1", "--hub", "file:///tmp/hub"]
run_node("miner", MinerSettings, loop)
"""


@pytest.mark.parametrize(
    ("error", "body", "code"),
    [
        ("Misconfigured", "raise Misconfigured('no wallet', remedy='make one')", 78),
        ("Blocked", "raise Blocked('403')", 69),
        ("Unavailable", "raise Unavailable('away')", 75),
        ("BadInput", "pass", 0),
    ],
)
def test_a_loop_ends_with_its_errors_exit_code(error, body, code):
    program = PROGRAM.format(error=error, body=body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    if error == "Misconfigured":
        assert "no wallet (make one)" in done.stderr


def test_sigterm_stops_a_loop_in_order():
    program = PROGRAM.format(error="BadInput", body="while True: time.sleep(0.05)")
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"running\n"
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


def test_contradicting_settings_are_refused_with_the_remedy():
    program = PROGRAM.format(error="BadInput", body="pass").replace("ws://127.0.0.1:1", "finney")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 78 and "use hf://" in done.stderr


@pytest.mark.parametrize("error", [RateLimited, Unavailable])
def test_a_pause_is_as_long_as_the_service_asks_for(monkeypatch, error):
    slept = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    monkeypatch.setattr("athena.node._BACKOFF", lambda state: 0.0)
    refusals = iter((7.0, 86_400.0))

    def step():
        for seconds in refusals:
            raise error("not now", retry_after_seconds=seconds)
        return "done"

    assert patiently(step) == "done"
    assert slept == [7.0, 300.0]
