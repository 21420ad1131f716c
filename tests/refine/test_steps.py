"""Each shortcut decides as the unmodified datatrove block does."""

import re
import tarfile

import pytest
from datatrove.data import Document as Block
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter
from datatrove.utils.word_tokenizers import SpaCyTokenizer

from athena.refine.recipe import Page, Rejected
from athena.refine.records import Record, read_records
from athena.refine.steps.anonymise import EMAIL_PLACEHOLDER, IP_PLACEHOLDER, ReplacePii
from athena.refine.steps.extraction import Extraction, LanguageGuess
from athena.refine.steps.filters import C4Quality, FineWebQuality, GopherQuality, GopherRepetition, Language, UrlFilter
from athena.refine.text import url_lists
from athena.refine.text.words import Words


def page(text="", *, html="", url="http://a.example/"):
    record = Record("x", 0, 1, "<urn:uuid:1>", url, "2026-01-01T00:00:00Z", "sha1:" + "A" * 32, None, b"")
    return Page(record, html, text)


@pytest.fixture(scope="module")
def real_texts(test_data):
    """Extracted main text of real pages in several languages; strings of more than 256 characters cut."""
    texts = []
    for name in ("warc/ukwa-govuk1.warc.gz", "warc/dolma-sample-0000.warc.gz", "warc/resiliparse-warcfile.warc.gz"):
        with (test_data / name).open("rb") as file:
            for record in read_records(file, name):
                result = Extraction().apply(page(html=record.body.decode("utf-8", "replace")))
                if isinstance(result, Page):
                    texts.append(re.sub(r"(\S{256})\S+", r"\1", result.text))
    return texts


def test_words_are_spacys(real_texts, prose):
    stock, ours = SpaCyTokenizer("en"), Words("en")
    tricky = (
        "He can't, won't; I'm gonna go (U.S.A.) at 5p.m. cannot e.g. x-y/z http://a.b/c?d=1 don’t «ok»\t10km ...   $5"
    )
    for text in [*real_texts, "\n".join(prose(1)), tricky, "", " \n "]:
        assert ours.word_tokenize(text) == stock.word_tokenize(text)


def test_words_of_hostile_strings_end_soon():
    for chunk in ("(" * 100_000, "'s" * 50_000, "x-IS_ALPHA", "IS_ALPHA"):
        assert Words("en").word_tokenize(chunk)


def test_quality_filters_decide_and_rewrite_as_the_stock_blocks(real_texts, prose):
    pairs = [
        (C4Quality(), C4QualityFilter(filter_no_terminal_punct=False)),
        (C4Quality(filter_no_terminal_punct=True), C4QualityFilter()),
        (GopherQuality(), GopherQualityFilter()),
        (FineWebQuality(), FineWebQualityFilter()),
    ]
    lorem = "\n".join([*prose(2), "Lorem ipsum dolor sit amet, it goes on."])
    for text in [*real_texts, "\n".join(prose(3)), lorem, "a { b } c d e.", "One [1] two [edit] three four.\n" * 6]:
        for step, block in pairs:
            document = Block(text=text, id="1")
            expected = block.filter(document)
            found = step.apply(page(text))
            if expected is True:
                assert isinstance(found, Page)
                assert found.text == document.text
            else:
                assert found == Rejected(f"{step.name}.{expected[1]}")


def test_urls_are_judged_by_the_lists_themselves():
    wanted = {b"0-1avsex.com": "domain", b"example.com": None, b"python.org": None}
    with tarfile.open(url_lists.assets() / "url_filterblacklistsv0_3_0.tar.gz") as archive:
        lines = archive.extractfile("domains").read().split(b"\n")
    listed = set(lines[::150_000]) - {b""}
    for domain in [*listed, *wanted]:
        assert url_lists.contains(url_lists.load("domains"), domain.decode()) == (domain in listed or domain in lines)
    step = UrlFilter()
    assert step.apply(page(url="https://www.0-1avsex.com/x")) == Rejected("url.domain")
    assert step.apply(page(url="https://docs.python.org/3/library/")) == page(url="https://docs.python.org/3/library/")
    hard = sorted(url_lists.words("banned_words"))[0]
    assert step.apply(page(url=f"https://a.example/{hard}/x")) == Rejected("url.hard_blacklisted")
    soft = sorted(url_lists.words("soft_banned_words"))[:2]
    assert step.apply(page(url=f"https://a.example/{soft[0]}/{soft[1]}")) == Rejected("url.soft_blacklisted")
    part = sorted(url_lists.words("banned_subwords"))[0]
    assert step.apply(page(url=f"https://a.example/zz{part}zz")) == Rejected("url.blacklisted_subword")


def test_language_keeps_english_and_labels_when_asked(prose):
    english = "\n".join(prose(4))
    german = "Der alte Fischer ging jeden Morgen an den Hafen, weil er die Ruhe des Meeres liebte."
    kept = Language().apply(page(english))
    assert (kept.language, kept.language_score) == ("en", round(kept.language_score, 4))
    assert kept.language_score > 0.9
    assert Language().apply(page(german)) == Rejected("language")
    assert Language(languages=()).apply(page(german)).language == "de"
    assert LanguageGuess().apply(page(html=f"<html><body><p>{german * 5}")) == Rejected("language-guess")
    assert isinstance(LanguageGuess().apply(page(html=f"<html><body><p>{english}")), Page)


def test_repetition_is_dropped():
    assert GopherRepetition().apply(page("The same line again.\n" * 30)).reason.startswith("gopher-repetition.")


def test_one_placeholder_for_each_kind_of_pii():
    text = "Write to a.b@mail.example.net or c@d.co; hosts 93.184.216.34 and 8.8.8.8, but 192.168.0.1 and 1.2.3 stay."
    expected = (
        f"Write to {EMAIL_PLACEHOLDER} or {EMAIL_PLACEHOLDER}; hosts {IP_PLACEHOLDER} and {IP_PLACEHOLDER}, "
        "but 192.168.0.1 and 1.2.3 stay."
    )
    step = ReplacePii()
    assert [step.apply(page(text)).text for _ in range(3)] == [expected] * 3
