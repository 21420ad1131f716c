"""What the public recipes make of real pages stays far from the limits of the gates that look at text."""

import itertools

import pytest

from athena.errors import BadInput
from athena.judge.gates import language, privacy, screens
from athena.judge.gates.containment import containment
from athena.judge.rules import rules_of
from athena.refine.recipe import Document, load_recipe
from athena.refine.records import read_records, visible_text

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")
RULES = rules_of("1").gates
RECIPES = ("fineweb-1", "strict-1", "resiliparse-1", "union-1", "unfiltered-1")


@pytest.fixture(scope="module")
def pages(test_data):
    with (test_data / "extraction" / "scrapinghub" / "pages.warc.gz").open("rb") as file:
        return [record for record in itertools.islice(read_records(file, "pages"), 0, None, 5) if is_readable(record)]


def is_readable(record):
    try:
        return bool(visible_text(record))
    except BadInput:
        return False


@pytest.fixture(scope="module")
def rows_of(pages):
    """A function: a recipe's rows, each with the page's visible text."""

    def refine(name):
        recipe = load_recipe(name)
        results = [(recipe.process(record), visible_text(record)) for record in pages]
        return [(result.row, page) for result, page in results if isinstance(result, Document)]

    return refine


@pytest.mark.full
@pytest.mark.parametrize("name", RECIPES)
def test_honest_rows_stay_far_from_the_limits(name, rows_of, make_evidence):
    rows = rows_of(name)
    assert len(rows) > 15
    found = [(len(row["text"]), containment(row["text"], page)) for row, page in rows]
    outside = sum(chars * (1 - share) for chars, share in found) / sum(chars for chars, _ in found)
    assert outside < RULES.max_outside_share / 3
    assert min(share for _, share in found) >= RULES.min_containment
    labels = {field: [row[field] for row, _ in rows] for field in ("language", "language_score")}
    evidence = make_evidence([row["text"] for row, _ in rows], **labels)
    told = language.check(evidence).evidence
    assert told["noise_share"] == told["false_label_share"] == 0.0
    assert told["foreign_share"] < RULES.max_foreign_share / 2
    assert privacy.check(evidence).evidence["share"] < RULES.max_private_share
    assert screens.check(evidence).evidence["distinct_ngram_share"] > 2 * RULES.min_distinct_ngram_share
