import json

import pytest
from pydantic import ValidationError

from athena.errors import BadInput, NotFound, TooLarge
from athena.evaluation import (
    SUITES,
    DomainScore,
    Evaluation,
    Metric,
    SuiteResult,
    domain_metric,
    measured,
    read_evaluation,
)
from athena.evaluations.report import write_report
from athena.evaluations.table import card_table
from athena.protocol import canonical_json
from athena.regression import compare

BITS = {"news": [200.0, 220.0, 180.0], "wiki": [150.0, 160.0, 140.0]}
SKIPPED = SuiteResult(material="b" * 64, not_run="there is no network")


@pytest.fixture
def evaluation(make_evaluation):
    bias = SuiteResult(material="a" * 64, metrics={"gender, women": measured([0.25, 0.75], better="zero", unit="bits")})
    return make_evaluation(BITS).with_suites({"standard": SKIPPED, "bias": bias})


def test_every_number_has_a_name_and_an_interval(evaluation):
    metrics = evaluation.metrics
    assert list(metrics) == ["bits_per_byte/news", "bits_per_byte/wiki", "bias/gender, women"]
    news = metrics["bits_per_byte/news"]
    assert news.value == evaluation.bits_per_byte["news"] == 2.0
    drawn = domain_metric(evaluation.domains["news"])
    assert drawn.low < 2.0 < drawn.high and drawn.items == news.items
    assert metrics["bias/gender, women"].value == 0.5


def test_suites_stand_in_one_order_and_the_later_result_counts(evaluation):
    assert list(evaluation.suites) == ["bias", "standard"]
    again = evaluation.with_suites({"bias": SKIPPED})
    assert again.suites["bias"].not_run and list(again.suites) == ["bias", "standard"]
    assert list(SUITES).index("bias") < list(SUITES).index("standard")


def test_an_evaluation_survives_its_file_in_all_its_forms(evaluation, tmp_path):
    (tmp_path / "evaluation.json").write_bytes(evaluation.canonical())
    assert read_evaluation(tmp_path) == read_evaluation(tmp_path / "evaluation.json") == evaluation
    before = evaluation.model_copy(update={"seed": "11"})
    pair = {"before": before.model_dump(mode="json"), "after": evaluation.model_dump(mode="json")}
    (tmp_path / "evaluation.json").write_bytes(canonical_json(pair))
    assert read_evaluation(tmp_path) == evaluation


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body | {"stranger": 1},
        lambda body: body | {"format": "athena-evaluation/1"},
        lambda body: {"after": body, "later": body},
        lambda body: {"before": body},
        lambda body: body | {"domains": {"news": body["domains"]["news"] | {"bits_per_byte": 1.0}}},
        lambda body: body | {"domains": {"news": body["domains"]["news"] | {"document_bytes": [1, 2]}}},
        lambda body: body | {"domains": {"news": body["domains"]["news"] | {"document_bytes": [0, 200, 100]}}},
        lambda body: [],
    ],
    ids=["unknown field", "old format", "unknown time", "no after", "wrong sum", "too few", "no bytes", "no object"],
)
def test_what_is_no_evaluation_is_refused(evaluation, tmp_path, spoil):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(spoil(evaluation.model_dump(mode="json"))))
    with pytest.raises(BadInput, match="not an evaluation"):
        read_evaluation(tmp_path)


def test_missing_and_huge_files_are_refused_unread(tmp_path):
    with pytest.raises(NotFound, match="no evaluation"):
        read_evaluation(tmp_path)
    with (tmp_path / "evaluation.json").open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(TooLarge):
        read_evaluation(tmp_path)


def test_items_that_are_all_alike_have_no_interval():
    nothing = measured([0.0] * 80, better="lower")
    assert nothing.value == 0.0 and nothing.low is None and len(nothing.items) == 80
    assert measured([0.0] * 79 + [1.0], better="lower").high > 1 / 80
    assert measured([1.0], better="lower").high is None


def test_a_broken_model_is_no_result():
    with pytest.raises(BadInput, match="finite"):
        measured([1.0, float("nan")], better="lower")
    with pytest.raises(ValidationError):
        Metric(value=float("inf"))
    with pytest.raises(ValidationError, match="not that of the items"):
        Metric(value=2.0, items=(1.0, 1.0))
    with pytest.raises(ValidationError, match="weight"):
        Metric(value=1.0, items=(1.0,), weights=(0.0,))


def test_the_card_has_every_number_that_may_be_better_and_what_did_not_run(evaluation, make_evaluation):
    table = card_table(evaluation, make_evaluation({"news": [300.0] * 3, "wiki": [310.0] * 3}))
    assert "| news | 3 | 300 | 3.0000 | 2.0000 |" in table
    assert "| bias: gender, women | 0.5000 bits |" in table and "nearer to zero" in table
    assert "- standard: there is no network" in table
    assert "| news | 3 | 300 | - | 2.0000 |" in card_table(evaluation)


def test_a_card_of_an_evaluation_without_documents(evaluation):
    score = DomainScore(documents=2, bytes=100, tokens=40, bits_per_byte=2.5)
    bare = Evaluation(eval_pack="e" * 64, seed="00", per_domain=2, window=32, domains={"news": score})
    assert "| news | 2 | 100 | - | 2.5000 | - |" in card_table(bare)


def test_the_report_loads_nothing_runs_nothing_and_escapes_what_it_shows(evaluation, make_evaluation, tmp_path):
    hostile = SuiteResult(material="c" * 64, not_run="<script>alert(1)</script>")
    shown = evaluation.with_suites({"lm-eval": hostile})
    old = make_evaluation({"news": [240.0, 260.0, 220.0], "wiki": [151.0, 160.0, 140.0]})
    for path in ("first.html", "second.html"):
        write_report(tmp_path / path, "athena 0.2.0", shown, compare(old, shown))
    page = (tmp_path / "first.html").read_text()
    assert page == (tmp_path / "second.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page.replace("http-equiv", "")
    assert "Against the model before it" in page and "bits_per_byte/news" in page and "gender, women" in page
    write_report(tmp_path / "alone.html", "athena 0.2.0", shown)
    assert "Against" not in (tmp_path / "alone.html").read_text()
