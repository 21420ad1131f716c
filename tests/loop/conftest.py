"""The real demo as a process, looked at through its event logs and its summary."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from athena.events import read_events


class Demo:
    """`athena demo` in a process of its own, writing to `out`."""

    def __init__(self, out: Path, *arguments: str) -> None:
        self.out = out
        self.log = out.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "athena.cli", "demo", "--out", str(out), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "COLUMNS": "200"},
            )  # fmt: skip

    def events(self, room: str, name: str | None = None) -> list[dict]:
        found = read_events(self.out / "run" / "events" / f"{room}.jsonl")
        return [event for event in found if name is None or event["event"] == name]

    def children(self) -> dict[str, int]:
        """The latest pid of every room."""
        return {event["room"]: event["child"] for event in self.events("supervisor", "room.started")}

    def wait_until(self, condition, what: str, seconds: float = 480) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the demo ended before {what}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {what} after {seconds} s:\n{self.output()}"
            time.sleep(0.02)

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")[-4000:]

    def finish(self, seconds: float = 720) -> int:
        return self.process.wait(seconds)

    def summary(self) -> dict:
        return json.loads((self.out / "summary.json").read_text())


@pytest.fixture
def demo(tmp_path):
    """Starts demos; kills what a failing test leaves behind."""
    started = []

    def start(*arguments: str) -> Demo:
        run = Demo(tmp_path / f"demo-{len(started)}", *arguments)
        started.append(run)
        return run

    yield start
    for run in started:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGTERM)
            run.process.wait(30)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def is_alive():
    return alive


def below(folder: Path) -> list[str]:
    """Command lines of the running processes that name `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(folder) in command and alive(int(entry.name)):
                found.append(command)
    return found


@pytest.fixture
def processes_below():
    return below


class CommonCrawl(ThreadingHTTPServer):
    """Serves a folder as Common Crawl does: whole files and byte ranges. Each entry of `faults` spoils one request:
    "slow-down" answers 503, "drop" hangs up."""

    daemon_threads = True

    def __init__(self, root: Path, faults) -> None:
        super().__init__(("127.0.0.1", 0), CrawlHandler)
        self.root, self.faults, self.ranges = root, deque(faults), 0

    def handle_error(self, request, client_address) -> None:
        """A client that was stopped hangs up."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class CrawlHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        fault = self.server.faults.popleft() if self.server.faults else ""
        if fault == "drop":
            self.close_connection = True
            return
        file = self.server.root / self.path.lstrip("/")
        content = file.read_bytes() if file.is_file() else b""
        status, headers = (200, {}) if file.is_file() else (404, {})
        if fault == "slow-down":
            status, content = 503, b"<Code>SlowDown</Code>"
        elif status == 200 and (span := self.headers.get("Range")):
            first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", span).groups())
            headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
            status, content = 206, content[first : last + 1]
            self.server.ranges += 1
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def common_crawl():
    """Starts loopback Common Crawls."""
    servers = []

    def serve(root: Path, faults=()) -> CommonCrawl:
        server = CommonCrawl(root, faults)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
