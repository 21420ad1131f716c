"""What the anonymising steps replace, how well, how fast, and that judges know every placeholder."""

import gzip
import importlib.util
import json
import random
import sys
import time
from pathlib import Path

import pytest
from datatrove.pipeline.formatters import PIIFormatter

from athena.errors import Misconfigured
from athena.judge.gates.containment import containment, placeholder_share
from athena.judge.gates.privacy import private_kinds
from athena.refine.recipe import Page, Recipe
from athena.refine.records import Record
from athena.refine.steps.anonymise import ALL, EMAIL_PLACEHOLDER, IP_PLACEHOLDER, PLACEHOLDERS, Anonymise, ReplacePii

SCRIPTS = Path(__file__).parents[2] / "scripts"
RECORD = Record("a", 0, 1, "<urn:uuid:1>", "http://a.example/", "2026-01-01T00:00:00Z", "sha1:A", None, b"")
FLOORS = {  # precision, recall
    "key": (0.98, 0.85), "email": (0.98, 0.85), "iban": (0.99, 0.99), "card": (0.97, 0.99), "ip": (0.98, 0.98),
    "phone": (0.97, 0.95),
}  # fmt: skip
PER_KIND = 120


def replaced(step, text):
    return step.apply(Page(RECORD, "", text)).text


def anonymised(text, **fields):
    return replaced(Anonymise(**fields), text)


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("bench_anonymise", SCRIPTS / "bench_anonymise.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


@pytest.fixture(scope="module")
def scores(bench):
    return bench.scores(bench.labelled_texts())


@pytest.mark.parametrize("kind", ALL)
def test_precision_and_recall_keep_above_their_floors(scores, kind):
    precision, recall = FLOORS[kind]
    assert scores[kind].labels == PER_KIND
    assert scores[kind].precision >= precision
    assert scores[kind].recall >= recall


def test_the_guide_has_the_table_of_the_bench(bench, scores):
    guide = (SCRIPTS.parent / "docs" / "recipes.md").read_text("utf-8")
    assert bench.table(scores) in guide


def test_the_labelled_texts_are_the_same_every_time(bench):
    assert bench.labelled_texts() == bench.labelled_texts()
    assert bench.labelled_texts() != bench.labelled_texts(seed=1)


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.full)])
def test_pii_is_replaced_as_the_stock_block_does_with_single_replacements(test_data, every):
    stock = PIIFormatter(email_replacement=EMAIL_PLACEHOLDER, ip_replacement=IP_PLACEHOLDER)
    texts = []
    for name in ("text/fineweb-recipe-kept.jsonl.gz", "quality/fineweb-recipe-removed.jsonl.gz"):
        with gzip.open(test_data / name) as file:
            texts += [json.loads(line)["text"] for line in file]
    changed = 0
    for text in texts[::every]:
        expected = stock.format(text)
        assert replaced(ReplacePii(), text) == expected
        changed += expected != text
    assert changed > 10


def test_pii_of_any_text_is_replaced_as_the_stock_block_does():
    stock = PIIFormatter(email_replacement=EMAIL_PLACEHOLDER, ip_replacement=IP_PLACEHOLDER)
    pieces = [
        "a",
        "b.c",
        "@",
        "@",
        "@",
        ".",
        "..",
        "é",
        "-",
        "+",
        " ",
        "_",
        "1.2.3.4",
        "93.184.216.34",
        "x.com",
        "\n",
        "[",
    ]
    draw = random.Random(5)
    for _ in range(8_000):
        text = "".join(draw.choices(pieces, k=draw.randint(1, 18)))
        assert replaced(ReplacePii(), text) == stock.format(text), text


def test_each_kind_has_one_placeholder():
    text = (
        "Write to jörg@bücher.example or jane (at) mail (dot) example (dot) org, "
        "93.184.216.34 or 2a00:1450:4001:81b::200e, "
        "+49 30 901820, (212) 555-0123, tel 020 7946 0958, DE89 3704 0044 0532 0130 00, 5500 0000 0000 0004, "
        "ghp_0123456789abcdefghijABCDEFGHIJ012345."
    )
    key, email, iban, card, ip, phone = PLACEHOLDERS
    assert anonymised(text) == (
        f"Write to {email} or {email}, {ip} or {ip}, {phone}, {phone}, tel {phone}, {iban}, {card}, {key}."
    )
    assert anonymised(text, kinds=("iban",)) == text.replace("DE89 3704 0044 0532 0130 00", iban)


