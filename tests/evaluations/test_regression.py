import random

import pytest

from athena.bootstrap import RESAMPLES, deviations, interval, ratio
from athena.evaluation import Metric, SuiteResult, measured
from athena.regression import RELATIVE_TOLERANCE, compare

DOMAINS = ("news", "prose", "code", "law")


def noisy(seed, shift=0.0, documents=12, noise=2.0, domains=DOMAINS):
    """Documents that differ much from each other and, between two calls of different seeds, little."""
    own = random.Random(seed)
    return {
        domain: [
            round(random.Random(f"{domain}{i}").uniform(100, 300) * (1 + shift) + own.gauss(0, noise), 4)
            for i in range(documents)
        ]
        for domain in domains
    }


def suite(items, better="zero", material="a"):
    return SuiteResult(material=material * 64, metrics={"gender": measured(items, better=better)})


def test_a_model_is_equal_to_itself(make_evaluation):
    evaluation = make_evaluation(noisy(1))
    found = compare(evaluation, evaluation)
    assert found.verdict == "equal" and found.needs_approval
    assert [change.name for change in found.metrics] == ["bits_per_byte", *(f"bits_per_byte/{d}" for d in DOMAINS)]
    assert {change.difference for change in found.metrics} == {0.0}


def test_better_on_the_same_documents_is_seen_through_their_differences(make_evaluation):
    old, new = make_evaluation(noisy(1)), make_evaluation(noisy(2, shift=-0.03))
    found = compare(old, new)
    assert found.verdict == "better" and not found.needs_approval
    assert found.metrics[0].low > 0
    assert compare(new, old).verdict == "worse"
    assert compare(old, new) == found  # the same draws every time


def test_one_domain_that_is_worse_holds_a_better_model_back(make_evaluation):
    new = noisy(2, shift=-0.05)
    new["law"] = noisy(2, shift=0.05)["law"]
    found = compare(make_evaluation(noisy(1)), make_evaluation(new))
    assert found.metrics[0].verdict == "better"
    assert found.verdict == "worse"
    [reason] = found.reasons
    assert "bits_per_byte/law is worse" in reason


def test_a_domain_may_be_a_little_worse(make_evaluation):
    old = noisy(1, noise=0)
    new = {d: [bits * (0.97 if d != "law" else 1 + RELATIVE_TOLERANCE / 2) for bits in old[d]] for d in DOMAINS}
    found = compare(make_evaluation(old), make_evaluation(new))
    assert found.verdict == "better"
    [law] = [change for change in found.metrics if change.name.endswith("law")]
    assert law.high < 0 and law.verdict == "equal"


def test_equal_models_are_seldom_called_worse(make_evaluation):
    verdicts = [
        compare(make_evaluation(noisy(2 * i, noise=4)), make_evaluation(noisy(2 * i + 1, noise=4))).verdict
        for i in range(15)
    ]
    assert verdicts.count("worse") <= 2


def test_one_document_proves_nothing(make_evaluation):
    old, new = ({d: [bits] for d in DOMAINS} for bits in (200.0, 100.0))
    assert compare(make_evaluation(old), make_evaluation(new)).verdict == "equal"


@pytest.mark.parametrize(
    "change", [{"eval_pack": "f" * 64}, {"seed": "01"}, {"per_domain": 3}, {"window": 64}], ids=lambda c: next(iter(c))
)
def test_other_documents_do_not_compare(make_evaluation, change):
    evaluation = make_evaluation(noisy(1))
    found = compare(evaluation, evaluation.model_copy(update=change))
    assert found.verdict == "incomparable" and found.needs_approval and not found.metrics


def test_other_domains_and_results_without_documents_do_not_compare(make_evaluation):
    evaluation = make_evaluation(noisy(1))
    assert compare(evaluation, make_evaluation(noisy(1, domains=DOMAINS[1:]))).verdict == "incomparable"
    assert compare(make_evaluation({}), make_evaluation({})).verdict == "incomparable"
    bare = {
        domain: score.model_copy(update={"document_bits": (), "document_bytes": ()})
        for domain, score in evaluation.domains.items()
    }
    found = compare(evaluation.model_copy(update={"domains": bare}), evaluation)
    assert found.verdict == "incomparable" and "by document" in found.reasons[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_bias_that_grows_either_way_is_worse(make_evaluation, sign):
    fair = [0.1 * (i % 3 - 1) for i in range(12)]
    old = make_evaluation(noisy(1), bias=suite(fair))
    new = make_evaluation(noisy(2, shift=-0.05), bias=suite([sign * (1 + item) for item in fair]))
    found = compare(old, new)
    assert found.verdict == "worse" and "bias/gender" in found.reasons[0]
    assert compare(new, old).metrics[-1].verdict == "better"


def test_what_was_measured_of_the_old_one_is_to_be_measured_of_the_new_one(make_evaluation):
    with_suite = make_evaluation(noisy(1), bias=suite([0.1] * 8))
    without = make_evaluation(noisy(2, shift=-0.05))
    found = compare(with_suite, without)
    assert found.verdict == "incomparable" and "bias/gender" in found.reasons[0]
    assert compare(without, with_suite).verdict == "worse"  # more than the old one had is no hindrance
    other = make_evaluation(noisy(2, shift=-0.05), bias=suite([0.1] * 8, material="b"))
    assert "other material" in compare(with_suite, other).reasons[0]
    longer = make_evaluation(noisy(2, shift=-0.05), bias=suite([0.1] * 9))
    assert compare(with_suite, longer).verdict == "incomparable"


def test_numbers_that_only_inform_do_not_count(make_evaluation):
    def speed(value):
        metrics = {"reading": Metric(value=value, better="higher")}
        return SuiteResult(material="a" * 64, metrics=metrics)

    old = make_evaluation(noisy(1), speed=speed(1000.0))
    found = compare(old, make_evaluation(noisy(2, shift=-0.05), speed=speed(1.0)))
    assert found.verdict == "better"


def test_bootstrap_intervals_hold_what_they_promise():
    covered = 0
    for trial in range(40):
        own = random.Random(trial)
        items = [own.gauss(5, 2) for _ in range(20)]
        spread = deviations((items, [1.0] * 20), ratio, b"seed")
        assert spread is not None and spread.shape == (RESAMPLES,)
        low, high = interval(sum(items) / 20, spread, 0.95)
        covered += low <= 5 <= high
    assert 34 <= covered <= 40
    assert deviations(([1.0], [1.0]), ratio, b"seed") is None
