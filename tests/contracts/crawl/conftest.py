"""A loopback server that behaves like data.commoncrawl.org, with faults on demand."""

import gzip
import re
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

CRAWL = "CC-MAIN-2026-43"
WARC = f"crawl-data/{CRAWL}/segments/1760.1/warc/CC-MAIN-20261020-00000.warc.gz"
BODY = bytes(range(256)) * 4096  # 1 MiB


class CommonCrawl(ThreadingHTTPServer):
    """Serves a folder. Each entry of `faults` spoils one request; `requests` records (path, Range, User-Agent)."""

    daemon_threads = True

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.faults = deque()
        self.requests = []

    def handle_error(self, request, client_address):
        """A client that hangs up early is the point of some tests."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, headers=(), body=b"", promise=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if promise is None else promise))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        span = self.headers.get("Range")
        self.server.requests.append((self.path, span, self.headers.get("User-Agent")))
        fault = self.server.faults.popleft() if self.server.faults else ""
        if fault == "slow-down":
            return self.reply(503, [("Retry-After", "3")], b"<Code>SlowDown</Code>")
        if fault == "rate-limited":
            return self.reply(429)
        if fault == "blocked":
            self.server.faults.append("blocked")  # and stays so
            return self.reply(403)
        if fault == "moved":
            return self.reply(301, [("Location", "https://elsewhere.example/")])
        if fault == "huge":
            return self.reply(200, promise=2**40)
        if fault == "drop":
            self.close_connection = True
            return None
        file = self.server.root / self.path.lstrip("/")
        if not file.is_file():
            return self.reply(404)
        content = file.read_bytes()
        headers = [("ETag", '"other"' if fault == "changed" else '"one"')]
        if span is None or fault == "ignores-range":
            if fault == "truncated":
                self.close_connection = True
                return self.reply(200, headers, content[: len(content) // 2], promise=len(content))
            return self.reply(200, headers, content)
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", span).groups())
        if first >= len(content):
            return self.reply(416)
        last = min(last, len(content) - 1)
        part = content[first : last + 1]
        if fault == "shifted":
            first += 1
        headers.append(("Content-Range", f"bytes {first}-{last}/{len(content)}"))
        if fault == "truncated":
            self.close_connection = True
            return self.reply(206, headers, part[: len(part) // 2], promise=len(part))
        return self.reply(206, headers, part)


@pytest.fixture
def crawl_root(tmp_path):
    """A folder laid out like Common Crawl, with one main crawl and one month of news."""
    root = tmp_path / "crawl"
    news = "crawl-data/CC-NEWS/2026/10/CC-NEWS-20261001-00001.warc.gz"
    for listing, path in ((f"crawl-data/{CRAWL}", WARC), ("crawl-data/CC-NEWS/2026/10", news)):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(BODY)
        (root / listing / "warc.paths.gz").write_bytes(gzip.compress(f"{path}\n".encode()))
    return root


@pytest.fixture
def server(crawl_root):
    server = CommonCrawl(crawl_root)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
