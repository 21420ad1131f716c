"""What the gates find in text alone: leaked evaluation text, private data, other languages, noise, poor teaching."""

import base64
import gzip
import itertools
import json
import random
import string

import numpy as np
import pytest

from athena.evalpack import ClozeItem
from athena.judge.gates import contamination, language, privacy, screens
from athena.judge.gates.contamination import held_out, quotes
from athena.judge.gates.ngram_model import ORDER, NgramModel, bits_per_byte
from athena.judge.rules import rules_of
from athena.judge.words import ngram_hashes, words
from athena.optout import LeftOut
from athena.refine.steps.anonymise import PLACEHOLDERS
from athena.refine.text.bpe import VOCABULARY_SIZE
from athena.refine.text.language import identify

RULES = rules_of("1").gates
LEAKED = RULES.leaked_ngrams


def text(start, count=60):
    return " ".join(f"word{i}" for i in range(start, start + count))


def edited(content, every):
    tokens = content.split()
    tokens[::every] = [f"other{i}" for i in range(len(tokens[::every]))]
    return " ".join(tokens)


@pytest.fixture(scope="module")
def real(test_data):
    """Texts that the canonical recipe kept of real English pages."""
    with gzip.open(test_data / "text" / "fineweb-recipe-kept.jsonl.gz", "rt") as file:
        return [json.loads(line)["text"] for line in itertools.islice(file, 350)]


@pytest.fixture(scope="module")
def books(test_data, make_pack):
    """Evaluation documents of other sources."""
    names = ("wikitext2-valid", "gutenberg-1661-sherlock", "gutenberg-2600-war-peace")
    contents = {name: (test_data / "text" / f"{name}.txt").read_text("utf-8", "replace") for name in names}
    return make_pack({name: [t[i : i + 4000] for i in range(20_000, 120_000, 4000)] for name, t in contents.items()})


def test_an_edited_copy_of_an_evaluation_document_is_found(make_pack):
    leaked = held_out(make_pack([text(0, 300), text(1000, 300)]))
    assert quotes(edited(text(0, 300), 7), leaked, LEAKED)
    assert quotes(f"{text(5000, 900)} {edited(text(1100, 150), 7)} {text(7000, 900)}", leaked, LEAKED)
    assert not quotes(edited(text(0, 300), 4), leaked, LEAKED)
    assert not quotes(text(5000, 2000), leaked, LEAKED)


def test_words_that_are_far_apart_in_the_document_are_no_copy(make_pack):
    """As many shared 5-grams as a quotation has, but each from another page of the book."""
    leaked = held_out(make_pack([text(0, 10_000)]))
    scattered = " ".join(f"{text(i, 5)} {text(20_000 + i, 20)}" for i in range(0, 10_000, 200))
    assert not quotes(scattered, leaked, LEAKED)


def test_a_cloze_item_is_held_out_with_its_right_choice(make_pack):
    item = ClozeItem(id="1", domain="web", context=text(0, 30), choices=(" wrong it is", " right it is"), answer=1)
    short = item.model_copy(update={"id": "2", "context": text(100, 9)})
    leaked = held_out(make_pack([text(900)], [item, short]))
    assert quotes(f"{text(2000)} {text(0, 30)} {text(3000)}", leaked, LEAKED)
    assert quotes(f"{text(2000)} {text(100, 9)} right it is {text(3000)}", leaked, LEAKED)
    assert not quotes(f"{text(2000)} {text(100, 9)} wrong it is {text(3000)}", leaked, LEAKED)


def test_cloze_items_made_of_a_document_leave_it_held_out(make_pack):
    item = ClozeItem(id="1", domain="web", context=text(0, 30), choices=(" word30", " x"), answer=0)
    leaked = held_out(make_pack([text(0, 80)], [item]))
    assert quotes(text(0, 25), leaked, LEAKED) and quotes(text(50, 25), leaked, LEAKED)


def test_a_set_may_quote_twice_as_much_as_canonical_work(make_evidence, make_pack):
    pack = make_pack([text(0, 100)])
    honest, quoting = [text(1000 * i) for i in range(1, 10)], [text(10, 40)]
    verdict = contamination.check(make_evidence(honest + quoting, canonical=honest, pack=pack))
    assert verdict.outcome == "fail" and verdict.evidence["share"] == 0.1
    assert contamination.check(make_evidence(honest + quoting, canonical=honest + quoting, pack=pack)).outcome == "pass"
    assert contamination.check(make_evidence(honest, pack=pack)).outcome == "pass"
    assert contamination.check(make_evidence([], pack=pack)).outcome == "pass"


