from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from athena.refine.recipe import Page, Rejected
from athena.refine.records import Record
from athena.refine.steps.filters import C4Quality, FineWebQuality, GopherQuality, GopherRepetition

_NOUNS = (
    "river village teacher harbour garden engine letter winter market bridge doctor island theatre farmer painting "
    "railway library orchard captain festival window mountain journal lantern cathedral merchant forest kitchen"
)
_ADJECTIVES = (
    "quiet ancient famous narrow wooden distant careful northern empty bright modern stubborn gentle broken golden "
    "hidden patient crowded silver ordinary"
)
_VERBS = (
    "crossed described repaired remembered visited followed painted measured protected abandoned admired copied "
    "explained entered finished ignored joined lifted"
)
_LINKS = ("because", "while", "although", "before", "after", "so that", "where", "as", "until", "and")


def prose(seed: int, sentences: int = 40) -> list[str]:
    """Paragraphs of grammatical English that no quality filter minds."""
    draw = random.Random(seed)

    def clause() -> str:
        subject, thing = draw.sample(_NOUNS.split(), 2)
        return (
            f"{draw.choice(('the', 'a', 'every', 'that', 'our'))} {draw.choice(_ADJECTIVES.split())} {subject} "
            f"{draw.choice(_VERBS.split())} {draw.choice(('the', 'this', 'her', 'some', 'their'))} {thing} "
            f"{draw.choice(('of', 'with', 'near', 'behind', 'from'))} {draw.choice(_NOUNS.split())}"
        )

    lines = [f"{clause().capitalize()} {draw.choice(_LINKS)} {clause()}." for _ in range(sentences)]
    return [" ".join(lines[i : i + 4]) for i in range(0, sentences, 4)]


def html_page(paragraphs: list[str], title: str = "A page") -> bytes:
    body = "".join(f"<p>{p}</p>" for p in paragraphs)
    menu = "".join(f'<li><a href="/{i}">Section {i}</a></li>' for i in range(12))
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title><script>var x = 1;</script>"
        f"</head><body><nav><ul>{menu}</ul></nav><main><article><h1>{title}</h1>{body}</article></main>"
        f"<footer><p>All rights reserved. Terms of use apply.</p></footer></body></html>"
    ).encode()


def warc(
    pages: list[tuple[str, bytes]],
    *,
    compressed: bool = True,
    content_type: str | None = "text/html; charset=utf-8",
    headers: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """A WARC file with a fixed id and date per record, so that the same pages give the same bytes."""
    out = []
    for index, (url, body) in enumerate(pages):
        fields = ([("Content-Type", content_type)] if content_type else []) + list(headers)
        http = "".join(["HTTP/1.1 200 OK\r\n", *(f"{k}: {v}\r\n" for k, v in fields), "\r\n"]).encode() + body
        head = (
            "WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n"
            f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{index:012}>\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
            f"WARC-Target-URI: {url}\r\nContent-Length: {len(http)}\r\n\r\n"
        )
        record = head.encode() + http + b"\r\n\r\n"
        out.append(gzip.compress(record, mtime=0) if compressed else record)
    return b"".join(out)


def english_site(site: int, pages: int) -> list[tuple[str, bytes]]:
    return [
        (f"http://site{site}.example/page/{i}", html_page(prose(1000 * site + i), f"Page {i}")) for i in range(pages)
    ]


@pytest.fixture(name="prose")
def prose_fixture() -> Callable[..., list[str]]:
    return prose


@pytest.fixture(name="html_page")
def html_page_fixture() -> Callable[..., bytes]:
    return html_page


@pytest.fixture(name="warc")
def warc_fixture() -> Callable[..., bytes]:
    return warc


@pytest.fixture(name="english_site")
def english_site_fixture() -> Callable[..., list[tuple[str, bytes]]]:
    return english_site


@pytest.fixture
def site_crawl(tmp_path: Path) -> Path:
    """A folder of three small WARC files with a near-duplicate pair across them, an e-mail, junk, a short page."""
    root = tmp_path / "crawl"
    root.mkdir()
    first = english_site(1, 5)
    twin = html_page([*prose(1000)[:-1], "One new line at the end of this page."], "Page 0")
    mail = html_page([*prose(77), "Write to jane.doe@mail.example.org or visit the host at 93.184.216.34 today."])
    german = html_page(["Der alte Fischer ging jeden Morgen an den Hafen, weil er die Ruhe des Meeres liebte."] * 12)
    second = [("http://site2.example/twin", twin), ("http://site2.example/mail", mail), *english_site(2, 3)]
    third = [
        ("http://site3.example/de", german),
        ("http://site3.example/thin", html_page(["Nothing here."])),
        ("http://site3.example/short", html_page(prose(9, 5))),
    ]
    for name, pages in (("a.warc.gz", first), ("b.warc.gz", second), ("c.warc.gz", third)):
        (root / name).write_bytes(warc(pages))
    return root


@pytest.fixture
def whole_file_gzip() -> bytes:
    return gzip.compress(warc(english_site(1, 3), compressed=False))


@pytest.fixture(scope="session")
def as_stock_blocks_decide() -> Callable[[str], None]:
    """A check that the quality filters keep, reject and rewrite a text as datatrove's unmodified blocks do."""
    pairs = (
        (GopherRepetition(), GopherRepetitionFilter()),
        (GopherQuality(), GopherQualityFilter()),
        (C4Quality(), C4QualityFilter(filter_no_terminal_punct=False)),
        (FineWebQuality(), FineWebQualityFilter()),
    )
    record = Record("x", 0, 1, "<urn:uuid:1>", "http://a.example/", "2026-01-01T00:00:00Z", "sha1:", None, b"")

    def check(text: str) -> None:
        for step, block in pairs:
            document = Document(text=text, id="1")
            expected, found = block.filter(document), step.apply(Page(record, "", text))
            if expected is True:
                assert isinstance(found, Page), (step.name, found)
                assert found.text == document.text
            else:
                assert found == Rejected(f"{step.name}.{expected[1]}")

    return check
