"""Rows that each keep to their page well enough, and a set that does not; rows that nobody can derive again."""

import dataclasses

import pyarrow as pa
import pytest

from athena.crawl import open_crawl
from athena.judge.evidence import Rows
from athena.judge.gates import provenance
from athena.judge.verdicts import guarded
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_warc

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")
NUM_PAGES = 40
RECIPE = """
import dataclasses
import os
from typing import ClassVar
from athena.refine.recipe import Recipe
from athena.refine.steps.extraction import VisibleText

@dataclasses.dataclass(frozen=True)
class Own:
    name: ClassVar[str] = "own"

    def apply(self, page):
        {body}

RECIPE = Recipe("own", "1", (VisibleText(), Own()))
"""
CRASH = 'return os._exit(1) if page.text.startswith(("page7word", "page8word")) else page'  # those two pages
REVERSE = "return dataclasses.replace(page, text=page.text[::-1])"


@pytest.fixture(scope="module")
def crawled(tmp_path_factory, plain_warc, make_evidence):
    """A function: evidence of a set of one row a page of a crawl, its texts changed."""
    root = tmp_path_factory.mktemp("crawl")
    (root / "a.warc.gz").write_bytes(plain_warc(range(NUM_PAGES), 200))
    crawl = open_crawl(root.as_uri())
    table = refine_warc("a.warc.gz", load_recipe("unfiltered-1"), crawl).table

    def make(change, recipe="unfiltered-1"):
        texts = [change(i, content) for i, content in enumerate(table["text"].to_pylist())]
        changed = table.set_column(0, table.schema.field("text"), pa.array(texts, pa.string()))
        evidence = make_evidence([])
        return dataclasses.replace(evidence, rows=Rows(changed), crawl=crawl, canonical_recipe=load_recipe(recipe))

    return make


def with_invented(share):
    """A line of words of its own at the end of each row, of so many as make this share of its shingles."""

    def change(i, content):
        count = round(share * (len(content.split()) - 4) / (1 - share)) + 4
        return content + "\n" + " ".join(f"invented{i}x{n}" for n in range(count))

    return change


def test_text_as_the_pages_have_it_passes(crawled):
    verdict = provenance.check(crawled(lambda i, content: content))
    assert verdict.outcome == "pass" and verdict.evidence["outside_share"] == 0.0
    assert verdict.evidence["contained"] == NUM_PAGES


def test_a_little_invented_text_in_every_row_fails_the_set(crawled):
    """Each row is above the containment that one row must have."""
    verdict = provenance.check(crawled(with_invented(0.15)))
    assert verdict.outcome == "fail" and "in its pages" in verdict.reason, verdict
    assert verdict.evidence["outside_share"] == pytest.approx(0.15, abs=0.02)
    assert provenance.check(crawled(with_invented(0.01))).outcome == "pass"


def test_invented_text_in_a_few_rows_is_no_more_than_that(crawled):
    invent = with_invented(0.15)
    verdict = provenance.check(crawled(lambda i, content: invent(i, content) if i % 20 == 0 else content))
    assert verdict.outcome == "pass" and 0 < verdict.evidence["outside_share"] < 0.02


def long_row(i, content):
    return " ".join(f"invented{n}" for n in range(80_000)) if i == 7 else content


def test_one_long_invented_row_is_most_of_the_set(crawled):
    """As one row of forty it would be borne."""
    verdict = provenance.check(crawled(long_row))
    assert verdict.outcome == "fail" and "in its pages" in verdict.reason, verdict
    assert verdict.evidence["outside_share"] > 0.5


@pytest.mark.parametrize("block", range(3))
def test_a_small_sample_finds_the_row_that_holds_most_of_the_text(crawled, block):
    evidence = crawled(long_row)
    gates = dataclasses.replace(evidence.rules.gates, provenance_rows=4, provenance_rows_on_suspicion=8)
    case = evidence.case.model_copy(update={"block_hash": f"0x{block:064x}"})
    verdict = provenance.check(
        dataclasses.replace(evidence, case=case, rules=dataclasses.replace(evidence.rules, gates=gates))
    )
    assert verdict.outcome == "fail" and verdict.evidence["checked"] <= 8


def test_looking_ends_once_the_answer_is_sure(crawled):
    verdict = provenance.check(crawled(lambda i, content: content[::-1]))
    assert verdict.outcome == "fail" and verdict.evidence["checked"] == verdict.evidence["altered"] == 3


@pytest.fixture
def recipe(tmp_path):
    """A recipe file: all visible text, then a step with this body."""

    def write(body):
        file = tmp_path / "own.py"
        file.write_text(RECIPE.format(body=body))
        return str(file)

    return write


def reverse(*numbers):
    return lambda i, content: content[::-1] if i in numbers else content


def test_what_the_canonical_recipe_makes_is_its_pages_whatever_it_looks_like(crawled, recipe):
    verdict = provenance.check(crawled(reverse(*range(NUM_PAGES)), recipe(REVERSE)))
    assert verdict.outcome == "pass" and verdict.evidence["exact"] == NUM_PAGES, verdict
    assert verdict.evidence["outside_share"] == 0.0


def test_a_page_that_breaks_the_recipe_decides_nothing(crawled, recipe):
    """One such row is borne; where such rows would decide, there is no verdict."""
    crash = recipe(CRASH)
    borne = provenance.check(crawled(reverse(7), crash))
    assert borne.outcome == "pass" and borne.evidence["undecided"] == 1, borne
    assert guarded("provenance", lambda: provenance.check(crawled(reverse(7, 8), crash))).outcome == "none"
    assert guarded("provenance", lambda: provenance.check(crawled(long_row, crash))).outcome == "none"
    assert provenance.check(crawled(reverse(1, 2, 3), crash)).outcome == "fail"
