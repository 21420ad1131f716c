"""The quality classifier: what a model is made of, what is no model, and how it does against human labels."""

import json
import pickle
import random

import numpy as np
import pytest
import safetensors.numpy

from athena.errors import AthenaError, BadInput, Misconfigured, TooLarge
from athena.refine.recipe import Page, Recipe, Rejected, load_recipe
from athena.refine.records import Record
from athena.refine.report import stages
from athena.refine.steps.classifier import (
    MAX_MODEL_BYTES,
    MAX_TEXT_CHARS,
    NUM_BUCKETS,
    QualityClassifier,
    QualityModel,
    features,
    load_model,
    save_model,
)
from athena.refine.steps.classifier_training import fit, read_labelled, train
from athena.refine.steps.filters import C4Quality, FineWebQuality, GopherQuality, GopherRepetition

GOOD = "The {0} explains how a {1} is built, and why its makers chose that form over others."
BAD = "{0} {1} buy now best price!!! click {0} | free {1} | login | {0} $$$"
WORDS = ("river", "harbour", "engine", "letter", "winter", "market", "bridge", "doctor", "island", "theatre", "farmer")


def page(text):
    record = Record(
        "x", 0, 1, "<urn:uuid:1>", "http://a.example/", "2026-01-01T00:00:00Z", "sha1:" + "A" * 32, None, b""
    )
    return Page(record, "", text)


def labelled_texts(count):
    draw = random.Random(0)
    return [((GOOD, BAD)[i % 2].format(*draw.sample(WORDS, 2)), i % 2 == 0) for i in range(count)]


@pytest.fixture(scope="module")
def examples():
    rows = labelled_texts(80)
    return [features(text) for text, _ in rows], np.array([good for _, good in rows])


@pytest.fixture(scope="module")
def model(examples):
    return fit(*examples, seed=0)


@pytest.fixture(scope="module")
def judged(test_data):
    """Of each text that DCLM's annotators judged: its features, whether it is good, and what fineweb-1's quality
    filters make of it."""
    quality = GopherRepetition | GopherQuality | C4Quality | FineWebQuality
    steps = [step for step in load_recipe("fineweb-1").steps if isinstance(step, quality)]
    texts, labels, results = [], [], []
    for text, good in read_labelled(test_data / "quality" / "dclm-majority.jsonl"):
        result = page(text)
        for step in steps:
            if isinstance(result, Page):
                result = step.apply(result)
        texts.append(features(text))
        labels.append(good)
        results.append(result)
    return texts, np.array(labels), results


def balanced_accuracy(kept, good):
    return (kept[good].mean() + 1 - kept[~good].mean()) / 2


