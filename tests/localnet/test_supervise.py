"""The supervisor restarts what dies, gives up on what cannot run, and leaves nothing behind."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from athena.events import EventLog
from athena.localnet.supervise import ProcessFailed, Room, Supervisor

CODE = {
    "sleeper": "import time\nwhile True: time.sleep(0.1)",
    "parent": "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print('ready', flush=True)\nwhile True: time.sleep(0.1)",
    "broken": "import sys\nprint('no such wallet')\nsys.exit(78)",
    "stubborn": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\n"
    "while True: time.sleep(0.1)",
    "short": "pass",
}


@pytest.fixture
def room(tmp_path):
    def make(name):
        (tmp_path / f"room_{name}.py").write_text(CODE[name])
        return Room(name, f"room_{name}", (), tmp_path, {"PYTHONPATH": str(tmp_path)})

    return make


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ready(made):
    return made.log_file.exists() and "ready" in made.log_file.read_text()


def test_a_killed_room_is_started_again(room, tmp_path):
    events = EventLog(tmp_path / "events" / "supervisor.jsonl")
    with Supervisor(events) as supervisor:
        supervisor.start(room("sleeper"))
        first = supervisor.pid("sleeper")
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not is_alive(first))
        supervisor.watch()
        second = supervisor.pid("sleeper")
        assert second != first and is_alive(second)
    assert not is_alive(second)


def test_a_room_that_cannot_run_ends_the_network_with_its_last_words(room):
    with Supervisor(EventLog(None)) as supervisor:
        supervisor.start(room("broken"))
        with pytest.raises(ProcessFailed, match="no such wallet"):
            supervisor.wait(lambda: False, what="nothing", seconds=20)


def test_a_room_that_ends_in_order_is_finished_and_not_started_again(room):
    with Supervisor(EventLog(None)) as supervisor:
        supervisor.start(room("short"))
        pid = supervisor.pid("short")
        supervisor.wait(lambda: supervisor.finished("short"), what="the end", seconds=20)
        supervisor.watch()
        assert supervisor.pid("short") == pid


@pytest.mark.skipif(sys.platform != "linux", reason="process groups are looked up in /proc")
def test_children_of_a_room_go_with_it(room, tmp_path):
    made = room("parent")
    with Supervisor(EventLog(None)) as supervisor:
        supervisor.start(made)
        wait_for(lambda: ready(made))
        group = os.getpgid(supervisor.pid("parent"))
        members = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and group_of(p) == group]
        assert len(members) == 2
    wait_for(lambda: not any(is_alive(pid) for pid in members))


def group_of(entry):
    try:
        return int((entry / "stat").read_text().rsplit(")", 1)[1].split()[2])
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_a_room_that_ignores_sigterm_is_killed(room, monkeypatch):
    monkeypatch.setattr("athena.localnet.supervise.STOP_SECONDS", 0.5)
    made = room("stubborn")
    with Supervisor(EventLog(None)) as supervisor:
        supervisor.start(made)
        wait_for(lambda: ready(made))
        pid = supervisor.pid("stubborn")
    assert not is_alive(pid)