def test_anonymising_twice_is_anonymising_once(bench):
    for item in bench.labelled_texts()[:720:5]:
        once = anonymised(item.text)
        assert anonymised(once) == once


def test_regions_decide_how_numbers_without_country_code_are_read():
    text = "Telefon 030 901820, or 01 23 45 67 89."
    assert anonymised(text) == text
    assert anonymised(text, regions=("DE",)) == text.replace("030 901820", PLACEHOLDERS[-1])
    assert anonymised(text, regions=("FR",)) == text.replace("01 23 45 67 89", PLACEHOLDERS[-1])


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 01",  # remainder by 97 is not 1
        "5500 0000 0000 0005",  # Luhn
        "9999 9999 9999 9995",  # Luhn, but nobody's range
        "10.0.0.1, 192.168.1.1, 127.0.0.1, fe80::1, 2001:db8::1",
        "release 4.18.0.193 of section 3.2.1.4",
        "ISBN 0-306-40615-2 and 978-3-16-148410-0",
        "order 212-555-0123",
        "react@18.2.0, icon@2x.png, root@localhost, https://medium.example/@jane",
    ],
)
def test_what_only_looks_like_it_stays(text):
    assert anonymised(text) == text


def test_an_unknown_kind_is_refused():
    with pytest.raises(Misconfigured, match="shoe-size"):
        Anonymise(kinds=("email", "shoe-size"))


def test_kinds_and_regions_are_part_of_a_recipes_hash():
    hashes = {
        Recipe("r", "1", (step,)).hash for step in (Anonymise(), Anonymise(kinds=("key",)), Anonymise(regions=("DE",)))
    }
    assert len(hashes) == 3


def test_judges_know_every_placeholder(bench):
    page = "The old harbour town lies on the river and is known for its lantern festival every winter."
    for placeholder in PLACEHOLDERS:
        line = f"The old harbour town lies on {placeholder} and is known for its lantern festival"
        assert containment(line, page.replace("the river", "jane@mail.example.org")) == 1.0
        assert placeholder_share(f"one two three {placeholder}") == 0.25
    for item in bench.labelled_texts()[:720:7]:
        assert containment(anonymised(item.text), item.text) == 1.0
    assert not private_kinds(" ".join(PLACEHOLDERS))


HOSTILE = (
    "a", "@", "a@", "a.", "a-", "..@", "a@a.", "(at)", "a(at)b(dot)", "1", "1.", "1.1.1.1", "+1", "+1 ", "(1) ",
    "00 1 ", "+12125550123 ", "(212) 555-0123 ", "tel 2125550123 ", "2a00:", "2a00::1 ", ":", "AB12", "DE89 ", "DE89A",
    "4111 ", "4111111111111111 ", "eyJ", "eyJaaaaaaaa.", "eyJaaaaaaaa.eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n- ", "sk-", "sk-A1", "xoxb-", "://a:b", "://aaa:bbbbb", "secret key ", "secret.",
    "AccountKey=", "shpat_", "T1/B1/", "1234567890:AA", "jane@mail.example.org ",
)  # fmt: skip


@pytest.mark.parametrize("step", [ReplacePii(), Anonymise()], ids=["pii", "anonymise"])
def test_time_grows_with_the_text_and_no_faster(step):
    """Twice the text, about twice the time: eight times as much text in less than 24 times."""
    for piece in HOSTILE:
        small, large = (piece * (size // len(piece)) for size in (10_000, 80_000))
        spent = []
        for text in (small, large):
            start = time.process_time()
            replaced(step, text)
            spent.append(time.process_time() - start)
        assert spent[1] < max(24 * spent[0], 3.0), piece


@pytest.mark.full
@pytest.mark.parametrize("step", [ReplacePii(), Anonymise()], ids=["pii", "anonymise"])
@pytest.mark.parametrize("piece", HOSTILE, ids=[f"piece{index}" for index in range(len(HOSTILE))])
def test_five_megabytes_of_anything_take_seconds(step, piece):
    start = time.process_time()
    replaced(step, piece * (5_000_000 // len(piece)))
    assert time.process_time() - start < 20