def test_real_pages_do_not_look_like_copies_of_books(real, books):
    leaked = held_out(books)
    assert sum(quotes(content, leaked, LEAKED) for content in real) <= 1
    sherlock = [d.text for d in books.documents if d.domain == "gutenberg-1661-sherlock"]
    assert all(quotes(edited(content, 8), leaked, LEAKED) for content in sherlock)


PRIVATE = {
    "email": "Write to jane.roe@site.org for the plan of the garden.",
    "ip": "The host at 93.184.216.34 answers all day.",
    "phone": "Call us on +1 212 456 7890 before noon.",
    "iban": "Send the fee to DE89370400440532013000 this week.",
    "card": "He wrote 4539578763621486 on the form.",
    "key": "The token ghp_" + "a1B2" * 9 + " opens it.",
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_private_data_is_found_by_kind(kind):
    assert privacy.private_kinds(PRIVATE[kind]) == {kind}


def test_placeholders_and_plain_numbers_are_not_private():
    assert not privacy.private_kinds(" and ".join(PLACEHOLDERS))
    assert not privacy.private_kinds("192.168.0.1 and 10.1.1.1 are private, version 1.2.3.4 is out, 12,345 were sold")


def test_unmasked_contacts_fail_unless_canonical_work_has_them_too(make_evidence):
    plain = [text(100 * i) for i in range(40)]
    contacts = list(PRIVATE.values()) * 10
    verdict = privacy.check(make_evidence(plain + contacts, canonical=plain))
    assert verdict.outcome == "fail" and verdict.evidence["rows_by_kind"] == dict.fromkeys(sorted(PRIVATE), 10)
    assert privacy.check(make_evidence(plain + contacts, canonical=plain + contacts)).outcome == "pass"
    assert privacy.check(make_evidence(plain + contacts[:30], canonical=plain)).outcome == "pass"
    assert privacy.check(make_evidence([])).outcome == "pass"


def test_one_page_of_a_domain_that_opted_out_fails_the_set(make_evidence):
    evidence = make_evidence([text(100 * i) for i in range(300)], left_out=LeftOut(frozenset({"site217.example"})))
    verdict = privacy.check(evidence)
    assert verdict.outcome == "fail" and verdict.evidence["urls"] == ["http://site217.example/"]


GERMAN = (
    "Der alte Fischer ging jeden Morgen an den Hafen, weil er die Ruhe des Meeres liebte, und erzählte am Abend seinen "
    "Enkeln von den Schiffen, die er dort gesehen hatte."
)


def noise(kind, size=4000):
    dice = random.Random(kind)
    if kind == "base64":
        return base64.b64encode(dice.randbytes(size)).decode()[:size]
    alphabets = {
        "random": string.ascii_letters + string.digits,
        "letters": string.ascii_lowercase,
        "digits": "0123456789",
    }
    if kind in alphabets:
        return "".join(dice.choices(alphabets[kind] + " ", k=size))
    return {"fill": "a" * size, "loop": "buy now " * (size // 8)}[kind]


@pytest.mark.parametrize("kind", ["base64", "random", "letters", "digits", "fill", "loop"])
def test_what_is_no_language_fails(make_evidence, real, kind):
    assert language.is_noise(noise(kind), max(identify(noise(kind)).values()), RULES)
    verdict = language.check(make_evidence(real[:20] + [noise(kind)] * 40))
    assert verdict.outcome == "fail", verdict
    assert language.check(make_evidence([*real[:20], noise(kind)])).outcome == "pass"


def test_another_language_fails_and_a_part_of_it_does_not(make_evidence, real):
    german = [GERMAN * 5] * 20
    verdict = language.check(make_evidence(german))
    assert verdict.outcome == "fail" and "other languages" in verdict.reason, verdict
    assert language.check(make_evidence(german + real[:20])).outcome == "pass"


def test_a_false_label_fails(make_evidence, real):
    labels = {"language": ["en"] * 50, "language_score": [0.97] * 50}
    assert language.check(make_evidence(real[:50], **labels)).outcome == "pass"
    verdict = language.check(make_evidence(real[:40] + [GERMAN] * 10, **labels))
    assert verdict.outcome == "fail" and "language column" in verdict.reason
    assert language.check(make_evidence([])).outcome == "pass"


def test_real_pages_are_language(real):
    assert not any(language.is_noise(content, max(identify(content).values()), RULES) for content in real[:100])


def bits_by_definition(stream, tokens):
    """Interpolated absolute discounting, one probability at a time."""

    def likely(context, token, order):
        if order == 0:
            return 1 / VOCABULARY_SIZE
        context = context[len(context) - order + 1 :] if order > 1 else []
        after = [stream[i + order - 1] for i in range(len(stream) - order + 1) if stream[i : i + order - 1] == context]
        lower = likely(context[1:], token, order - 1)
        if not after:
            return lower
        return (max(after.count(token) - 0.75, 0) + 0.75 * len(set(after)) * lower) / len(after)

    found = []
    for at, token in enumerate(tokens):
        context = tokens[max(0, at - ORDER + 1) : at]
        found.append(-np.log2(likely(context, token, min(ORDER, len(context) + 1))))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_model_is_interpolated_absolute_discounting(seed):
    dice = random.Random(seed)
    stream, tokens = ([dice.randrange(4) for _ in range(size)] for size in (60, 40))
    model = NgramModel(np.array(stream, dtype=np.int64))
    np.testing.assert_allclose(model.bits(np.array(tokens, dtype=np.int64)), bits_by_definition(stream, tokens))


@pytest.mark.parametrize("size", range(7))
def test_the_model_takes_any_little_text(size):
    model = NgramModel(np.arange(size, dtype=np.int64))
    assert np.all(np.isfinite(model.bits(np.arange(9, dtype=np.int64))))


def test_probabilities_of_all_tokens_add_up_to_one():
    model = NgramModel(np.array([1, 2, 3, 1, 2, 4, 1, 2, 3, 5], dtype=np.int64))
    streams = np.array([[9, 3, 1, 2, token] for token in range(VOCABULARY_SIZE)], dtype=np.int64)
    assert np.sum(2 ** -model.bits(streams.ravel())[4::5]) == pytest.approx(1.0)


def test_hashes_tell_n_grams_apart():
    grams = ngram_hashes(words("a b c a b d a b c"), 3)
    assert len(grams) == 7 and len(set(grams.tolist())) == 6 and grams[0] == grams[6]
    assert len(ngram_hashes(words("b a"), 2)) == 1 and ngram_hashes(words("b a"), 2) != ngram_hashes(words("a b"), 2)
    assert not len(ngram_hashes([], 1))


def shuffled(content):
    tokens = content.split()
    random.Random(0).shuffle(tokens)
    return " ".join(tokens)


def gibberish(content):
    dice = random.Random(len(content))
    return " ".join("".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in word) for word in content.split())


DAMAGES = {
    "shuffled words": shuffled,
    "gibberish": gibberish,
    "another language": lambda content: GERMAN + shuffled(GERMAN * (len(content) // 200)),
    "reversed": lambda content: content[::-1],
    "base64": lambda content: base64.b64encode(content.encode()).decode(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_garbage_does_not_come_through_the_screens(make_evidence, real, books, damage):
    size = 50 if damage == "shuffled words" else 20  # the less damage, the more text it takes to see
    garbage = list(map(DAMAGES[damage], real[300 : 300 + size]))
    verdict = screens.check(make_evidence(garbage, canonical=real[:size], pack=books))
    assert verdict.outcome == "fail", verdict


def test_honest_and_poor_text_goes_on_to_the_proxy(make_evidence, real, books):
    spam = ["Buy cheap watches now and save money on every order that you make in our shop today. " * 9] * 20
    for mine in (real[150:180], real[150:160] + spam):
        verdict = screens.check(make_evidence(mine, canonical=real[:30], pack=books))
        assert verdict.outcome == "pass", verdict
        assert verdict.evidence["compared_chars"] > 0


def test_no_canonical_text_or_no_pack_compares_nothing(make_evidence, make_pack):
    mine = [text(1000 * i, 600) for i in range(20)]
    for evidence in (make_evidence(mine), make_evidence(mine, canonical=mine), make_evidence(mine, pack=make_pack([]))):
        verdict = screens.check(evidence)
        assert verdict.outcome == "pass" and verdict.evidence["compared_chars"] == 0
    assert screens.check(make_evidence([])).outcome == "pass"


def test_a_set_that_repeats_itself_fails(make_evidence):
    verdict = screens.check(make_evidence([text(0)] * 20))
    assert verdict.outcome == "fail" and "repeats" in verdict.reason


def test_a_sample_has_the_characters_that_were_asked_for(make_evidence):
    rows = make_evidence([text(100 * i) for i in range(50)]).rows
    assert sum(map(len, screens._sample(rows, b"1" * 32, 3000))) == 3000
    assert screens._sample(rows, b"1" * 32, 3000) == screens._sample(rows, b"1" * 32, 3000)
    assert len(screens._sample(rows, b"1" * 32, 10**9)) == 50


def test_bits_per_byte_prefers_what_the_model_knows(real):
    model = NgramModel(screens.stream_of(real[:20]))
    assert bits_per_byte(model, real[100:105]) < bits_per_byte(model, list(map(shuffled, real[100:105])))
