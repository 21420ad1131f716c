import pytest

from athena.localnet.foreign import foreign_sentences
from athena.localnet.prose import installed_prose, paragraphs_of

SENTENCE = "This is a sentence that goes on for quite a while so that it has enough words to be kept as one."


@pytest.mark.parametrize(
    ("text", "paragraph"),
    [
        (SENTENCE, SENTENCE),
        (SENTENCE.replace(" that ", "\nthat "), SENTENCE),
        (SENTENCE.replace("sentence", "``sentence``"), SENTENCE),
        (SENTENCE.replace("sentence", ":class:`~pkg.sentence`"), SENTENCE.replace("sentence", "pkg.sentence")),
        (SENTENCE.replace("sentence", "[sentence](http://a.example)"), SENTENCE),
        (SENTENCE.replace("sentence", "**sentence**"), SENTENCE),
        (SENTENCE.replace("one.", "one [1]_."), SENTENCE),
    ],
)
def test_keeps_running_text_and_strips_its_markup(text, paragraph):
    assert list(paragraphs_of(f"Title\n=====\n\n{text}\n\n- a list\n- of things")) == [paragraph]


@pytest.mark.parametrize(
    "text",
    [
        "Too short to keep.",
        SENTENCE[:-1],  # no end
        SENTENCE.lower(),  # no beginning
        f">>> {SENTENCE}",
        f".. note:: {SENTENCE}",
        f"- {SENTENCE}",
        f"```\n{SENTENCE}\n\n{SENTENCE}\n```",
        f"x : array_like\n    {SENTENCE}",
        SENTENCE.replace("sentence", "call(x)"),
        SENTENCE.replace("sentence", "{braces}"),
        SENTENCE.replace("sentence", "http://a.example"),
        SENTENCE.replace("sentence", "JavaScript"),
        SENTENCE.replace("words", "1234567890 1234567890"),
        SENTENCE.replace("as one.", "e.g."),
    ],
)
def test_drops_what_is_not_prose(text):
    assert list(paragraphs_of(text)) == []


def test_reads_installed_packages_without_importing_them():
    sections = installed_prose(("sortedcontainers", "no-such-package"))
    assert {section.package for section in sections} == {"sortedcontainers"}
    assert sum(section.words for section in sections) > 500
    paragraphs = [paragraph for section in sections for paragraph in section.paragraphs]
    openings = [" ".join(paragraph.lower().split()[:8]) for paragraph in paragraphs]
    assert len(set(openings)) == len(openings)


def test_finds_sentences_in_many_languages():
    found = foreign_sentences()
    assert {"de", "fr", "ru"} <= set(found) and "en" not in found
    assert any("Apple" in sentence for sentence in found["fr"])
