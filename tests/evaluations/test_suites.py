import math
from types import SimpleNamespace

import pytest
import torch

from athena.errors import BadInput
from athena.evaluation import SUITES
from athena.evaluations import bias, generation, memorisation, suites, toxicity
from athena.evaluations.canaries import CanaryPlan, candidates, control, planted, prefix, secret
from athena.evaluations.cloze import cloze
from athena.evaluations.generating import go_on
from athena.evaluations.likelihood import nats
from athena.evaluations.pairs import categories, pairs_of
from athena.evaluations.subject import Subject, TrainingTexts

PLAN = CanaryPlan(seed="ab" * 32, count=4, repeats=3)


def manual_nats(subject, context, continuation):
    """One text at a time, without padding or windows."""
    ids = subject.tokenizer(context + continuation).input_ids
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([[0, *ids]])).logits[0, :-1]
    chosen = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
    return -float(chosen[-len(continuation.encode()) :].sum())


def test_likelihood_is_that_of_each_text_alone(subject):
    pairs = [("The sky is", " blue today."), ("", "Rain."), ("12", " 5"), ("a" * 60, "é")]
    for found, pair in zip(nats(subject, pairs), pairs, strict=True):
        assert found == pytest.approx(manual_nats(subject, *pair), rel=1e-4)


def test_a_context_beyond_the_window_loses_its_beginning(subject):
    short = Subject(subject.model, subject.tokenizer, subject.pack, per_domain=2, window=16)
    long, cut = nats(short, [("x" * 90 + "abcdefgh", " end"), ("y" * 90 + "abcdefgh", " end")])
    assert long != pytest.approx(manual_nats(subject, "x" * 90 + "abcdefgh", " end"), rel=1e-3)
    assert long == pytest.approx(nats(short, [("x" * 50 + "abcdefgh", " end")])[0], rel=1e-5)
    assert math.isfinite(cut)


def test_texts_that_spell_a_special_token_out_are_plain_text(subject):
    [found] = nats(subject, [("", "<start>")])
    assert found == pytest.approx(nats(subject, [("<st", "art>")])[0] + nats(subject, [("", "<st")])[0], rel=1e-4)


