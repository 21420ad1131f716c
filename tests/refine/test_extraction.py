"""The extraction step: equal to the stock block, sparing pages that nobody wants, unmoved by hostile markup."""

import contextlib
import re
import time

import pytest
import trafilatura
from datatrove.pipeline.extractors import Trafilatura
from lxml.etree import XPath
from lxml.html import document_fromstring

from athena.errors import BadInput
from athena.refine.recipe import Page, Recipe, Rejected, load_recipe
from athena.refine.records import Record, decoded, read_records
from athena.refine.steps.extraction import EXTRACTION_FAULTS, Extraction, LanguageGuess, VisibleText, storable
from athena.refine.text.element_paths import RememberedPath
from athena.refine.text.html import is_overloaded
from athena.refine.text.main_text import main_text

SAMPLE = ("warc/resiliparse-warcfile.warc.gz", "warc/dolma-sample-0001.warc.gz", "extraction/scrapinghub/pages.warc.gz")


def page(html: str) -> Page:
    return Page(Record("x", 0, 1, "<urn:uuid:1>", "http://a.example/", "2026-01-01T00:00:00Z", "", None, b""), html)


def real_records(test_data, names, step=1):
    for name in names:
        with (test_data / name).open("rb") as file:
            yield from (record for number, record in enumerate(read_records(file, name)) if number % step == 0)


def every_file(test_data):
    return sorted(str(path.relative_to(test_data)) for path in test_data.glob("**/*.warc.gz"))


def outcome(extract, html):
    try:
        return extract(html)
    except EXTRACTION_FAULTS as fault:
        return type(fault)


def decoded_pages(records):
    for record in records:
        with contextlib.suppress(BadInput):
            yield Page(record, decoded(record))


STOCK = Trafilatura(favour_precision=False, deduplicate=False)


def test_text_is_the_stock_blocks(test_data):
    pages = list(decoded_pages(real_records(test_data, SAMPLE, step=16)))
    assert pages
    for page in pages:
        assert outcome(main_text, page.html) == outcome(STOCK.extract, page.html), page.record.url


def split_guess(recipe):
    """The step that guesses, and the recipe without it."""
    guess = next(step for step in recipe.steps if isinstance(step, LanguageGuess))
    return guess, Recipe(recipe.name, recipe.version, [step for step in recipe.steps if step is not guess])


def test_guess_drops_no_page_that_the_recipe_keeps(test_data):
    names = ("warc/resiliparse-warcfile.warc.gz", "extraction/trafilatura/pages.warc.gz")
    guess, without = split_guess(load_recipe("fineweb-1"))
    pages = decoded_pages(real_records(test_data, names, step=20))
    dropped = [page for page in pages if isinstance(guess.apply(page), Rejected)]
    assert dropped
    assert [page.record.url for page in dropped if not isinstance(without.process(page.record), Rejected)] == []


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_every_real_page_is_decided_as_by_the_stock_blocks(test_data, as_stock_blocks_decide):
    """The same text, the same filters that drop it, and no page that the guess alone drops."""
    guess, without = split_guess(load_recipe("fineweb-1"))
    for page in decoded_pages(real_records(test_data, every_file(test_data))):
        if page.is_overloaded:
            continue
        text = outcome(main_text, page.html)
        assert text == outcome(STOCK.extract, page.html), page.record.url
        if isinstance(text, str) and text.strip():
            as_stock_blocks_decide(storable(text))
        if isinstance(guess.apply(page), Rejected):
            assert isinstance(without.process(page.record), Rejected), page.record.url


