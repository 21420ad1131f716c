import re
from collections import Counter
from urllib.parse import urlsplit

import pytest

from athena.errors import Misconfigured
from athena.localnet.pages import KINDS, OVERSIZED_BYTES, make_pages


@pytest.fixture(scope="module")
def pages(tiny_prose):
    return make_pages(1, 50, tiny_prose)


def of_kind(pages, kind):
    return [page for page in pages if page.kind == kind]


def test_makes_every_kind_of_page_and_mostly_articles(pages):
    counts = Counter(page.kind for page in pages)
    assert len(pages) == 50 and set(counts) == set(KINDS)
    assert counts["oversized"] == 1 and counts.most_common(1)[0][0] == "article"


def test_urls_are_distinct_and_of_hosts_that_cannot_exist(pages):
    assert len({page.url for page in pages}) == len(pages)
    hosts = {urlsplit(page.url).hostname for page in pages}
    assert len(hosts) > 8 and all(host.endswith(".example") for host in hosts)


def test_the_same_seed_gives_the_same_pages_and_another_seed_others(pages, tiny_prose):
    assert make_pages(1, 50, tiny_prose) == pages
    assert make_pages(2, 50, tiny_prose) != pages


def test_articles_carry_prose_within_the_clutter_of_a_site(pages):
    for page in of_kind(pages, "article"):
        text = page.body.decode()
        assert len(re.findall(r"<p>The \w+ by the", text)) >= 4
        assert "<nav" in text or "navigation" in text
        assert "cookie" in text and "<script>" in text and "<footer" in text


def test_a_near_duplicate_repeats_most_of_an_article(pages):
    (copy, *_) = of_kind(pages, "near-duplicate")
    days = {*re.findall(rb"(\d+) days old", copy.body)}
    shared = [
        len(days & {*re.findall(rb"(\d+) days old", page.body)}) / len(days) for page in of_kind(pages, "article")
    ]
    assert max(shared) == 1.0


def test_personal_data_are_there_to_be_found(pages):
    (page,) = of_kind(pages, "personal-data")
    assert re.search(rb"\w+@[\w.]+\.example", page.body) and re.search(rb"\b\d+\.\d+\.\d+\.\d+\b", page.body)


def test_broken_encodings_do_not_say_what_they_are(tiny_prose):
    ways = set()
    made = [page for seed in range(4) for page in make_pages(seed, 100, tiny_prose)]
    for page in of_kind(made, "encoding"):
        try:
            text = page.body.decode("utf-8")
        except UnicodeDecodeError:
            ways.add("western as utf-8" if "charset" in page.content_type else "western, undeclared")
        else:
            assert "Â«" in text
            ways.add("twice")
    assert ways == {"western as utf-8", "western, undeclared", "twice"}


def test_the_oversized_page_is_over_the_cap_of_readers(pages):
    (page,) = of_kind(pages, "oversized")
    assert len(page.body) > 8 * 2**20 and OVERSIZED_BYTES > 8 * 2**20


def test_other_content_is_not_html(pages):
    (page,) = of_kind(pages, "non-html")
    assert not page.content_type.startswith("text/html") and b"<html" not in page.body


def test_too_many_pages_for_the_prose_is_said(tiny_prose):
    with pytest.raises(Misconfigured, match="hold prose for"):
        make_pages(0, 500, tiny_prose)
