"""How the HTTP adapter behaves when Common Crawl is busy, broken, or has had enough."""

import pytest

from athena import crawl_http
from athena.crawl import CrawlBlocked, Manners, open_crawl
from athena.crawl_http import HttpCrawl
from athena.errors import Misconfigured, TooLarge, Unavailable

WARC = "crawl-data/CC-MAIN-2026-43/segments/1760.1/warc/CC-MAIN-20261020-00000.warc.gz"
BODY = bytes(range(256)) * 4096


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def crawl(server, pauses):
    crawl = HttpCrawl(server.url, Manners(max_attempts=4, contact="ops@node.example"), sleep=pauses.append)
    yield crawl
    crawl.close()


def test_names_itself_and_its_operator(crawl, server):
    crawl.read_range(WARC, 0, 1)
    (_, _, agent) = server.requests[0]
    assert agent.startswith("athena-network/") and "ops@node.example" in agent


def test_slow_down_is_retried_no_faster_than_once_a_second_and_ever_slower(crawl, server, pauses):
    server.faults.extend(["slow-down", "rate-limited", "drop"])
    assert crawl.read_range(WARC, 5, 10) == BODY[5:15]
    assert pauses == [3.0, 2.0, 4.0]  # the first by Retry-After, the rest doubled


def test_gives_up_as_unavailable_after_the_last_attempt(crawl, server, pauses):
    server.faults.extend(["slow-down"] * 9)
    with pytest.raises(Unavailable, match="503, 4 times in a row"):
        crawl.read_range(WARC, 0, 1)
    assert len(server.requests) == 4 and len(pauses) == 3


def test_403_stops_everything_at_once(crawl, server, pauses):
    server.faults.append("blocked")
    with pytest.raises(CrawlBlocked, match="stop all crawling"):
        crawl.open(WARC)
    for call in (lambda: crawl.read_range(WARC, 0, 1), lambda: crawl.warc_paths("CC-MAIN-2026-43")):
        with pytest.raises(CrawlBlocked):
            call()
    assert len(server.requests) == 1 and not pauses


def test_a_block_in_the_middle_of_a_stream_stops_it(crawl, server):
    server.faults.extend(["truncated", "blocked"])
    with crawl.open(WARC) as stream, pytest.raises(CrawlBlocked):
        stream.read()


@pytest.mark.parametrize("fault", ["ignores-range", "shifted", "moved"])
def test_a_wrong_answer_to_a_range_is_the_services_fault(crawl, server, fault):
    server.faults.append(fault)
    with pytest.raises(Unavailable):
        crawl.read_range(WARC, 10, 100)
    assert len(server.requests) == 1


def test_a_cut_off_range_is_read_again(crawl, server):
    server.faults.append("truncated")
    assert crawl.read_range(WARC, 10, 1000) == BODY[10:1010]
    assert len(server.requests) == 2


def test_a_stream_goes_on_where_the_connection_broke(crawl, server, pauses):
    server.faults.extend(["truncated", "slow-down", "truncated"])
    with crawl.open(WARC) as stream:
        assert stream.read() == BODY
    spans = [span for _, span, _ in server.requests]
    half, last = len(BODY) // 2, len(BODY) - 1
    assert spans == [None, f"bytes={half}-{last}", f"bytes={half}-{last}", f"bytes={half + half // 2}-{last}"]
    assert pauses == [1.0, 3.0, 1.0]


def test_a_stream_that_never_gets_on_gives_up(crawl, server):
    server.faults.extend(["truncated"] + ["drop"] * 9)
    with crawl.open(WARC) as stream, pytest.raises(Unavailable, match="4 times in a row"):
        stream.read()


@pytest.mark.parametrize("fault", ["changed", "ignores-range"])
def test_a_file_that_changed_under_the_reader_is_not_stitched_together(crawl, server, fault):
    server.faults.extend(["truncated", fault])
    with crawl.open(WARC) as stream, pytest.raises(Unavailable):
        stream.read()


def test_a_file_over_the_cap_is_refused_before_it_is_read(crawl, server):
    server.faults.extend(["huge", "huge"])
    with pytest.raises(TooLarge):
        crawl.open(WARC)
    with pytest.raises(TooLarge):
        crawl.warc_paths("CC-MAIN-2026-43")


def test_requests_to_a_remote_host_keep_their_distance(server, pauses, monkeypatch):
    monkeypatch.setattr(crawl_http, "_LOOPBACK", frozenset())
    crawl = HttpCrawl(server.url, Manners(min_interval_seconds=3000, jitter_seconds=0.5), sleep=pauses.append)
    for _ in range(3):
        crawl.read_range(WARC, 0, 1)
    crawl.close()
    first, second = pauses  # the fake sleep does not pass time, so the turns add up
    assert 2900 < first <= 3000.5 and 5900 < second <= 6001


def test_nobody_home_is_unavailable(pauses):
    crawl = HttpCrawl("http://127.0.0.1:1", Manners(max_attempts=2), sleep=pauses.append)
    with pytest.raises(Unavailable, match="2 times in a row"):
        crawl.read_range(WARC, 0, 1)
    crawl.close()


@pytest.mark.parametrize("url", ["", "ftp://x", "crawl", "file://host/a", "file:relative", "https://", "https://a/?b"])
def test_refuses_what_is_no_crawl_url(url):
    with pytest.raises(Misconfigured):
        open_crawl(url)


def test_manners_cannot_be_set_below_what_common_crawl_asks():
    with pytest.raises(Misconfigured):
        Manners(first_backoff_seconds=0.1)
    with pytest.raises(Misconfigured):
        Manners(contact="a\r\nX-Evil: 1")
