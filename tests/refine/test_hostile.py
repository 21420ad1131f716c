"""Records made to hurt, through `refine_warc` on a local crawl: bounded memory, counted by reason, never fatal."""

import gzip
import json
import os
import subprocess
import sys
import zlib

import pytest

from athena.crawl import open_crawl
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_warc

MIB = 1 << 20
HTML = ("Content-Type", "text/html; charset=utf-8")


def response(
    http, *, length=None, kind="response", extra=b"", url=b"http://hostile.example/", mime=b"application/http"
):
    """One plain WARC record around raw HTTP bytes, with any Content-Length."""
    head = (
        b"WARC/1.0\r\nWARC-Type: %b\r\nWARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-000000000001>\r\n"
        b"WARC-Date: 2026-01-02T03:04:05Z\r\nWARC-Target-URI: %b\r\nContent-Type: %b; msgtype=response\r\n%b"
        b"Content-Length: %d\r\n\r\n" % (kind.encode(), url, mime, extra, len(http) if length is None else length)
    )
    return head + http + b"\r\n\r\n"


def http(body, *headers, status=b"HTTP/1.1 200 OK"):
    lines = [status, *(f"{name}: {value}".encode() for name, value in (HTML, *headers))]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def member(record):
    return gzip.compress(record, compresslevel=1, mtime=0)


def bomb(megabytes, *, pad=b"a" * MIB):
    """A gzip member of a few kilobytes that inflates to a page of many megabytes."""
    page = http(b"<html><body>")
    deflate = zlib.compressobj(1, wbits=31)
    head = response(page, length=len(page) + megabytes * len(pad)).removesuffix(b"\r\n\r\n")
    pieces = [deflate.compress(head), *(deflate.compress(pad) for _ in range(megabytes))]
    return b"".join([*pieces, deflate.compress(b"\r\n\r\n"), deflate.flush()])