def gain(judged, half):
    """In points of balanced accuracy on one half, of edu-1's steps over fineweb-1's, with the other half to learn."""
    texts, labels, results = judged
    order = np.random.default_rng(half).permutation(len(labels))
    learnt, unseen = np.split(order, [len(order) // 2])
    trained = fit([texts[i] for i in learnt], labels[learnt], seed=half)
    (step,) = (step for step in load_recipe("edu-1").steps if isinstance(step, QualityClassifier))
    by_filters = np.array([isinstance(results[i], Page) for i in unseen])
    by_both = np.array(
        [isinstance(results[i], Page) and trained.probability(results[i].text) >= step.threshold for i in unseen]
    )
    good = labels[unseen]
    return 100 * (balanced_accuracy(by_both, good) - balanced_accuracy(by_filters, good))


def test_the_classifier_beats_the_filters_against_human_labels(judged):
    assert np.mean([gain(judged, half) for half in range(4)]) >= 3


@pytest.mark.full
def test_the_classifier_beats_the_filters_by_five_points_in_twenty_halves(judged):
    assert np.mean([gain(judged, half) for half in range(20)]) >= 5


def test_features_are_of_length_one_and_bounded():
    buckets, values = features("Two words. Two\nwords.")
    assert (np.diff(buckets) > 0).all() and buckets[0] >= 0 and buckets[-1] < NUM_BUCKETS
    assert np.isclose((values**2).sum(), 1)
    assert features("")[0].size == 0
    long = "word " * MAX_TEXT_CHARS
    assert np.array_equal(features(long)[1], features(long[:MAX_TEXT_CHARS])[1])
    assert features("half a surrogate pair: \ud800")[0].size


def test_a_model_tells_good_from_bad_and_is_the_same_for_a_seed(examples, model, tmp_path):
    assert model.probability(GOOD.format("pilot", "kite")) > 0.8 > 0.2 > model.probability(BAD.format("pilot", "kite"))
    assert model.probability("") == round(1 / (1 + np.exp(-model.bias)), 4)
    for name, same in (("a", model), ("b", fit(*examples, seed=0))):
        save_model(same, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = load_model(tmp_path / "a")
    assert again.probability(GOOD) == model.probability(GOOD)


def test_held_out_texts_are_not_learnt():
    """With labels that say nothing the model still separates what it has seen, and must not be credited for it."""
    draw = random.Random(1)
    noise = [features(" ".join(draw.choices(WORDS, k=12))) for _ in range(200)]
    labels = np.array([draw.random() < 0.5 for _ in noise])
    model, held_out = train(noise, labels, seed=0)
    seen = np.array([model.probability_of(text) >= 0.5 for text in noise])
    assert held_out.texts == 40
    assert held_out.balanced_accuracy < 0.7 < balanced_accuracy(seen, labels)


@pytest.mark.parametrize("good", [0, 9])
def test_too_few_labels_are_refused(examples, good):
    texts, _ = examples
    for learn in (fit, train):
        with pytest.raises(BadInput, match="label"):
            learn(texts, np.arange(len(texts)) < good, seed=0)


@pytest.mark.parametrize(
    "line",
    [
        "", "[]", "{}", "\x00", "[" * 100_000, '{"text": "a"}', '{"text": 1, "label": 1}', '{"text": "a", "label": 2}',
        '{"text": "a", "label": "1"}', '{"text": "a", "label": 1.0}', '{"text": "a", "label": null}',
        '{"text": "a", "label": [1]}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_labelled_text_is_named(tmp_path, line):
    path = tmp_path / "labelled.jsonl"
    path.write_text(json.dumps({"text": "fine", "label": 1}) + "\n" + line + "\n")
    with pytest.raises(BadInput, match=r"labelled\.jsonl:2"):
        list(read_labelled(path))


def test_a_line_without_end_is_not_read_whole(tmp_path):
    path = tmp_path / "labelled.jsonl"
    path.write_bytes(b'"' + b"a" * (17 << 20))
    with pytest.raises(TooLarge, match=r":1"):
        list(read_labelled(path))


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model"
    weights, bias = np.zeros(NUM_BUCKETS, np.float32), np.zeros(1)
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    hostile = [
        b"",
        b"\xff" * 100,
        (tmp_path / "pickled.npy").read_bytes(),
        safetensors.numpy.save({"weights": weights}),
        safetensors.numpy.save({"weights": weights[:-1], "bias": bias}),
        safetensors.numpy.save({"weights": weights.astype(np.float64), "bias": bias}),
        safetensors.numpy.save({"weights": weights, "bias": np.array([np.nan])}),
        safetensors.numpy.save({"weights": weights, "bias": bias, "more": bias}),
    ]
    for raw in hostile:
        path.write_bytes(raw)
        with pytest.raises(BadInput, match="model"):
            load_model(path)
    path.write_bytes(bytes(MAX_MODEL_BYTES + 1))
    with pytest.raises(TooLarge):
        load_model(path)


def test_the_hash_covers_the_model_wherever_it_lies(tmp_path, model):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    save_model(model, paths[0])
    save_model(model, paths[1])
    save_model(QualityModel(model.weights, model.bias + 1), paths[2])
    hashes = [Recipe("mine", "1", (QualityClassifier(path),)).hash for path in paths]
    assert hashes[0] == hashes[1] != hashes[2]
    assert Recipe("mine", "1", (QualityClassifier(paths[0], threshold=0.6),)).hash != hashes[0]


def test_without_its_model_a_recipe_says_what_to_do(tmp_path):
    step = QualityClassifier(tmp_path / "none")
    for ask in (lambda: step.apply(page("text")), lambda: Recipe("mine", "1", (step,)).hash):
        with pytest.raises(Misconfigured, match="none") as error:
            ask()
        assert "train-classifier" in error.value.remedy
        assert isinstance(error.value, AthenaError)


def test_a_step_keeps_what_the_model_likes_in_any_process(tmp_path, model):
    save_model(model, tmp_path / "model")
    recipe = Recipe("mine", "1", (QualityClassifier(tmp_path / "model"),))
    for step in (recipe.steps[0], pickle.loads(pickle.dumps(recipe)).steps[0]):
        kept = page(GOOD.format("pilot", "kite"))
        assert step.apply(kept) == kept
        assert step.apply(page(BAD.format("pilot", "kite"))) == Rejected("quality-classifier")


def test_the_report_names_the_file_and_not_the_folder(tmp_path):
    recipe = Recipe("mine", "1", (QualityClassifier(tmp_path / "quality.safetensors"),))
    shown = str(stages(recipe, {}, 0))
    assert "quality.safetensors" in shown and str(tmp_path) not in shown
