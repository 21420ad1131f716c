import gzip
import io
import os
import random
import subprocess
import sys
import zlib
from collections import Counter

import pytest

from athena.errors import BadInput, TooLarge
from athena.refine.records import parse_record, read_records, visible_text


def read(raw):
    rejected = Counter()
    return list(read_records(io.BytesIO(raw), "x.warc.gz", rejected)), dict(rejected)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_record_parses_from_its_byte_range(warc, english_site, compressed):
    raw = warc(english_site(1, 6), compressed=compressed)
    records, rejected = read(raw)
    assert len(records) == 6
    assert not rejected
    for record in records:
        piece = raw[record.offset : record.offset + record.length]
        assert parse_record(piece, "x.warc.gz", record.offset) == record
        with pytest.raises(BadInput):
            parse_record(piece[:-20], "x.warc.gz", record.offset)
    with pytest.raises(BadInput, match="2 records"):
        parse_record(raw[: records[1].offset + records[1].length], "x.warc.gz", 0)


def test_plain_and_gzipped_files_hold_the_same_pages(warc, english_site):
    pages = english_site(1, 3)
    gzipped, _ = read(warc(pages))
    plain, _ = read(warc(pages, compressed=False))
    assert [r.body for r in gzipped] == [r.body for r in plain] == [body for _, body in pages]
    assert [r.url for r in gzipped] == [url for url, _ in pages]
    assert all(r.payload_digest.startswith("sha1:") for r in gzipped)


@pytest.mark.parametrize("compressed", [True, False])
def test_everything_before_a_torn_tail_is_used(warc, english_site, compressed):
    raw = warc(english_site(1, 4), compressed=compressed)
    last = read(raw)[0][-1].offset
    for cut in random.Random(3).sample(range(last + 1, len(raw) - 4), 20):
        records, rejected = read(raw[:cut])
        assert len(records) == 3
        assert rejected == {"truncated": 1}


def test_damage_in_the_middle_ends_the_file_there(warc, english_site):
    raw = bytearray(warc(english_site(1, 4)))
    second = read(bytes(raw))[0][1]
    raw[second.offset + 40 : second.offset + 80] = bytes(40)
    records, rejected = read(bytes(raw))
    assert len(records) == 1
    assert rejected == {"truncated": 1}


def test_an_empty_file_has_no_records():
    assert read(b"") == ([], {})


def test_other_types_are_counted_and_skipped(warc):
    records, rejected = read(warc([("http://a.example/x.pdf", b"%PDF-1.7")], content_type="application/pdf"))
    assert (records, rejected) == ([], {"not-html": 1})


def test_a_page_without_a_type_is_recognised_by_its_first_bytes(warc):
    pages = [("http://a.example/", b"\n<!DOCTYPE html><p>Hello"), ("http://a.example/data", b'{"a": 1}')]
    records, rejected = read(warc(pages, content_type=None))
    assert [r.url for r in records] == ["http://a.example/"]
    assert rejected == {"not-html": 1}


def test_http_codings_are_removed_and_false_ones_ignored(warc, html_page, prose):
    page = html_page(prose(1))
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(page), page)
    for body, header in (
        (gzip.compress(page), ("Content-Encoding", "gzip")),
        (chunked, ("Transfer-Encoding", "chunked")),
        (page, ("Content-Encoding", "gzip")),
        (page, ("Transfer-Encoding", "chunked")),
    ):
        records, _ = read(warc([("http://a.example/", body)], headers=(header,)))
        assert records[0].body == page, header


def test_a_body_that_unpacks_beyond_the_cap_is_too_large(warc):
    body = gzip.compress(b"<html>" + b"a" * (9 << 20))
    records, rejected = read(warc([("http://a.example/", body)], headers=(("Content-Encoding", "gzip"),)))
    assert (records, rejected) == ([], {"too-large": 1})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"filedesc://a.arc 0.0.0.0 20080430 text/plain 77\n1 0 InternetArchive\n\n", "ARC"),
        (gzip.compress(b"filedesc://a.arc 0.0.0.0 20080430 text/plain 77\n", mtime=0), "ARC"),
        (b"PK\x03\x04" + bytes(200), "not a WARC"),
        (gzip.compress(b"hello", mtime=0), "not a WARC"),
    ],
)
def test_what_is_no_warc_is_refused_with_its_name(raw, message):
    with pytest.raises(BadInput, match=message):
        read(raw)


def test_a_file_gzipped_as_a_whole_is_refused_with_the_remedy(whole_file_gzip):
    with pytest.raises(BadInput, match="warcio recompress"):
        read(whole_file_gzip)


