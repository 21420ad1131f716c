"""A site on loopback that keeps its rules, breaks ours, and wants to trap the crawler."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from athena.errors import BadInput, Blocked, Conflict, Unavailable
from athena.refine.records import MAX_RECORD_BYTES, read_records
from athena.refine.site.crawl import crawl_site
from athena.refine.site.fetch import canonical, same_site
from athena.refine.site.frontier import Frontier

PROSE = "<p>" + "The harbour was quiet because every engine had been repaired before winter. " * 5 + "</p>"


@dataclass
class Page:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drip_seconds: float = 0.0  # between single bytes of the body
    drip_head: bool = False  # the headers come that slowly


def page(*links: str, head: str = "", **options) -> Page:
    anchors = "".join(f'<a href="{link}">link</a>' for link in links)
    return Page(f"<html><head>{head}</head><body>{PROSE}{anchors}</body></html>".encode(), **options)


class Site:
    """Pages by path; a list is taken one by one, its last element stays."""

    def __init__(self) -> None:
        self.pages: dict[str, Page | list[Page]] = {}
        self.trap: str | None = None  # below this path every page links to two more
        self.asked: list[str] = []
        self.agents: set[str] = set()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append(self.path)
                site.agents.add(self.headers["User-Agent"])
                site.answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):  # clients hang up here on purpose
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()

    def answer(self, handler) -> None:
        if self.trap and handler.path.startswith(self.trap):
            found = page(f"{handler.path}a", f"{handler.path}b")
        else:
            found = self.pages.get(handler.path, Page(status=404))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if found.drip_head:
            for _ in range(200):
                handler.wfile.write(b"H")
                time.sleep(0.02)
        handler.send_response(found.status)
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(found.body))} | found.headers
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if not found.drip_seconds:
            handler.wfile.write(found.body)
            return
        for byte in found.body:
            handler.wfile.write(bytes([byte]))
            time.sleep(found.drip_seconds)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site():
    served = Site()
    yield served
    served.close()


@pytest.fixture
def crawl(site, tmp_path):
    """`crawl()` crawls the site without passing time; what it would have slept is in `crawl.pauses`."""

    def run(start: str = "/", **options):
        run.pauses.clear()
        options = {"max_pages": 50, "pause_seconds": 0.0, "sleep": run.pauses.append} | options
        return crawl_site(f"{site.url}{start}", run.out, **options)

    run.pauses = []
    run.out = tmp_path / "site.warc.gz"
    return run


def pages_of(path: Path) -> list[str]:
    rejected: Counter[str] = Counter()
    records = list(read_records(io.BytesIO(path.read_bytes()), "site", rejected))
    assert not rejected
    return ["/" + record.url.split("/", 3)[3] for record in records]


def test_pages_of_the_site_become_a_warc_file_that_the_refinery_reads(site, crawl):
    other = "http://127.0.0.2/elsewhere"
    site.pages = {
        "/": page("/a", "/b#part", "b", f"HTTP://127.0.0.1:{site.port}/a", other, "mailto:x@y.z", "/photo.JPG"),
        "/a": page("/", "c?q=1"),
        "/b": page(),
        "/c?q=1": page("d", head='<base href="/deep/">'),
        "/deep/d": Page(gzip.compress(page().body), headers={"Content-Encoding": "gzip", "Set-Cookie": "session=1"}),
    }
    report = crawl(contact="me@example.org")
    assert pages_of(crawl.out) == ["/", "/a", "/b", "/c?q=1", "/deep/d"]
    assert (report.pages, report.refused) == (5, {})
    assert site.asked == ["/robots.txt", "/", "/a", "/b", "/c?q=1", "/deep/d"]
    assert len(site.agents) == 1 and "athena-network/" in (agent := site.agents.pop()) and "me@example.org" in agent
    assert [path.name for path in crawl.out.parent.iterdir()] == ["site.warc.gz"]
    with crawl.out.open("rb") as file:
        records = list(read_records(file, "site", Counter()))
    assert PROSE.encode() in records[-1].body and records[-1].payload_digest.startswith("sha1:")
    assert b"session=1" not in b"".join(gzip.decompress(crawl.out.read_bytes()).splitlines())


def test_robots_txt_is_obeyed(site, crawl):
    rules = "User-agent: *\nDisallow: /\n\nUser-agent: athena-network\nCrawl-delay: 7\nDisallow: /private/\n"
    rules += "Disallow: /*.cgi$\n"
    site.pages = {
        "/robots.txt": Page(rules.encode(), headers={"Content-Type": "text/plain"}),
        "/": page("/private/x", "/run.cgi", "/open", "/hop"),
        "/open": page(),
        "/hop": Page(status=302, headers={"Location": "/private/x"}),
    }
    report = crawl()
    assert pages_of(crawl.out) == ["/", "/open"] and report.refused == {"robots": 3}
    assert not {"/private/x", "/run.cgi"} & set(site.asked)
    assert all(6 < pause <= 7 for pause in crawl.pauses) and len(crawl.pauses) == 3


def test_a_site_that_wants_no_robots_is_left_alone(site, crawl):
    site.pages = {"/": page()}
    for status in (401, 403):
        site.pages["/robots.txt"] = Page(status=status)
        with pytest.raises(Blocked):
            crawl()
    site.pages["/robots.txt"] = Page(b"User-agent: *\nDisallow: /")
    with pytest.raises(Blocked, match="disallows"):
        crawl()
    site.pages["/robots.txt"] = Page(status=500)
    with pytest.raises(Unavailable):
        crawl()
    assert "/" not in site.asked and list(crawl.out.parent.iterdir()) == []
    site.pages["/robots.txt"] = Page(status=410)
    assert crawl().pages == 1


def test_what_pages_ask_of_robots_is_obeyed(site, crawl):
    site.pages = {
        "/": page("/noindex", "/nofollow", "/header"),
        "/noindex": page("/found", head='<meta name="Robots" content="NOINDEX">'),
        "/nofollow": page("/hidden", head='<meta name="robots" content="nofollow">'),
        "/header": page("/hidden", headers={"X-Robots-Tag": "none"}),
        "/found": Page(b'<html><body>x<a rel="nofollow" href="/hidden">x</a></body></html>'),
        "/hidden": page(),
    }
    report = crawl()
    assert pages_of(crawl.out) == ["/", "/nofollow", "/found"] and report.refused == {"noindex": 2}


def test_redirects_stay_on_the_site_and_end(site, crawl):
    site.pages = {
        "/": page("/moved", "/loop", "/away", "/long0", "/broken", "/a"),
        "/moved": Page(status=301, headers={"Location": "/a"}),
        "/loop": Page(status=302, headers={"Location": "/loop"}),
        "/away": Page(status=302, headers={"Location": "http://127.0.0.2:1/"}),
        "/broken": Page(status=307, headers={"Location": "http://[broken"}),
        "/a": page(),
    }
    for hop in range(9):
        site.pages[f"/long{hop}"] = Page(status=308, headers={"Location": f"/long{hop + 1}"})
    report = crawl()
    assert pages_of(crawl.out) == ["/", "/a"] and report.refused == {"other-site": 1, "redirects": 3}


def test_a_start_that_leads_to_another_site_says_where(site, crawl):
    site.pages = {"/": Page(status=301, headers={"Location": "https://www.example.org/"})}
    with pytest.raises(BadInput, match=r"start at https://www\.example\.org/"):
        crawl()
    assert list(crawl.out.parent.iterdir()) == []


def test_only_whole_html_pages_of_bearable_size_are_kept(site, crawl):
    site.pages = {
        "/": page("/doc", "/big", "/gone", "/bomb", "/tags", "/error", "/empty"),
        "/doc": Page(b"%PDF", headers={"Content-Type": "application/pdf"}),
        "/big": Page(b"<html>" + b"x" * MAX_RECORD_BYTES),
        "/bomb": Page(gzip.compress(b"<html>" + b"x" * (4 * MAX_RECORD_BYTES)), headers={"Content-Encoding": "gzip"}),
        "/tags": Page(b"<p>" * 100_000),
        "/error": Page(status=500),
        "/empty": Page(),
    }
    report = crawl()
    assert pages_of(crawl.out) == ["/"]
    assert report.refused == {"not-html": 1, "too-large": 1, "http-404": 1, "http-500": 1, "unreadable": 3}


def test_slow_bodies_and_slow_headers_end_at_the_deadline(site, crawl):
    site.pages = {
        "/": page("/body", "/head", "/ok"),
        "/body": page(drip_seconds=0.02),
        "/head": page(drip_head=True),
        "/ok": page(),
    }
    started = time.monotonic()
    report = crawl(page_seconds=0.4)
    assert pages_of(crawl.out) == ["/", "/ok"] and report.refused == {"slow": 2}
    assert time.monotonic() - started < 5


def test_a_busy_site_is_asked_again_when_it_says_so(site, crawl):
    busy = [Page(status=429, headers={"Retry-After": "30"}), Page(status=503), page()]
    site.pages = {"/": page("/busy"), "/busy": busy}
    assert crawl().pages == 2
    assert crawl.pauses == [30.0, 2.0]


def test_a_site_that_stays_busy_is_left_and_gone_on_with_later(site, crawl):
    site.pages = {"/": page("/a", "/b"), "/a": page(), "/b": Page(status=503)}
    with pytest.raises(Unavailable, match="5 times in a row"):
        crawl()
    site.pages["/b"] = Page(status=503, headers={"Retry-After": "86400"})
    with pytest.raises(Unavailable, match="come back"):
        crawl()
    site.pages["/b"] = page()
    site.asked.clear()
    assert crawl().pages == 3
    assert site.asked == ["/robots.txt", "/b"] and pages_of(crawl.out) == ["/", "/a", "/b"]


def test_a_trap_ends_with_the_number_of_pages(site, crawl):
    site.trap = "/calendar/"
    site.pages = {"/": page("/calendar/")}
    assert crawl(max_pages=20).pages == 20
    assert len(site.asked) == 21


def test_a_trap_of_dead_links_ends_too(site, crawl):
    site.pages = {"/": page(*(f"/dead/{i}" for i in range(500)))}
    assert crawl(max_pages=5).refused == {"http-404": 49}


def test_a_host_that_cannot_be_reached_is_unavailable(crawl, site):
    site.close()
    with pytest.raises(Unavailable):
        crawl()
    assert list(crawl.out.parent.iterdir()) == []
    site.server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=site.server.serve_forever, args=(0.02,)).start()


def test_a_public_name_leads_to_no_private_address(site, crawl, monkeypatch, tmp_path):
    def resolve_to(*addresses):
        answers = list(addresses)

        def resolve(host, port, *args, **kwargs):
            address = answers.pop(0) if len(answers) > 1 else answers[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    site.pages = {"/": page(), "/robots.txt": Page()}
    start = f"http://intranet.example:{site.port}/"
    for address in ("10.0.0.5", "127.0.0.1", "169.254.169.254"):
        resolve_to(address)
        with pytest.raises(Blocked, match="private address"):
            crawl_site(start, tmp_path / "x.warc", max_pages=1, sleep=crawl.pauses.append)
    assert site.asked == []
    resolve_to("93.184.216.34", "127.0.0.1")  # another answer the second time
    with pytest.raises(Blocked, match="private address"):
        crawl_site(start, tmp_path / "x.warc", max_pages=1, sleep=crawl.pauses.append)


def test_a_finished_or_foreign_crawl_is_not_overwritten(site, crawl):
    site.pages = {"/": page("/a"), "/a": Page(status=503), "/other": page()}
    with pytest.raises(Unavailable):
        crawl()
    with pytest.raises(Conflict, match="another crawl"):
        crawl("/other")
    site.pages["/a"] = page()
    crawl()
    with pytest.raises(Conflict, match="exists"):
        crawl()


def test_torn_files_of_a_crash_cost_one_page_at_most(site, crawl):
    site.pages = {"/": page("/a", "/b"), "/a": page(), "/b": Page(status=503)}
    with pytest.raises(Unavailable):
        crawl()
    part, journal = (crawl.out.with_name(f"{crawl.out.name}.{end}") for end in ("part", "frontier"))
    with part.open("ab") as file:
        file.write(b"\x1f\x8b half a page")
    with journal.open("ab") as file:
        file.write(b'{"tried": ["http://')
    site.pages["/b"] = page()
    assert crawl().pages == 3 and pages_of(crawl.out) == ["/", "/a", "/b"]


def test_two_processes_never_write_to_one_file(site, crawl):
    site.pages = {"/": page()}
    with closing(Frontier.open(crawl.out, f"{site.url}/")), pytest.raises(Conflict, match="another process"):
        crawl()
    assert crawl().pages == 1


def test_what_a_finished_crawl_left_behind_is_not_gone_on_with(site, crawl):
    site.pages = {"/": page()}
    journal = crawl.out.with_name(f"{crawl.out.name}.frontier")
    lines = [{"start": f"{site.url}/"}, {"tried": [f"{site.url}/"], "found": [], "refused": None, "end": 4711}]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert crawl().pages == 1 and pages_of(crawl.out) == ["/"]
    assert not journal.exists()


def test_killed_anywhere_the_command_goes_on(site, tmp_path):
    count = 30
    site.pages = {"/": page(*(f"/p{i}" for i in range(count)))} | {f"/p{i}": page() for i in range(count)}
    out = tmp_path / "site.warc.gz"
    command = [
        sys.executable, "-m", "athena.cli", "crawl-site", f"{site.url}/", "--out", str(out), "--pause", "0.02",
    ]  # fmt: skip
    for asked in (10,):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while sum(path.startswith("/p") for path in site.asked) < asked and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{count + 1} pages" in done.stdout
    assert sorted(pages_of(out)) == sorted(site.pages)
    assert len([path for path in site.asked if path != "/robots.txt"]) <= count + 1 + 2  # one again for each kill


def test_addresses_have_one_spelling():
    base = "http://Example.org:80/a/b"
    assert canonical("../c#x", base) == "http://example.org/c"
    assert canonical("?q=ü", base) == "http://example.org/a/b?q=%C3%BC"
    for bad in ("javascript:x()", "http://u:p@h/", "http://[x", "/" + "x" * 3000, "ftp://h/"):
        with pytest.raises(BadInput):
            canonical(bad, base)
    assert same_site("http://a.org/", "https://a.org/x") and not same_site("http://a.org/", "http://www.a.org/")
    assert not same_site("http://a.org/", "http://a.org:8080/")