def records_that_hurt(page):
    """(name, bytes of a gzip member, the reason that it counts under).

    The reason is "row" for what is kept, and "not counted" for what is no response.
    """
    words, deep = b"I am the one and it is of that. ", 12_000
    plain = http(page)
    flood = [(f"X-{i}", "y" * 60) for i in range(100_000)]
    gzipped = ("Content-Encoding", "gzip")
    chunked = ("Transfer-Encoding", "chunked")
    cases = [
        ("a bomb", bomb(100), "too-large"),
        ("a bomb of NUL bytes", bomb(60, pad=bytes(MIB)), "too-large"),
        ("a bomb of tags", bomb(60, pad=b"<b>" * (MIB // 3)), "too-large"),
        ("a line of 50 MB", bomb(50), "too-large"),
        ("a coded bomb", http(gzip.compress(bytes(60 * MIB)), gzipped), "too-large"),
        ("a line of 1 MB", http(b"<html><body>" + b"a" * MIB), "language"),
        ("100k nested", http(b"<div>" * 100_000 + page), "extraction.overloaded"),
        ("12k nested", http(b"<html><body>" + b"<div>" * deep + words * 9 + b"</div>" * deep), "extraction.empty"),
        ("12k lists", http(b"<html><body>" + b"<ul><li>" * deep + words * 9), "extraction.empty"),
        ("a million tags", http(b"<p>x" * MIB), "extraction.overloaded"),
        ("a tag of 600k attributes", http(b"<div " + b"a=b " * 600_000 + b">" + page), "extraction.overloaded"),
        ("NUL bytes", http(b"<html><body>" + bytes(MIB)), "extraction.empty"),
        ("open tags", http(b"<" * 40_000), "extraction.overloaded"),
        ("half a comment", http(b"<html><!--" + b"-" * MIB), "extraction.empty"),
        ("nested JSON", http(b'<html><script type="application/ld+json">' + b'{"a":' * MIB), "extraction.empty"),
        ("chunks of no size", http(b"zz\r\n" + page, chunked), "row"),
        ("a chunk below zero", http(b"-5\r\n" + page, chunked), "row"),
        ("a chunk too long", http(b"ffffffffffffffff\r\n" + page, chunked), "row"),
        ("a chunk without end", http(b"%x\r\n" % len(page) + page, chunked), "row"),
        ("gzip that is none", http(page, gzipped), "row"),
        ("half a gzip", http(gzip.compress(page)[:-200], gzipped), "row"),
        ("too short a length", response(plain, length=len(plain) - 500), "malformed"),
        ("too long a length", response(plain, length=len(plain) + 10**9), "row"),
        ("a length of 18 digits", response(plain, length=10**17), "row"),
        ("no length", response(plain).replace(b"Content-Length", b"X-Length"), "not-html"),
        ("a negative length", response(plain, length=-1), "not-html"),
        ("a flood of headers", http(page, *flood), "malformed"),
        ("a header of 7 MB", http(page, ("X-Long", "y" * (7 * MIB))), "malformed"),
        ("a flood of WARC headers", response(plain, extra=b"X-A: b\r\n" * 200_000), "malformed"),
        ("a header without end", b"WARC/1.0\r\n" + b"X: y\r\n" * 200_000, "malformed"),
        ("no HTTP", response(b"example.com. 300 IN A 1.2.3.4", mime=b"text/dns"), "not-html"),
        ("no HTTP but its name", response(b"\x00\x01\x02" * 1000), "not-html"),
        ("an HTTP status alone", response(b"HTTP/1.1 200 OK"), "not-html"),
        ("an unknown type", response(plain, kind="surprise"), "not counted"),
        ("no type", response(plain).replace(b"WARC-Type", b"X-Type"), "not counted"),
        ("no URL", response(plain, url=b""), "malformed"),
        ("a URL of 1 MB", response(plain, url=b"http://a.example/" + b"x" * MIB), "malformed"),
        ("a URL of noise", response(plain, url=b"http://[\xff\xfe%00::1]:99999/\x01"), "row"),
        ("an unknown charset", plain.replace(b"utf-8", b"\xff\x00rot13"), "row"),
        ("noise", http(b"<html>" + bytes(range(256)) * 4096), "undecodable"),
    ]
    return [(n, r if r[:2] == b"\x1f\x8b" else member(r if r[:5] == b"WARC/" else response(r)), w) for n, r, w in cases]


def outcome(path, root, recipe="fineweb-1"):
    result = refine_warc(path, load_recipe(recipe), open_crawl(root.as_uri()))
    return result.rejected | ({"row": result.table.num_rows} if result.table.num_rows else {})


_MEASURE = """
import json, resource, subprocess, sys
inner = '''
import json, sys
from athena.crawl import open_crawl
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_warc
for path in sys.argv[2:]:
    result = refine_warc(path, load_recipe("fineweb-1"), open_crawl(sys.argv[1]))
    print(json.dumps({"path": path, "rows": result.table.num_rows, "rejected": result.rejected}))
'''
done = subprocess.run([sys.executable, "-c", inner, *sys.argv[1:]], capture_output=True, text=True)
assert done.returncode == 0, done.stderr
largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(json.dumps([[json.loads(line) for line in done.stdout.splitlines()], largest]))
"""


def measured(root, names):
    """What `refine_warc` makes of each file, and the MiB of the largest process below it, workers included."""
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", _MEASURE, root.as_uri(), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=280)
    return json.loads(done.stdout)


def test_a_record_made_to_hurt_is_counted_and_costs_little_memory(tmp_path, html_page, prose):
    cases = records_that_hurt(html_page(prose(5)))
    good = member(response(http(html_page(prose(6)))))
    for index, (_, record, _) in enumerate(cases):
        (tmp_path / f"{index:02}.warc.gz").write_bytes(good + record + good)
    results, mebibytes = measured(tmp_path, sorted(path.name for path in tmp_path.iterdir()))
    assert mebibytes < 1024
    for (name, _, reason), result in zip(cases, results, strict=True):
        # The second good page is the first one's duplicate; what is left is the hostile record's.
        found = dict(result["rejected"], row=result["rows"] - 1)
        found["duplicate"] -= 1
        expected = {} if reason == "not counted" else {reason: 1}
        assert {key: count for key, count in found.items() if count} == expected, name


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_text_without_end_costs_little_memory(tmp_path):
    """Near the cap of 8 MiB: one word, a sentence again and again, half a million different words."""
    texts = (
        b"a" * (8 * MIB - 2000),
        b"I am the one and it is of that. " * 200_000,
        b"".join(b"the %d and " % i for i in range(450_000)),
    )
    for index, text in enumerate(texts):
        (tmp_path / f"{index}.warc.gz").write_bytes(member(response(http(b"<html><body><p>" + text))))
    results, mebibytes = measured(tmp_path, sorted(path.name for path in tmp_path.iterdir()))
    assert [(result["rows"], sum(result["rejected"].values())) for result in results] == [(0, 1)] * 3
    assert mebibytes < 1024


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
def test_a_torn_file_gives_what_lies_before_the_tear(tmp_path, warc, english_site, cut):
    raw = warc(english_site(1, 6))
    (tmp_path / "torn.warc.gz").write_bytes(raw[: int(len(raw) * cut)])
    found = outcome("torn.warc.gz", tmp_path)
    assert found.pop("truncated") == 1
    assert found == ({"row": int(6 * cut)} if int(6 * cut) else {})


@pytest.mark.parametrize(
    "raw",
    [
        b"filedesc://a.arc 0.0.0.0 20080430 text/plain 77\n1 0 InternetArchive\n\n",
        b"%PDF-1.7" + bytes(9000),
        b"\x00" * 9000 + b"x",
        b"WARC",
        b"<" * 100_000,
        gzip.compress(bytes(60 * MIB), mtime=0),
    ],
    ids=["arc", "pdf", "nul", "start", "tags", "zeros"],
)
def test_what_is_no_warc_counts_once(tmp_path, raw):
    (tmp_path / "x.warc.gz").write_bytes(raw)
    found = outcome("x.warc.gz", tmp_path)
    assert found in ({"not-a-warc": 1}, {"truncated": 1})


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_every_real_file_goes_through(test_data):
    names = sorted(path.name for path in (test_data / "warc").iterdir() if ".warc" in path.name or ".arc" in path.name)
    results, mebibytes = measured(test_data / "warc", names)
    found = {result["path"]: result for result in results}
    assert found["cdxwriter-giant_html.warc.gz"]["rejected"] == {"too-large": 1}
    for name in names:
        arc = ".arc" in name
        assert (found[name]["rejected"] == {"not-a-warc": 1}) == arc, name
    assert sum(result["rows"] for result in results) > 60
    assert not any(reason.startswith("none.") for result in results for reason in result["rejected"])
    assert mebibytes < 1024


def test_the_real_bomb_costs_little_memory(test_data):
    results, mebibytes = measured(test_data / "warc", ["cdxwriter-giant_html.warc.gz", "aut-example.arc.gz"])
    assert [result["rejected"] for result in results] == [{"too-large": 1}, {"not-a-warc": 1}]
    assert mebibytes < 1024