def test_writing_is_greedy_one_by_one_and_leaves_the_model_as_it_was(subject):
    settings, state = subject.model.generation_config, torch.get_rng_state()
    prompts = ["The river", "a much longer prompt than the first one", "x"]
    together = go_on(subject, prompts, 6)
    assert together == [go_on(subject, [prompt], 6)[0] for prompt in prompts]
    ids = [0, *subject.tokenizer("The river").input_ids]
    for _ in range(3):
        with torch.no_grad():
            ids.append(int(subject.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert together[0].startswith(subject.tokenizer.decode(ids[-3:], skip_special_tokens=True)[:1])
    assert go_on(subject, prompts, 6, sampled=1) == go_on(subject, prompts, 6, sampled=1) != together
    assert subject.model.generation_config is settings
    assert torch.equal(torch.get_rng_state(), state)


def test_cloze_reads_the_right_choice_and_accuracy_by_byte(subject):
    metrics = cloze(subject).metrics
    items = subject.pack.cloze
    bits = [manual_nats(subject, i.context, i.choices[i.answer]) / math.log(2) for i in items]
    sizes = [len(i.choices[i.answer].encode()) for i in items]
    assert metrics["answer bits per byte"].value == pytest.approx(sum(bits) / sum(sizes), rel=1e-4)
    right = [
        min(manual_nats(subject, i.context, c) / len(c.encode()) for c in i.choices)
        == pytest.approx(b * math.log(2) / size, rel=1e-4)
        for i, b, size in zip(items, bits, sizes, strict=True)
    ]
    assert metrics["accuracy"].value == sum(right) / len(right)


def test_there_are_hundreds_of_balanced_pairs():
    pairs = [pair for category in categories() for pair in pairs_of(category)]
    said = [pair for pair in pairs if pair.group is not None]
    assert len(said) > 400 and len({pair.texts for pair in pairs}) == len(pairs)
    for category in categories():
        by_group = [sum(p.group == group for p in said if p.category == category.name) for group in (0, 1)]
        assert by_group[0] == by_group[1] >= 18, category.name
    for first, second in (pair.texts for pair in pairs):
        assert first != second and "{" not in first + second and first[0].isupper()


def fake_nats(prejudice):
    """Of a model that writes far more about second groups, and believes `prejudice` nats of what is said."""
    known = {
        text: 20 - 6 * (side == 1) - prejudice * (pair.group == side)
        for category in categories()
        for pair in pairs_of(category)
        for side, text in enumerate(pair.texts)
    }
    return lambda _subject, pairs: [float(known[text]) for _, text in pairs]


@pytest.mark.parametrize("prejudice", [0.0, math.log(2)])
def test_prejudice_is_told_from_how_often_a_group_is_written_about(monkeypatch, prejudice):
    monkeypatch.setattr(bias, "nats", fake_nats(prejudice))
    metrics = bias.bias(None).metrics
    share = metrics.pop("pairs with the prejudice likelier")
    assert {round(metric.value, 6) for metric in metrics.values()} == {round(prejudice / math.log(2), 6)}
    assert share.value == (1.0 if prejudice else 0.0)
    assert len(metrics) == 3 * len(categories())
    assert [metrics[name].better for name in ("gender", "gender, women")] == ["zero", None]


def test_word_f1():
    assert generation.word_f1("The red house", "a red house") == pytest.approx(2 / 3)
    assert generation.word_f1("red red", "red") == pytest.approx(2 / 3)
    assert generation.word_f1("", "a") == generation.word_f1("x", "a") == 0.0
    assert generation.word_f1("House!", "house") == 1.0


def test_generation_scores_documents_and_cloze(subject, monkeypatch):
    truth = {
        " ".join(words[: generation.PROMPT_WORDS]): " ".join(words[generation.PROMPT_WORDS :])
        for document in subject.pack.documents
        for words in [document.text.split()]
    }
    monkeypatch.setattr(generation, "go_on", lambda _subject, prompts, _tokens: [truth.get(p, "no") for p in prompts])
    metrics = generation.generation(subject).metrics
    assert metrics["documents, F1"].value == 1.0 and metrics["documents, BLEU"].value == pytest.approx(100)
    assert metrics["cloze, F1"].value == 0.0
    assert metrics["documents, F1"].items == (1.0,) * 4


def test_abuse_is_found_by_whole_words():
    assert toxicity.abusive("what an IDIOT!") and toxicity.abusive("(bastards)")
    assert not toxicity.abusive("an idiosyncratic, assuming classic from Scunthorpe")


def test_toxicity_is_the_share_of_continuations(monkeypatch):
    prompts = len(toxicity.PROMPTS) * toxicity.DRAWS
    answers = ["you moron", *["fine"] * (prompts - 1)]
    monkeypatch.setattr(toxicity, "go_on", lambda *_arguments, sampled: answers)
    assert toxicity.toxicity(None).metrics["continuations with abuse"].value == pytest.approx(1 / prompts, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to a.b+c@mail.example.org now", {"a.b+c@mail.example.org"}),
        ("call +44 (0)20 7946 0123.", {"+44 (0)20 7946 0123"}),
        ("from 1990 to 2001, 3.14159 and 12 345", set()),
        ("no address@", set()),
    ],
)
def test_contacts(text, found):
    assert memorisation.contacts(text) == found


def test_canaries_are_drawn_repeated_and_have_a_control():
    texts = list(planted(PLAN))
    assert len(texts) == 12 and len(set(texts)) == 4 and texts == list(planted(PLAN))
    assert texts[0] == prefix(PLAN, 0) + secret(PLAN, 0) + "."
    assert set(texts).isdisjoint(planted(control(PLAN)))
    others = candidates(PLAN, 0, 99)
    assert len(set(others)) == 99 and secret(PLAN, 0) not in others
    assert {len(digits) for digits in others} == {11}


def test_exposure_is_full_for_what_was_learned_and_chance_for_the_control(monkeypatch):
    learned = {(prefix(PLAN, i), secret(PLAN, i) + ".") for i in range(PLAN.count)}

    def likelihood(_subject, pairs):
        return [0.0 if pair in learned else 5 + hash_of(pair) for pair in pairs]

    def hash_of(pair):
        return int.from_bytes("".join(pair).encode()[-12:], "big") % 9973 / 9973

    monkeypatch.setattr(memorisation, "nats", likelihood)
    assert memorisation.exposures(None, PLAN) == [8.0] * PLAN.count
    wide = PLAN.model_copy(update={"count": 64})
    chance = memorisation.exposures(None, control(wide))
    assert 0.8 < sum(chance) / len(chance) < 2.2


def test_memorisation_finds_contacts_and_passages_of_the_training_texts(monkeypatch):
    passage = " ".join(f"word{i}" for i in range(80))
    texts = [passage, "reach me at ann@example.org today", " ".join(f"other{i}" for i in range(80))]

    def writes(_subject, prompts, _tokens, sampled=None):
        if sampled is not None:
            return ["ann@example.org", "bob@example.org", *["nothing"] * (len(prompts) - 2)]
        return [passage[len(prompt) :] if passage.startswith(prompt) else "something else" for prompt in prompts]

    monkeypatch.setattr(memorisation, "go_on", writes)
    subject = SimpleNamespace(canaries=None, training=TrainingTexts("t", lambda: iter(texts)))
    metrics = memorisation.memorisation(subject).metrics
    draws = len(memorisation.PROMPTS) * memorisation.DRAWS
    assert metrics["continuations with a contact"].value == pytest.approx(2 / draws, abs=1e-5)
    assert metrics["contacts of training texts"].value == pytest.approx(1 / draws, abs=1e-5)
    assert metrics["passages quoted"].value == 0.5 and not metrics["passages quoted"].items
    subject = SimpleNamespace(canaries=None, training=None)
    assert list(memorisation.memorisation(subject).metrics) == ["continuations with a contact"]


def test_the_evaluation_grows_and_goes_on_where_it_stopped(subject, monkeypatch):
    calls = []

    def counted(name, run):
        return lambda given: calls.append(name) or run(given)

    monkeypatch.setattr(suites, "_RUN", {name: counted(name, run) for name, run in suites._RUN.items()})
    *_, first = suites.measuring(subject, ["cloze"])
    assert calls == ["cloze"] and list(first.suites) == ["cloze"]
    steps = list(suites.measuring(subject, ["speed", "cloze"], first))
    assert calls == ["cloze", "speed"] and steps[0] == first
    assert list(steps[-1].suites) == ["cloze", "speed"]
    reading = steps[-1].suites["speed"].metrics
    assert reading["reading"].value > 0 and reading["writing"].value > 0 and reading["peak memory"].value > 1
    assert suites.measure(subject, ()) == suites.ruled(subject) == first.model_copy(update={"suites": {}})
    with pytest.raises(BadInput, match="no suite"):
        suites.measure(subject, ["nonsense"])
    assert set(suites._RUN) == set(SUITES)


def test_what_needs_a_network_says_that_it_did_not_run(subject):
    result = suites.standard_tasks(subject)
    assert "hellaswag" in result.not_run and "out of reach" in result.not_run
