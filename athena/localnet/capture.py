"""A web server for made-up hosts and the crawler that captures it: real bytes over a real loopback socket, into WARC.

Everything in the files derives from the pages: dates are the pages' own, record ids are hashes of content, and no
header names this machine or the clock. So equal pages give equal files.
"""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from urllib.parse import urlsplit

from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParser
from warcio.warcwriter import WARCWriter

from athena.durable import write_file
from athena.errors import Unavailable
from athena.localnet.pages import Page

_TIMEOUT_SECONDS = 30.0
_USER_AGENT = "athena-localnet/1"


class _Web(ThreadingTCPServer):  # HTTPServer would ask the resolver for this machine's name
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, pages: Mapping[str, Page]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.pages = pages


class _Answer(BaseHTTPRequestHandler):
    server: _Web
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = self.server.pages.get(f"http://{self.headers['Host']}{self.path}")
        if page is None:
            self.send_error(404)
            return
        self.send_response_only(200)  # without the Date and Server headers of this machine
        self.send_header("Date", f"{page.captured:%a, %d %b %Y %H:%M:%S} GMT")
        self.send_header("Server", "nginx")
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the captured files are the log."""


@contextmanager
def serving(pages: Sequence[Page]) -> Iterator[int]:
    """Answers for all hosts of `pages` on a loopback port, by the Host header; yields the port."""
    web = _Web({page.url: page for page in pages})
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web.server_address[1]
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


def capture(pages: Sequence[Page], port: int, file: Path) -> None:
    """Fetches every page from the server on `port` and writes a gzipped WARC file, renamed into place.

    A warcinfo record, then a request and a response record per page. Raises Unavailable when the server fails.
    """
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=True)
    writer.write_record(_warcinfo(writer, file.name, pages[0].captured))
    for page in pages:
        request, response = _fetch(page, port)
        response_id = _record_id(page.url, response)
        _write(writer, page, "response", response, {"WARC-Record-ID": response_id} | _identified(page))
        _write(writer, page, "request", request, {
            "WARC-Record-ID": _record_id(page.url, request), "WARC-Concurrent-To": response_id,
        })  # fmt: skip
    write_file(file, out.getvalue())


def _fetch(page: Page, port: int) -> tuple[bytes, bytes]:
    """The bytes sent and the bytes that came back."""
    parts = urlsplit(page.url)
    request = (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: {_USER_AGENT}\r\n"
        "Accept: text/html,*/*;q=0.5\r\nAccept-Language: en\r\nConnection: close\r\n\r\n"
    ).encode("ascii")
    received = bytearray()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS) as connection:
            connection.sendall(request)
            while chunk := connection.recv(2**20):
                received += chunk
    except OSError as error:
        raise Unavailable(f"capturing {page.url}: {error}", remedy="start again") from error
    if not received.startswith(b"HTTP/1.1 200 ") or not received.endswith(page.body):
        raise Unavailable(f"capturing {page.url}: the answer was cut off", remedy="start again")
    return request, bytes(received)


def _write(writer: WARCWriter, page: Page, record_type: str, message: bytes, headers: dict[str, str]) -> None:
    stream = io.BytesIO(message)
    http_headers = StatusAndHeadersParser([], verify=False).parse(stream)
    payload = message[stream.tell() :]
    record = writer.create_warc_record(
        page.url,
        record_type,
        payload=io.BytesIO(payload),
        length=len(payload),
        http_headers=http_headers,
        warc_headers_dict={
            **headers,
            "WARC-Date": _warc_date(page.captured),
            "WARC-Payload-Digest": _sha1(payload),
            "WARC-Block-Digest": _sha1(message),
        },
    )
    writer.write_record(record)


def _warcinfo(writer: WARCWriter, name: str, date: datetime) -> object:
    fields = (
        b"software: athena-localnet\r\nformat: WARC File Format 1.0\r\nrobots: local pages, made on this machine\r\n"
    )
    headers = [
        ("WARC-Type", "warcinfo"),
        ("WARC-Record-ID", _record_id(name, fields)),
        ("WARC-Filename", name),
        ("WARC-Date", _warc_date(date)),
        ("WARC-Block-Digest", _sha1(fields)),
    ]
    return writer.create_warc_record(
        "",
        "warcinfo",
        payload=io.BytesIO(fields),
        length=len(fields),
        warc_headers=StatusAndHeaders("", headers, protocol="WARC/1.0"),
    )


def _identified(page: Page) -> dict[str, str]:
    return {"WARC-Identified-Payload-Type": page.content_type.partition(";")[0]}


def _record_id(name: str, content: bytes) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{name} {hashlib.sha256(content).hexdigest()}')}>"


def _warc_date(date: datetime) -> str:
    return f"{date:%Y-%m-%dT%H:%M:%SZ}"


def _sha1(content: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(content).digest()).decode()
