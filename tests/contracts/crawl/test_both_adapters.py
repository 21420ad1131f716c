"""What athena.crawl.Crawl promises, asked of the folder and of the loopback Common Crawl alike."""

import gzip

import pytest

from athena import crawl_paths
from athena.crawl import open_crawl
from athena.crawl_http import MAX_RANGE_BYTES
from athena.errors import BadInput, NotFound, TooLarge

CRAWL = "CC-MAIN-2026-43"
WARC = f"crawl-data/{CRAWL}/segments/1760.1/warc/CC-MAIN-20261020-00000.warc.gz"
BODY = bytes(range(256)) * 4096


@pytest.fixture(params=["file", "http"])
def crawl(request, crawl_root):
    url = f"file://{crawl_root}" if request.param == "file" else request.getfixturevalue("server").url
    crawl = open_crawl(url)
    yield crawl
    crawl.close()


def test_lists_paths_of_main_and_news_crawls(crawl):
    assert list(crawl.warc_paths(CRAWL)) == [WARC]
    assert list(crawl.warc_paths("CC-NEWS-2026-10")) == ["crawl-data/CC-NEWS/2026/10/CC-NEWS-20261001-00001.warc.gz"]


def test_an_empty_listing_has_no_paths(crawl, crawl_root):
    (crawl_root / f"crawl-data/{CRAWL}/warc.paths.gz").write_bytes(gzip.compress(b""))
    assert list(crawl.warc_paths(CRAWL)) == []


@pytest.mark.parametrize("crawl_id", ["", "CC-MAIN-26-1", "../etc", "LOCAL-", "CC-MAIN-2026-43/.."])
def test_refuses_what_is_no_crawl_id(crawl, crawl_id):
    with pytest.raises(BadInput, match="crawl id"):
        list(crawl.warc_paths(crawl_id))


def test_an_unknown_crawl_is_not_found(crawl):
    with pytest.raises(NotFound):
        list(crawl.warc_paths("CC-MAIN-1999-01"))


@pytest.mark.parametrize(
    "line", [b"../../etc/passwd", b"/etc/passwd", b"a//b", b"a/./b", b"http://x.example/a", b"a b", b"\xff", b"a" * 301]
)
def test_refuses_hostile_lines(crawl, crawl_root, line):
    (crawl_root / f"crawl-data/{CRAWL}/warc.paths.gz").write_bytes(gzip.compress(b"good.warc.gz\n" + line + b"\n"))
    paths = crawl.warc_paths(CRAWL)
    assert next(paths) == "good.warc.gz"
    with pytest.raises(BadInput, match="not a path"):
        next(paths)


def test_refuses_a_listing_that_is_no_gzip_or_cut_off(crawl, crawl_root):
    listing = crawl_root / f"crawl-data/{CRAWL}/warc.paths.gz"
    listing.write_bytes(b"plain text\n")
    with pytest.raises(BadInput, match="not a gzip"):
        list(crawl.warc_paths(CRAWL))
    listing.write_bytes(gzip.compress(b"a.warc.gz\n" * 1000)[:-12])
    with pytest.raises(BadInput, match="cut off"):
        list(crawl.warc_paths(CRAWL))


def test_a_listing_that_inflates_past_the_cap_is_too_large(crawl, crawl_root, monkeypatch):
    monkeypatch.setattr(crawl_paths, "MAX_INFLATED_LISTING_BYTES", 10**6)
    bomb = gzip.compress((b"a" * 99 + b"\n") * 10001)
    (crawl_root / f"crawl-data/{CRAWL}/warc.paths.gz").write_bytes(bomb)
    with pytest.raises(TooLarge):
        for _ in crawl.warc_paths(CRAWL):
            pass


def test_streams_a_whole_file(crawl):
    with crawl.open(WARC) as stream:
        assert stream.read(1000) == BODY[:1000]
        assert stream.read() == BODY[1000:]
        assert stream.read(1) == b""


def test_reads_exact_ranges(crawl):
    assert crawl.read_range(WARC, 0, 1) == BODY[:1]
    assert crawl.read_range(WARC, 1000, 5000) == BODY[1000:6000]
    assert crawl.read_range(WARC, len(BODY) - 10, 10) == BODY[-10:]


@pytest.mark.parametrize(("offset", "length"), [(len(BODY) - 10, 11), (len(BODY), 1), (2**40, 10), (-1, 10), (0, 0)])
def test_a_range_that_the_file_does_not_have_is_bad_input(crawl, offset, length):
    with pytest.raises(BadInput):
        crawl.read_range(WARC, offset, length)


def test_a_range_over_the_cap_is_too_large(crawl):
    with pytest.raises(TooLarge):
        crawl.read_range(WARC, 0, MAX_RANGE_BYTES + 1)


def test_a_missing_file_is_not_found(crawl):
    with pytest.raises(NotFound):
        crawl.read_range("crawl-data/none.warc.gz", 0, 1)
    with pytest.raises(NotFound):
        crawl.open("crawl-data/none.warc.gz")
    with pytest.raises(NotFound):
        crawl.open("crawl-data")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", "a?b", "a#b", "a\nb", ""])
def test_refuses_hostile_paths(crawl, path):
    with pytest.raises(BadInput):
        crawl.open(path)
    with pytest.raises(BadInput):
        crawl.read_range(path, 0, 1)
