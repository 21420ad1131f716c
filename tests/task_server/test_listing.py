"""Where a listing comes from: a crawl that Common Crawl lists, or a file of addresses or paths."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from athena.crawl import CrawlBlocked, Manners, open_crawl
from athena.errors import BadInput, Misconfigured, NotFound, TooLarge, Unavailable
from task_server import listing as listing_module
from task_server.listing import fetch_listing, read_list
from task_server.settings import COMMON_CRAWL

CRAWL = "CC-MAIN-2026-43"
PATHS = tuple(f"crawl-data/{CRAWL}/segments/{i}/warc/{i:05d}.warc.gz" for i in range(5))
COLLECTIONS = [
    {"id": "CC-MAIN-2026-39", "name": "September 2026 Index", "from": "2026-09-05T00:00:00", "timegate": "https://x/"},
    {"id": CRAWL, "name": "October 2026 Index", "cdx-api": "https://x/"},
    {"id": "CC-MAIN-2026-34", "name": "August 2026 Index"},
    {"id": "CC-MAIN-2026-30", "name": "July 2026 Index"},
    {"id": "CC-MAIN-2012", "name": "Index of 2012"},
]
ONCE = Manners(contact="ops@node.example", max_attempts=1)


@pytest.fixture
def server(crawl_server):
    crawl_server.files["/collinfo.json"] = json.dumps(COLLECTIONS).encode()
    for crawl in (f"/crawl-data/{CRAWL}", "/crawl-data/CC-NEWS/2026/10", "/crawl-data/LOCAL-1"):
        crawl_server.files[f"{crawl}/warc.paths.gz"] = gzip.compress("\n".join(PATHS).encode())
    return crawl_server


def fetch(server, crawl: str = CRAWL, manners: Manners = ONCE):
    return fetch_listing(crawl, server.url, f"{server.url}/collinfo.json", manners)


def test_a_listed_crawl_has_the_name_that_it_is_listed_by(server):
    listing = fetch(server)
    assert (listing.crawl, listing.url, listing.name) == (CRAWL, server.url, "October 2026 Index")
    assert listing.paths == PATHS
    assert server.requests == ["/collinfo.json", f"/crawl-data/{CRAWL}/warc.paths.gz"]
    (agent,) = server.agents
    assert agent.startswith("athena-network/") and "ops@node.example" in agent


def test_latest_is_the_newest_crawl_in_whatever_order_they_are_listed(server):
    assert fetch(server, "latest").crawl == CRAWL


def test_a_crawl_that_is_not_listed_is_not_asked_for(server):
    with pytest.raises(
        NotFound, match=r"does not list CC-MAIN-2026-40.* CC-MAIN-2026-43, CC-MAIN-2026-39, CC-MAIN-2026-34"
    ):
        fetch(server, "CC-MAIN-2026-40")
    assert server.requests == ["/collinfo.json"]


def test_without_any_crawl_listed_there_is_no_latest(server):
    server.files["/collinfo.json"] = b"[]"
    with pytest.raises(NotFound, match="newest crawls are none"):
        fetch(server, "latest")


@pytest.mark.parametrize("crawl", ["CC-NEWS-2026-10", "LOCAL-1"])
def test_other_crawls_stand_in_no_list_and_are_named_by_their_id(server, crawl):
    assert fetch(server, crawl).name == crawl
    assert "/collinfo.json" not in server.requests


def test_a_mirror_has_no_list_unless_one_is_given(server):
    assert fetch_listing(CRAWL, server.url, None, ONCE).name == CRAWL
    with pytest.raises(BadInput, match="name the crawl by its id"):
        fetch_listing("latest", server.url, None, ONCE)
    assert "/collinfo.json" not in server.requests


@pytest.mark.parametrize("address", [COMMON_CRAWL, f"{COMMON_CRAWL}/"])
def test_common_crawls_own_list_is_asked_at_its_index_server(address):
    with pytest.raises(Unavailable, match=r"index\.commoncrawl\.org/collinfo\.json"):  # out of a test's reach
        fetch_listing("latest", address, None, ONCE)


@pytest.mark.parametrize("url", ["file:///etc/collinfo.json", "collinfo.json", "https://x.example/", "https://"])
def test_an_address_that_is_no_list_is_refused(server, url):
    with pytest.raises(Misconfigured, match="no list of crawls"):
        fetch_listing(CRAWL, server.url, url, ONCE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"\xff",
        b"{}",
        b'["CC-MAIN-2026-43"]',
        b'[{"id": "CC-MAIN-2026-43"}]',
        b'[{"id": 43, "name": "October"}]',
        b'[{"id": "../43", "name": "October"}]',
        b'[{"id": "CC-MAIN-2026-43", "name": "\\u001b[2J"}]',
        b'[{"id": "CC-MAIN-2026-43", "name": "' + b"x" * 201 + b'"}]',
        b'[{"id": "CC-MAIN-2026-43", "name": "October"}',
    ],
)
def test_what_is_no_list_of_crawls_is_refused(server, content):
    server.files["/collinfo.json"] = content
    with pytest.raises(BadInput, match=r"collinfo\.json is not a list of crawls"):
        fetch(server)
    assert server.requests == ["/collinfo.json"]


def test_a_list_of_crawls_may_come_in_chunks(server):
    whole = server.files["/collinfo.json"]
    server.files["/collinfo.json"] = [whole[:100], whole[100:]]
    assert fetch(server).name == "October 2026 Index"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_list_over_the_cap_is_refused(server, monkeypatch, chunked):
    monkeypatch.setattr(listing_module, "MAX_COLLINFO_BYTES", 100)
    whole = server.files["/collinfo.json"]
    server.files["/collinfo.json"] = [whole[:90], whole[90:]] if chunked else whole
    with pytest.raises(TooLarge):
        fetch(server)


def test_a_busy_server_is_asked_again_after_a_pause(server):
    server.statuses = [503]
    assert fetch(server, manners=Manners(max_attempts=2)).paths == PATHS
    assert server.requests == ["/collinfo.json", "/collinfo.json", f"/crawl-data/{CRAWL}/warc.paths.gz"]


def test_a_server_that_stays_busy_is_unavailable(server):
    server.statuses = [503]
    with pytest.raises(Unavailable, match="HTTP 503"):
        fetch(server)


@pytest.mark.parametrize("statuses", [[403], [200, 403]])
def test_a_server_that_blocks_is_asked_nothing_more(server, statuses):
    server.statuses = list(statuses)
    with pytest.raises(CrawlBlocked, match="stop all crawling"):
        fetch(server, manners=Manners())
    assert len(server.requests) == len(statuses)


def test_a_crawl_without_a_listing_is_not_found(server):
    with pytest.raises(NotFound, match=r"CC-MAIN-2026-39/warc\.paths\.gz"):
        fetch(server, "CC-MAIN-2026-39")


@pytest.fixture
def list_of(tmp_path):
    """A file of lines."""

    def write(*lines: str, name: str = "warcs.txt") -> Path:
        content = "\n".join(lines).encode()
        file = tmp_path / name
        file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return file

    return write


@pytest.fixture
def warc(tmp_path):
    """A file that is there."""

    def write(name: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
        return file

    return write


@pytest.mark.parametrize("name", ["warcs.txt", "warcs.txt.gz"])
def test_addresses_of_one_server_are_a_crawl_below_it(list_of, name):
    file = list_of("https://Host.example:8443/a/1.warc.gz", "", " https://host.example:8443/b/2.warc.gz\r", name=name)
    listing = read_list(file, "LOCAL-mine")
    assert (listing.crawl, listing.name, listing.url) == ("LOCAL-mine", "LOCAL-mine", "https://host.example:8443")
    assert listing.paths == ("a/1.warc.gz", "b/2.warc.gz")


def test_local_files_are_a_crawl_in_the_folder_that_holds_them(list_of, warc, tmp_path, monkeypatch):
    first, second = warc("deep/one folder/a/1.warc.gz"), warc("deep/one folder/2.warc.gz")
    monkeypatch.chdir(tmp_path / "deep")
    listing = read_list(list_of(str(first), "one folder/2.warc.gz"), "LOCAL-mine")
    assert listing.url == (tmp_path / "deep" / "one folder").as_uri()
    assert listing.paths == ("a/1.warc.gz", "2.warc.gz")
    with open_crawl(listing.url).open("2.warc.gz") as file:
        assert file.read() == b"deep/one folder/2.warc.gz"
    alone = read_list(list_of(str(second)), "LOCAL-mine")
    assert (alone.url, alone.paths) == ((tmp_path / "deep" / "one folder").as_uri(), ("2.warc.gz",))


def test_links_are_followed_so_that_the_folder_really_holds_the_files(list_of, warc, tmp_path):
    target, beside = warc("store/1.warc.gz"), warc("links/2.warc.gz")
    link = tmp_path / "links" / "1.warc.gz"
    link.symlink_to(target)
    listing = read_list(list_of(str(link), str(beside)), "LOCAL-mine")
    assert (listing.url, listing.paths) == (tmp_path.as_uri(), ("store/1.warc.gz", "links/2.warc.gz"))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("https://b.example/2.warc.gz", "line 2 of .* lies on https://b.example, .* on https://a.example"),
        ("http://a.example/2.warc.gz", "lies on http://a.example"),
        ("https://a.example:444/2.warc.gz", "lies on https://a.example:444"),
        ("1.warc.gz", "lies on this machine"),
    ],
)
def test_all_files_lie_under_one_address(list_of, warc, tmp_path, monkeypatch, second, message):
    warc("1.warc.gz")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        read_list(list_of("https://a.example/1.warc.gz", second), "LOCAL-mine")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nowhere/1.warc.gz", "line 2, 'nowhere/1.warc.gz', is no file"),
        (".", "line 2, '.', is no file"),
        ("a\0b", "is no file on this machine"),
        ("x" * 300, "is no file on this machine"),
        ("my file.warc.gz", "'my file.warc.gz' is not a path of a WARC file"),
        ("s3://commoncrawl/1.warc.gz", "not the plain http"),
        ("ftp://a.example/1.warc.gz", "not the plain http"),
        ("file:///etc/passwd", "not the plain http"),
        ("https://a.example", "not the plain http"),
        ("https://a.example/", "not the plain http"),
        ("https://me:secret@a.example/1.warc.gz", "not the plain http"),
        ("https://a.example/1.warc.gz?signature=x", "not the plain http"),
        ("https://a.example/1.warc.gz#x", "not the plain http"),
        ("https://a.example/1 2.warc.gz", "not the plain http"),
    ],
)
def test_a_line_that_is_neither_address_nor_file_is_refused(list_of, warc, tmp_path, monkeypatch, line, message):
    warc("1.warc.gz")
    warc("my file.warc.gz")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        read_list(list_of("1.warc.gz", line), "LOCAL-mine")


@pytest.mark.parametrize("path", ["../1.warc.gz", "a//1.warc.gz", "%2e%2e/1.warc.gz", "\u00fc.warc.gz", "a" * 301])
def test_an_address_with_a_path_that_no_crawl_may_have_is_refused(list_of, path):
    with pytest.raises(BadInput, match="not a path of a WARC file"):
        read_list(list_of(f"https://a.example/{path}"), "LOCAL-mine")


def test_a_list_that_is_missing_empty_broken_or_too_large_is_refused(list_of, tmp_path, monkeypatch):
    with pytest.raises(NotFound, match="is no file"):
        read_list(tmp_path / "nowhere.txt", "LOCAL-mine")
    with pytest.raises(NotFound, match="is no file"):
        read_list(tmp_path, "LOCAL-mine")
    with pytest.raises(BadInput, match="names no WARC file"):
        read_list(list_of("", "  "), "LOCAL-mine")
    broken = list_of("https://a.example/1.warc.gz", name="warcs.gz")
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(BadInput, match="cut off"):
        read_list(broken, "LOCAL-mine")
    monkeypatch.setattr(listing_module, "MAX_LISTING_BYTES", 10)
    with pytest.raises(TooLarge):
        read_list(list_of("https://a.example/1.warc.gz"), "LOCAL-mine")
