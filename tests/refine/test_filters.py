"""The quality filters, words and signatures decide, rewrite and count as datatrove's unmodified blocks do."""

import gzip
import json
import random

import numpy as np
import pytest
from datatrove.data import Document as Block
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.filters import C4QualityFilter, GopherRepetitionFilter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import split_into_sentences
from datatrove.utils.word_tokenizers import SpaCyTokenizer

from athena.errors import Misconfigured
from athena.refine.recipe import Page, Rejected
from athena.refine.records import Record
from athena.refine.steps.filters import C4Quality, FineWebQuality, GopherQuality, GopherRepetition
from athena.refine.text import minhash
from athena.refine.text.repetition import NGrams
from athena.refine.text.words import Words, words_of

REFINED = ("text/fineweb-recipe-kept.jsonl.gz", "quality/fineweb-recipe-removed.jsonl.gz")


def page(text):
    record = Record("x", 0, 1, "<urn:uuid:1>", "http://a.example/", "2026-01-01T00:00:00Z", "sha1:", None, b"")
    return Page(record, "", text)


def real_texts(test_data, every):
    for name in REFINED:
        with gzip.open(test_data / name, "rt", encoding="utf-8") as file:
            for line in list(file)[::every]:
                yield json.loads(line)["text"]
    with gzip.open(test_data / "extraction" / "wcxb-dev" / "labels.json.gz", "rt", encoding="utf-8") as file:
        for label in list(json.load(file).values())[::every]:
            yield label["main_content"] or "None."


def test_on_a_sample_of_real_texts(test_data, as_stock_blocks_decide):
    for text in real_texts(test_data, every=320):
        as_stock_blocks_decide(text)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_on_more_real_texts(test_data, as_stock_blocks_decide):
    """Texts of all pages are compared where they are extracted, in test_extraction.py."""
    for text in real_texts(test_data, every=24):
        as_stock_blocks_decide(text)


SENTENCE = "The quick brown fox jumps over the lazy dog near that river with the others."


@pytest.mark.parametrize(
    "text",
    [
        "one two three",
        "word",
        "a b\n\nc d",
        "#" * 30 + " tag" * 60,
        "wait ... " * 80,
        "\n".join(f"- item {i} of the list that we have to read" for i in range(40)),
        "\n".join(f"This line number {i} of the text trails off with..." for i in range(40)),
        "12 34 5.6 7/8 the of " * 40,
        "zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich " * 12,
        " ".join(f"{SENTENCE} {i}" for i in range(9)) + "\n" + "x" * 1001 + " is too long.",
        "\n".join([SENTENCE] * 3 + ["Lorem Ipsum dolor sit amet."] + [SENTENCE + " More."] * 4),
        "\n".join([SENTENCE, "var x = { 1 };", "Enable JavaScript to go on.", "We use cookies here, friend."] * 3),
        "One [1] two [edit] three four. java[1]script is a word. [1] [2] [3]\n" * 3 + "[1] [2] [3]",
        "One  two three.  Four\u00a0five six!\u2028Seven eight nine?\x1cTen eleven twelve… Thirteen.",
        'He said "Stop." "Why?" she asked. (So it goes.) Then... nothing!! ?! Really.',
        "Line of text one.\nLine of text one.\nLine of text two\n" * 4 + "And an end with the others to have.",
        "\n".join("short line" for _ in range(50)),
        "ab c d ef g h " * 3 + "a bc d ef g h abcd efgh",
        "ﬁ ǅ １２３ ٣ कि. 。日本語 ，。 ½ ²" * 9,
        "\u0000 \u200b \ufeff word\u200b s. " * 30,
    ],
)
def test_on_texts_at_the_edges_of_rules(text, as_stock_blocks_decide):
    as_stock_blocks_decide(text)


def test_on_random_repetitive_texts():
    draw = random.Random(3)
    for _ in range(300):
        vocabulary = ["a", "b", "ab", "ba", "abc", "the", "of", ".", "and", "to"][: draw.randint(1, 10)]
        words = draw.choices(vocabulary, k=draw.randint(1, 120))
        text = "".join(word + draw.choice("    \n") for word in words)
        for n in range(2, 11):
            limit = draw.uniform(0, 0.5)
            step = GopherRepetition(1, 1, 1, 1, ((n, limit),), ((n, limit),))
            block = GopherRepetitionFilter(1, 1, 1, 1, ((n, limit),), ((n, limit),))
            expected = block.filter(Block(text=text, id="1"))
            found = step.apply(page(text))
            assert isinstance(found, Page) if expected is True else found.reason.endswith(expected[1])


