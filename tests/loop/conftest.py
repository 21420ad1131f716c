"""The real demo as a process, looked at through its event logs and its summary."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from athena.crawl import open_crawl
from athena.events import read_events
from athena.localnet.ground import build_crawl
from athena.protocol import SignedRelease
from athena.refine.records import parse_record

CRAWL = "CC-MAIN-2026-43"
LOAD = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer("The library", return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=12, min_new_tokens=12)
print(json.dumps({"new_tokens": out.shape[1] - inputs["input_ids"].shape[1]}))
"""


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


@pytest.fixture
def served_crawl(tmp_path, common_crawl):
    """A made-up crawl under a real crawl's name, behind a server that now and then says Slow Down."""
    root = tmp_path / "served"
    crawl = build_crawl(root, seed=5, pages=120, warcs=2)
    (root / "crawl-data" / CRAWL).mkdir()
    listing = "warc.paths.gz"
    (root / "crawl-data" / crawl.crawl_id / listing).rename(root / "crawl-data" / CRAWL / listing)
    return common_crawl(root, faults=["", "slow-down", "", "drop", "", "slow-down"])


@pytest.fixture
def over_http(served_crawl):
    """The demo's arguments that read the served crawl."""
    return "--crawl", CRAWL, "--crawl-url", served_crawl.url


@pytest.fixture
def check_release(served_crawl):
    """A check that a demo's release learnt something, that transformers loads it, and that its lineage leads to records
    of the served crawl."""

    def check(folder: Path) -> None:
        release = SignedRelease.model_validate_json((folder / "release.json").read_bytes()).release
        assert sum(release.bits_per_byte_after.values()) < sum(release.bits_per_byte_before.values())
        command = [sys.executable, "-c", LOAD, str(folder)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert json.loads(text)["new_tokens"] == 12
        lineage = pq.read_table(folder / "lineage.parquet").to_pylist()
        assert len(lineage) == sum(entry.documents for entry in release.lineage) > 0
        assert served_crawl.ranges > 0
        with closing(open_crawl(served_crawl.url)) as crawl:
            for entry in random.Random(1).sample(lineage, 5):
                raw = crawl.read_range(entry["warc_path"], entry["warc_offset"], entry["warc_length"])
                record = parse_record(raw, entry["warc_path"], entry["warc_offset"])
                assert record.record_id == entry["record_id"] and record.url == entry["url"]

    return check