@pytest.mark.parametrize(
    ("path", "answers"),
    [
        (".//*[self::div or self::p][re:test(@id|@class, 'cookie') or re:test(@class, '^ad-')]", "all"),
        (".//*[contains(translate(@role, 'N', 'n'), 'nav') or @aria-hidden='true' or @data-x]", "all"),
        (".//aside|.//div[contains(@class|@id, 'footer')]|.//*[re:test(@id, 'consent', 'i')]", "all"),
        ("(.//*[self::div or self::main][starts-with(@class, 'main')])[1]|(.//main)[1]", "first"),
        (".//*[self::div][re:test(@class, 'endless')][not(.//h1)]", "if-any"),
    ],
)
def test_a_remembered_path_matches_as_the_xpath(path, answers):
    words = ("cookie", "ad-x", "an ad-x", "Nav", "nav", "footer", "CONSENT", "main x", "endless", "true", "plain", "")
    names = ("class", "id", "role", "aria-hidden", "data-x")
    tags = ("div", "p", "main", "aside", "span")
    markup = [
        f'<{tags[i % 5]} {names[i % 5]}="{words[i % 12]}" {names[i // 7 % 5]}="{words[i // 3 % 12]}">'
        f"{'<h1>t</h1>' * (i % 2)}</{tags[i % 5]}>"
        for i in range(840)
    ]
    tree = document_fromstring("<html><body>" + "".join(markup) + '<ahref="http: class="cookie">x</body></html>')
    xpath = XPath(path, namespaces={"re": "http://exslt.org/regular-expressions"})
    remembered = RememberedPath(xpath, answers)
    for _ in range(2):
        expected = xpath(tree)[:1] if answers == "first" else xpath(tree)
        assert expected
        assert remembered(tree) == expected


def test_trafilatura_itself_is_untouched():
    main_text("<html><body><p>Load it.")
    assert all(isinstance(path, XPath) for path in trafilatura.xpaths.BODY_XPATH)
    assert trafilatura.core.compare_extraction is trafilatura.external.compare_extraction


def test_half_a_surrogate_pair_can_be_stored():
    found = VisibleText().apply(page("<html><body><p>a&#xD800;b &#55357; end"))
    assert found.text.encode()


def test_a_text_has_its_paragraphs_and_no_menu(prose, html_page):
    paragraphs = prose(3)
    text = Extraction().apply(page(html_page(paragraphs).decode())).text
    assert [line for line in text.splitlines() if line in paragraphs] == paragraphs
    assert not re.search("Section 1|All rights", text)


HOSTILE = {
    "empty": "",
    "one bracket": "<",
    "zeros": "\x00" * 50,
    "html only": "<html>",
    "100,000 nested divs": "<html><body>" + "<div>" * 100_000 + "x",
    "20,000 nested divs": "<html><body>" + "<div>" * 20_000 + "x",
    "5,000 bold words in a paragraph": "<html><body><article><p>" + "<b>bold</b> word " * 5_000,
    "10,000 nested tables": "<table><tr><td>" * 10_000,
    "10,000 nested lists": "<html><body>" + "<ul><li>a" * 10_000,
    "one line of 4 MB": "<html><body><p>" + "It goes on and on without an end. " * 120_000,
    "one word of 2 MB": "<p>" + "x" * 2_000_000,
    "a million attributes": "<html><body><p " + " ".join(f'a{i}="1"' for i in range(1_000_000)) + ">text",
    "a million bare attributes": "<html><body><p " + " ".join(f"a{i}" for i in range(1_000_000)) + ">text",
    "a million paragraphs": "<html><body>" + "<p>a" * 1_000_000,
    "comment without end": "<!--" * 100_000,
    "control characters": "<html><body><p class='&#1;&#11;' id='&#x1f;'>A text&#2; of some length.</p>" * 50,
    "impossible tag": '<html><body><ahref="http:" class="x">A text of some length.</p>' * 50,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_markup_is_rejected_or_read_and_soon(kind):
    start = time.process_time()
    for step in (LanguageGuess(), VisibleText(), Extraction()):
        assert isinstance(step.apply(page(HOSTILE[kind])), Page | Rejected)
    assert time.process_time() - start < 20


def test_markup_is_overloaded_by_tags_and_by_attributes_not_by_text():
    assert is_overloaded("<br>" * 50_000)
    assert is_overloaded("<p " + "a b " * 5_000 + ">")
    assert not is_overloaded("<p>" + "a b " * 50_000)
    assert not is_overloaded('<p data-x="' + "a b " * 50_000 + '">')
    assert not is_overloaded("<script>for (let i = 0; i <n; i++) {" + " a = b;" * 20_000 + "</script>")