def _bomb(megabytes: int) -> bytes:
    size = megabytes << 20
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body>"
    head = (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:1>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        b"WARC-Target-URI: http://bomb.example/\r\nContent-Type: application/http; msgtype=response\r\n"
        b"Content-Length: %d\r\n\r\n" % (len(http) + size)
    )
    deflate = zlib.compressobj(1, wbits=31)
    pieces = [deflate.compress(head + http)] + [deflate.compress(b"a" * (1 << 20)) for _ in range(megabytes)]
    return b"".join([*pieces, deflate.compress(b"\r\n\r\n"), deflate.flush()])


_MEASURE = """
import collections, resource, sys
from athena.refine.records import read_records
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rejected = collections.Counter()
with open(sys.argv[1], "rb") as file:
    urls = [r.url for r in read_records(file, "x", rejected)]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(urls, dict(rejected), (after - before) // 1024)
"""


def _measure(path):
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)],
        capture_output=True, text=True, check=True, env={**os.environ, "MALLOC_ARENA_MAX": "1"}, timeout=120,
    )  # fmt: skip
    found, mebibytes = done.stdout.strip().rsplit(" ", 1)
    return found, int(mebibytes)


def test_a_bomb_is_counted_and_costs_little_memory(tmp_path, warc, english_site):
    path = tmp_path / "bomb.warc.gz"
    path.write_bytes(_bomb(430) + warc(english_site(1, 1)))
    found, mebibytes = _measure(path)
    assert found == "['http://site1.example/page/0'] {'too-large': 1}"
    assert mebibytes < 100


def test_the_range_of_a_bomb_is_too_large():
    with pytest.raises(TooLarge):
        parse_record(_bomb(20), "x", 0)


def test_real_warcs(test_data):
    found, mebibytes = _measure(test_data / "warc" / "cdxwriter-giant_html.warc.gz")
    assert found == "[] {'too-large': 1}"
    assert mebibytes < 100
    expected = {
        "aut-example": 140, "cc-whirlwind": 1, "jwarc-cc": 1, "dolma-sample-0000": 22, "dolma-sample-0001": 15,
        "pywb-iana": 20, "ukwa-govuk1": 36, "resiliparse-warcfile": 16, "ipwb-sample-1": 64, "aut-docs": 0,
        "warc2zim-qsl": 1,
    }  # fmt: skip
    for name, count in expected.items():
        raw = (test_data / "warc" / f"{name}.warc.gz").read_bytes()
        records, _ = read(raw)
        assert len(records) == count, name
        assert not any(r.body.startswith(b"HTTP/1") or r.url.startswith("<") for r in records), name
    assert len(read((test_data / "warc" / "nodewarc-books.warc").read_bytes())[0]) == 1
    for name in ("aut-example.arc.gz", "cdxwriter-15digit.arc.gz"):
        with pytest.raises(BadInput, match="ARC"):
            read((test_data / "warc" / name).read_bytes())


@pytest.mark.parametrize(
    ("body", "header"),
    [
        ("Grüße aus Köln".encode("cp1252"), "text/html; charset=iso-8859-1"),
        (b"<meta charset=windows-1252>" + "Grüße aus Köln".encode("cp1252"), "text/html"),
        ("Grüße aus Köln".encode(), "text/html; charset=iso-8859-1"),
        (b"\xef\xbb\xbf" + "Grüße aus Köln".encode(), "text/html"),
        ("Grüße aus Köln".encode("cp1252"), "text/html; charset=rot13"),
    ],
)
def test_pages_decode_as_utf8_then_as_declared_then_as_guessed(warc, body, header):
    records, _ = read(warc([("http://a.example/", b"<html><body><p>" + body)], content_type=header))
    assert "Grüße aus Köln" in visible_text(records[0])


def test_visible_text_is_in_order_a_line_per_block_without_scripts(warc):
    page = b"""<html><head><title>Title</title><style>p {}</style></head><body><ul><li>One<li>Two <b>bold</b>er</ul>
    <script>alert(1)</script><p hidden>Hidden</p><table><tr><td>Cell</td><td>Other</td></tr></table></body></html>"""
    records, _ = read(warc([("http://a.example/", page)]))
    assert visible_text(records[0]).split("\n") == ["Title", "One", "Two bolder", "Hidden", "Cell", "Other"]


def test_markup_nested_100_000_deep_does_no_harm(warc):
    deep, deeper = (b"<html><body>" + b"<div>" * n + b"deep" + b"</div>" * n for n in (10_000, 100_000))
    pages = [("http://a.example/", deep), ("http://b.example/", b"<html>"), ("http://c.example/", deeper)]
    *records, overloaded = read(warc(pages))[0]
    for record in records:
        assert isinstance(visible_text(record), str)
    with pytest.raises(BadInput, match="too many tags"):
        visible_text(overloaded)
