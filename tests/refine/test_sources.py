from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import pickle
import resource
import threading
from collections import Counter
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pypdf
import pytest
import zstandard

from athena.crawl import local_crawl
from athena.errors import BadInput, NotFound, Unavailable
from athena.refine.recipe import Document, load_recipe
from athena.refine.records import MAX_RECORD_BYTES
from athena.refine.sources import pdf as sources_pdf
from athena.refine.sources import tables as sources_tables
from athena.refine.sources.files import form_of
from athena.refine.sources.opening import NOT_A_FILE, UNKNOWN_KIND, open_sources, read_again

ROWS = [
    {"text": "The first text.", "url": "https://example.org/1", "date": "2024-01-02"},
    {"text": 'It says "no", twice,\nin two lines: naïve 日本', "url": "https://example.org/2", "date": "2024-01-03"},
    {"text": "The last text.", "url": None, "date": None},
]


def jsonl(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def csv_file(rows, delimiter=",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(rows, **options) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


def pdf(*pages: str, operators: int = 0) -> bytes:
    """A PDF that shows one line of text per page, as a word processor would write it."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for index, text in enumerate(pages):
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {resources} /Contents {5 + 2 * index} 0 R >>"
        )
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" + " q Q" * operators
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        f"{out}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    ).encode()


def wet(pages, content_type="text/plain") -> bytes:
    out = b""
    for number, (url, text) in enumerate(pages):
        body = text.encode()
        head = (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-18T01:58:10Z\r\n"
            f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012}>\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        out += gzip.compress(head + body + b"\r\n\r\n", mtime=0)
    return out


@pytest.fixture
def put(tmp_path):
    def write(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    return write


@pytest.fixture
def shard_warc(warc, english_site) -> bytes:
    return warc(english_site(1, 3))


@pytest.fixture
def read():
    def records(*inputs: str):
        rejected: Counter[str] = Counter()
        found = [record for source in open_sources(inputs) for record in source.records(rejected)]
        return found, dict(rejected)

    return records


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"Plain text.\n"),
        ("notes.md", b"# A title\n\nText."),
        ("notes.txt.gz", gzip.compress(b"Packed text.", mtime=0)),
    ],
)
def test_a_text_file_is_one_record_of_text(name, content, put, read):
    path = put(name, content)
    (record,), rejected = read(path)
    text = gzip.decompress(content) if name.endswith("gz") else content
    assert rejected == {} and record.is_text and record.body == text
    assert (record.offset, record.length) == (0, len(text))
    assert record.warc_path == record.url == f"file:{name}?sha256={hashlib.sha256(content).hexdigest()}"
    assert record.record_id.startswith("<urn:athena:") and record.payload_digest.startswith("sha1:")


def test_text_in_another_charset_becomes_utf_8(put, read):
    text = "Straße, Größe, Übermut und Käse: ein Satz mit vielen Umlauten für die Erkennung. " * 4
    (record,), _ = read(put("alt.txt", text.encode("cp1252")))
    assert record.body.decode() == text and record.length == len(text)


def test_an_html_file_is_a_page_to_extract_from(put, read):
    (record,), _ = read(put("page.html", b"<html><body><p>Hello</p></body></html>"))
    assert not record.is_text and record.body.startswith(b"<html>")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", jsonl(ROWS)),
        ("rows.jsonl.gz", gzip.compress(jsonl(ROWS))),
        ("rows.json.gz", gzip.compress(jsonl(ROWS[:1])) + gzip.compress(jsonl(ROWS[1:]))),
        ("rows.jsonl.zst", zstandard.compress(jsonl(ROWS[:2])) + zstandard.compress(jsonl(ROWS[2:]))),
        ("rows.csv", csv_file(ROWS)),
        ("rows.csv.gz", gzip.compress(b"\xef\xbb\xbf" + csv_file(ROWS))),
        ("rows.tsv", csv_file(ROWS, "\t")),
        ("rows.parquet", parquet(ROWS)),
        ("groups.parquet", parquet(ROWS, row_group_size=2, use_dictionary=False)),
    ],
)
def test_every_row_of_a_table_is_found_again_by_name_and_range(name, content, put, read, tmp_path):
    path = put(name, content)
    records, rejected = read(path)
    assert rejected == {}
    assert [r.body.decode() for r in records] == [row["text"] for row in ROWS]
    assert [r.url for r in records] == ["https://example.org/1", "https://example.org/2", records[0].warc_path]
    assert [r.date for r in records] == ["2024-01-02", "2024-01-03", ""]
    assert all(a.offset < b.offset for a, b in pairwise(records))
    for record in records:
        assert read_again(tmp_path / name, record.warc_path, record.offset, record.length) == record
    with pytest.raises(BadInput):
        read_again(tmp_path / name, records[0].warc_path, records[1].offset, records[1].length + 1)


def test_ranges_of_lines_and_rows_are_bytes_of_the_unpacked_file(put, read):
    for name, content in (("a.jsonl", jsonl(ROWS)), ("a.csv", csv_file(ROWS))):
        records, _ = read(put(name, content))
        for record, row in zip(records, ROWS, strict=True):
            piece = content[record.offset : record.offset + record.length].decode()
            text = json.loads(piece)["text"] if name == "a.jsonl" else next(csv.reader(io.StringIO(piece)))[0]
            assert text == row["text"]


def test_a_changed_file_is_not_read_again(put, read, tmp_path):
    (record,), _ = read(put("a.txt", b"one"))
    put("a.txt", b"two")
    with pytest.raises(BadInput, match="is not the file"):
        read_again(tmp_path / "a.txt", record.warc_path, 0, 3)


def test_a_column_can_be_named_and_becomes_part_of_the_name(put, read, tmp_path):
    path = put("a.jsonl", jsonl([{"body text": "wanted", "text": "not this"}]))
    (record,), _ = read(f"{path}#column=body text")
    assert record.body == b"wanted" and record.warc_path.endswith("#column=body%20text")
    assert read_again(tmp_path / "a.jsonl", record.warc_path, record.offset, record.length) == record


@pytest.mark.parametrize("column", ["text", "content", "raw_content"])
def test_the_usual_columns_are_found(column, put, read):
    (record,), _ = read(put("a.parquet", parquet([{"id": 1, column: "words"}])))
    assert record.body == b"words"


def test_times_of_parquet_become_iso_dates(put, read):
    when = datetime(2023, 2, 6, 1, 30, tzinfo=UTC)
    table = pa.table({"content": ["x"], "timestamp": pa.array([when], pa.timestamp("ns", tz="UTC"))})
    out = io.BytesIO()
    pq.write_table(table, out)
    (record,), _ = read(put("a.parquet", out.getvalue()))
    assert record.date == "2023-02-06T01:30:00+00:00"


def test_what_yields_no_record_is_counted(put, read):
    big = "x" * (MAX_RECORD_BYTES + 1)
    lines = [
        b"{broken", b"[1, 2]", b"", b'{"title": "no text"}', b'{"text": 5}', b"[" * 100_000,
        json.dumps({"text": big}).encode(), b'{"text": "' + b"y" * (2 * MAX_RECORD_BYTES) + b'"}',
        b'{"text": "half \\ud800 a pair"}', b'{"text": "good"}',
    ]  # fmt: skip
    records, rejected = read(put("a.jsonl", b"\n".join(lines)))
    assert [r.body for r in records] == [b"half ? a pair", b"good"]
    assert rejected == {"malformed": 3, "no-text": 2, "too-large": 2}

    content = b'text,url\ngood,u\nshort\n"\xff",u\nlast,u\n"never closed,u\n' + b"line\n" * 5
    records, rejected = read(put("a.csv", content))
    assert [r.body for r in records] == [b"good", b"last"] and rejected == {"malformed": 3}

    rows = [{"text": big}, {"text": None}, {"text": "good"}]
    records, rejected = read(put("a.parquet", parquet(rows)))
    assert [(r.offset, r.body) for r in records] == [(2, b"good")] and rejected == {"too-large": 1, "no-text": 1}
    assert read(put("b.parquet", parquet([{"n": 1}, {"n": 2}]))) == ([], {"no-text": 2})
    assert read(put("c.parquet", b"PAR1 no such file PAR1")) == ([], {"malformed": 1})
    assert read(put("big.txt", b"x" * (MAX_RECORD_BYTES + 1))) == ([], {"too-large": 1})
    assert read(put("bytes.txt", bytes(range(128, 256)) * 40))[1] in ({}, {"undecodable": 1})


def test_a_quote_that_is_never_closed_costs_bounded_memory(put, read, monkeypatch):
    monkeypatch.setattr(sources_tables, "_MAX_LINE_BYTES", 100_000)
    rows = (b"x" * 999 + b"\n") * 300
    records, rejected = read(put("a.csv", b'text\nfirst\n"' + rows))
    assert records[0].body == b"first" and rejected["malformed"] >= 1 and len(records) > 100
    many_fields = b'"x\n",' * 25_000  # each field is small, the row is not
    records, rejected = read(put("b.csv", b"text\nfirst\n" + many_fields))
    assert records[0].body == b"first" and rejected["malformed"] >= 1


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.csv.gz", "a.txt.gz"])
def test_a_cut_or_damaged_file_yields_what_came_before(name, put, read):
    rows = [{"text": hashlib.sha256(str(i).encode()).hexdigest() * 8} for i in range(4000)]
    content = csv_file(rows) if "csv" in name else jsonl(rows)
    packed = zstandard.compress(content) if name.endswith("zst") else gzip.compress(content)
    records, rejected = read(put(name, packed[: len(packed) // 2]))
    assert rejected == {"truncated": 1}
    assert (len(records) == 0) if name == "a.txt.gz" else (100 < len(records) < 4000)
    _, rejected = read(put(f"noise-{name}", packed[:30] + b"\xff" * 300))
    assert rejected.get("truncated") == 1


def test_a_parquet_dictionary_cannot_stand_for_much_memory(put):
    value = "x" * (2 << 20)
    out = io.BytesIO()
    schema = pa.schema({"text": pa.dictionary(pa.int32(), pa.string())})
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 160, pa.int32()), pa.array([value]))
    with pq.ParquetWriter(out, schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(pa.Table.from_arrays([column], schema=schema))
    path = put("bomb.parquet", out.getvalue())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (source,) = open_sources([path])
    count = sum(1 for _ in source.records(Counter()))
    assert count == 160 and len(out.getvalue()) < 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB; unpacked it is 320 MiB


def test_a_parquet_page_over_the_cap_is_not_unpacked(put, read):
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 5, pa.int32()), pa.array(["x" * (33 << 20)]))
    out = io.BytesIO()
    pq.write_table(pa.table({"text": column}), out, compression="zstd", store_schema=False)
    assert read(put("a.parquet", out.getvalue())) == ([], {"too-large": 5})


def test_the_text_of_a_pdf(put, read, tmp_path):
    (record,), rejected = read(put("a.pdf", pdf("Hello from a page.", "The second page.")))
    assert record.body == b"Hello from a page.\n\nThe second page." and record.is_text and rejected == {}
    assert read_again(tmp_path / "a.pdf", record.warc_path, 0, record.length) == record


@pytest.mark.parametrize("content", [b"", b"no PDF", pdf("x")[:200], b"%PDF-1.4\n" + b"<<" * 5000])
def test_a_broken_pdf_is_counted(content, put, read):
    assert read(put("a.pdf", content)) == ([], {"malformed": 1})


def test_a_pdf_that_draws_for_ever_is_counted(put, read, monkeypatch):
    monkeypatch.setattr(sources_pdf, "_MAX_OPERATORS", 1000)
    assert read(put("a.pdf", pdf("x", operators=2000))) == ([], {"too-large": 1})
    monkeypatch.setattr(sources_pdf, "_MAX_PAGES", 2)
    assert read(put("b.pdf", pdf("x", "y", "z"))) == ([], {"too-large": 1})
    monkeypatch.setattr(sources_pdf, "_MAX_CPU_SECONDS", 0.0)
    assert read(put("c.pdf", pdf("x"))) == ([], {"timeout": 1})


def test_an_encrypted_pdf_is_counted(put, read):
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("secret")))
    writer.encrypt("password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    assert read(put("a.pdf", out.getvalue())) == ([], {"encrypted": 1})


def test_texts_of_a_wet_file(put, read, tmp_path):
    path = put("a.warc.wet.gz", wet([("https://a.example/", "one"), ("https://b.example/", "zwei ü")]))
    records, rejected = read(path)
    assert [(r.url, r.body.decode(), r.is_text) for r in records] == [
        ("https://a.example/", "one", True),
        ("https://b.example/", "zwei ü", True),
    ]
    assert rejected == {} and records[0].warc_path.startswith("file:a.warc.wet.gz?sha256=")
    for record in records:
        assert read_again(tmp_path / "a.warc.wet.gz", record.warc_path, record.offset, record.length) == record
    assert read(put("b.wet.gz", wet([("https://a.example/", "{}")], "application/json"))) == ([], {"not-text": 1})


def test_a_warc_file_has_the_name_that_a_local_crawl_gives_it(shard_warc, put, read, tmp_path):
    path = put("site.warc.gz", shard_warc)
    records, _ = read(path)
    (crawled,) = local_crawl([tmp_path / "site.warc.gz"], tmp_path / "crawl").sources
    assert records and {r.warc_path for r in records} == {crawled}
    record = records[-1]
    assert read_again(tmp_path / "site.warc.gz", record.warc_path, record.offset, record.length) == record
    with pytest.raises(BadInput):
        read_again(
            tmp_path / "site.warc.gz", f"crawl-data/LOCAL-files/warc/{'0' * 24}.warc.gz", record.offset, record.length
        )


def test_a_folder_is_every_file_below_it_in_sorted_order(put, read, tmp_path):
    put("up/b.txt", b"second")
    put("up/a/z.md", b"first")
    put("up/c.jsonl", jsonl([{"text": "third"}]))
    put("up/.hidden/x.txt", b"hidden")
    put("up/photo.jpg", b"\xff\xd8")
    put("up/fake.warc.gz", b"no WARC")
    (tmp_path / "up/link.txt").symlink_to("/etc/hostname")
    records, rejected = read(str(tmp_path / "up"))
    assert [r.body for r in records] == [b"first", b"second", b"third"]
    assert records[0].warc_path.startswith("file:up/a/z.md?sha256=")
    assert rejected == {UNKNOWN_KIND: 1, NOT_A_FILE: 1, "not-a-warc": 1}


def test_the_same_content_named_twice_counts_once(put):
    path = put("a.txt", b"x")
    assert len(open_sources([path, path])) == 1


def test_sources_travel_to_other_processes(put):
    sources = open_sources([put("a.txt", b"x"), put("b.jsonl", jsonl(ROWS))])
    assert pickle.loads(pickle.dumps(sources)) == sources


def test_what_cannot_be_opened_is_said(put, tmp_path):
    with pytest.raises(NotFound):
        open_sources([str(tmp_path / "nothing.txt")])
    with pytest.raises(BadInput, match="no kind"):
        open_sources([put("a.docx", b"x")])
    with pytest.raises(BadInput, match="WARC"):
        open_sources([put("a.warc.gz", b"x")])
    with pytest.raises(BadInput, match="holds no files"):
        (tmp_path / "empty").mkdir()
        open_sources([str(tmp_path / "empty")])
    for address in ("https://host/", "https://host/a.warc.gz?x=1", "https://host/a.txt", "hf://models/a/b"):
        with pytest.raises(BadInput):
            open_sources([address])
    with pytest.raises(BadInput):
        form_of("a.parquet.gz")


def test_a_file_that_vanishes_is_unavailable(put, tmp_path):
    (source,) = open_sources([put("a.txt", b"x")])
    (tmp_path / "a.txt").unlink()
    with pytest.raises(Unavailable):
        list(source.records(Counter()))


def test_a_warc_file_behind_an_address(shard_warc):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(shard_warc)))
            self.end_headers()
            self.wfile.write(shard_warc)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/files/a.warc.gz"
        (source,) = open_sources([address])
        records = list(source.records(Counter()))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert records and {r.warc_path for r in records} == {address}


def test_a_recipe_takes_texts_as_they_are(put, read):
    text = "The harbour was quiet because every engine had been repaired before winter. " * 20
    (record,), _ = read(put("a.txt", text.encode()))
    document = load_recipe("unfiltered-1").process(record)
    assert isinstance(document, Document)
    assert document.row["text"] == text and document.row["warc_path"] == record.warc_path
