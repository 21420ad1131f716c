"""A small task server on loopback, and the console command as a shell runs it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from athena import cli, cli_records
from athena.protocol import Noun
from athena.wire import LedgerEvent

PAGE = 2


class FakeServer(ThreadingHTTPServer):
    """Lists in pages of two and single nouns by path; or `reply` (status, headers, body) to everything."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lists: dict[str, list[Noun]] = {}
        self.nouns: dict[str, Noun] = {}
        self.events: list[LedgerEvent] = []
        self.reply: tuple[int, dict[str, str], bytes] | None = None
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, target: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(target)
        if self.reply is not None:
            return self.reply
        parts = urlsplit(target)
        path = parts.path.removeprefix("/v1/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if path in self.nouns:
            return 200, {}, self.nouns[path].model_dump_json().encode()
        if path == "events":
            return _page([event for event in self.events if event.sequence > int(query["after"])], 0)
        if path in self.lists:
            return _page(self.lists[path], int(query.get("cursor", "0")))
        body = {"title": "t", "status": 404, "detail": "no such thing", "code": "not-found"}
        return 404, {}, json.dumps(body).encode()


def _page(items: list[Noun], start: int) -> tuple[int, dict[str, str], bytes]:
    shown = [json.loads(item.model_dump_json()) for item in items[start : start + PAGE]]
    more = str(start + PAGE) if start + PAGE < len(items) else None
    return 200, {}, json.dumps({"items": shown, "next": more}).encode()


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self) -> None:
        status, headers, body = self.server.answer(self.path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def athena(server, monkeypatch, capsys):
    """Runs the console command as a shell does: exit code, standard output, standard error."""
    monkeypatch.setenv("ATHENA_TASK_SERVER", server.url)
    monkeypatch.setattr(cli_records, "QUERY_SECONDS", 0.0)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["athena", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run