def test_lines_without_a_terminal_mark_go_if_asked(test_data):
    step, block = C4Quality(filter_no_terminal_punct=True), C4QualityFilter()
    for text in ("No mark\nA line that ends so.\n" * 5, *real_texts(test_data, every=320)):
        document = Block(text=text, id="1")
        expected, found = block.filter(document), step.apply(page(text))
        if expected is True:
            assert isinstance(found, Page)
            assert found.text == document.text
        else:
            assert found == Rejected(f"c4-quality.{expected[1]}")


def test_equal_n_grams_may_be_cut_differently():
    """datatrove compares an n-gram's characters, so "a bc" repeats "ab c"."""
    grams = NGrams(["a", "bc", "d", "e", "f", "x", "ab", "c", "d", "e", "f"])
    assert grams.duplicate_chars_exceed(5, 0.0, 100)
    assert not NGrams(["a", "bc", "d", "e", "f", "x", "ab", "c", "d", "e", "g"]).duplicate_chars_exceed(5, 0.0, 100)


def test_other_thresholds_and_marks():
    text = "\n".join(["Dies ist ein Satz |", "Und das ist noch einer |", "Kein Ende"] * 3)
    loose = {"char_duplicates_ratio": 1, "short_line_thr": 1}
    assert FineWebQuality(**loose).apply(page(text)) == Rejected("fineweb-quality.line_punct_ratio")
    for marks in (("|",), ("z |", "r |")):
        assert isinstance(FineWebQuality(**loose, stop_chars=marks).apply(page(text)), Page)
    german = GopherQuality(min_doc_words=5, stop_words=("ist", "das", "der"), language="de")
    assert isinstance(german.apply(page(text)), Page)
    assert GopherQuality(min_doc_words=5).apply(page(text)) == Rejected("gopher-quality.gopher_enough_stop_words")
    assert GopherQuality(min_doc_words=0).apply(page(" ")) == Rejected("gopher-quality.gopher_short_doc")


@pytest.mark.parametrize(
    "language", ["en", "de", *(pytest.param(code, marks=pytest.mark.full) for code in ("es", "fr", "it"))]
)
def test_words_of_a_language_are_spacys(test_data, language):
    """Every distinct string of a sample, and strings at the edges of the shortcut."""
    chunks = {chunk for text in real_texts(test_data, every=240) for chunk in text.split() if len(chunk) <= 256}
    stems = ("cannot", "the", "U.S.", "Ford", "km", "1990", "a", "A", "Mr", "No.", "vs", "I", "gonna", "z.B", "d'un")
    stems += ("l'eau", "qu'il", "Str", "usw", "sr", "10km", "x1")
    chunks |= {stem + mark for stem in stems for mark in ("", ",", ";", ":", "!", "?", ".", "..", "'s", "’s", "s'")}
    stock = SpaCyTokenizer(language)
    ordered = sorted(chunks)
    with stock.tokenizer.memory_zone():
        expected = [tuple(token.text for token in stock.tokenizer.tokenizer(chunk)) for chunk in ordered]
    found = Words(language).by_chunk(ordered)
    assert {c: f for c, f, e in zip(ordered, found, expected, strict=True) if f != e} == {}


def test_sentences_are_counted_as_the_sentencizer_does(test_data):
    lines = [line for text in real_texts(test_data, every=900) for line in text.splitlines()]
    lines += ["", " ", "One. Two", "One.  Two .  . x", "[1] a. b", 'A. " b', "A.) B", "end. ", "a.\tb", "!!! ??? a"]
    for line in lines:
        assert words_of("en").count_sentences(line) == len(split_into_sentences(line, "en")), line


def test_a_language_without_rules_for_words_is_refused():
    for language in ("ja", "zz"):
        with pytest.raises(Misconfigured, match=language):
            words_of(language).word_tokenize("text")


def test_signatures_of_real_texts(test_data):
    stock = MinhashDedupSignature("unused", MinhashConfig(hash_config=HashConfig(hash_fc="sha1", precision=64)))
    for text in real_texts(test_data, every=300):
        shingles = stock.get_shingles(text)
        found = minhash.signature(text)
        if found is None:
            assert not shingles.size
        else:
            assert np.array_equal(found, np.array(stock.get_signature(shingles), dtype=np.uint64).reshape(-1))


def test_values_at_the_edges_of_the_prime():
    prime = (1 << 61) - 1
    values = [0, 1, prime - 1, prime, prime + 1, 2 * prime, 8 * prime - 1, 8 * prime, (1 << 64) - 1]
    assert minhash._folded(np.array(values, dtype=np.uint64)).tolist() == [value % prime for value in values]
