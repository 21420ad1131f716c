import gzip
import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from athena.cli import app
from athena.cli_evalpack import app as cli
from athena.errors import BadInput, Conflict, NotFound, TooLarge
from athena.evalpack import load_pack
from athena.judge.words import overlap_ngrams, words
from athena.packs import sources
from athena.packs.build import Plan, build_packs
from athena.packs.cloze import MIN_CONTEXT_WORDS, cloze_items
from athena.packs.passages import MAX_WORDS, MIN_WORDS, Fresh, passages, shared_runs
from athena.packs.sources import SourceText, domain_name, read_texts

VOCABULARY = [a + b for a in "abcdefghijklmnopqrstuvwxyz" for b in ("river", "stone", "letter")]
VOCABULARY += [f"{a}{b}ing" for a in "bdfglmnprst" for b in ("ark", "end", "old", "unt", "ell", "eam")]


def prose(seed, sentences=12):
    """Sentences of drawn words; every third ends with a word of the one before."""
    dice, last, made = random.Random(seed), "nothing", []
    for number in range(sentences):
        drawn = [dice.choice(VOCABULARY) for _ in range(dice.randint(7, 14))]
        ending = last if number % 3 == 2 else dice.choice(VOCABULARY)
        made.append(" ".join([drawn[0].capitalize(), *drawn[1:], ending]) + ".")
        last = drawn[3]
    return "\n\n".join(" ".join(made[start : start + 5]) for start in range(0, sentences, 5))


def texts_of(domains, each=36, sentences=12):
    return [
        SourceText(f"{domain}/{number}.txt", domain, prose(f"{domain} {number}", sentences))
        for domain in domains
        for number in range(each)
    ]


DOMAINS = ("code", "news", "wiki")
TEXTS = texts_of(DOMAINS)
PLAN = Plan(name="p", seed=b"seed", min_domains=3)


def bytes_of(*folders):
    return [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]


def source_of(document):
    return document.id.partition("#")[0]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    return build_packs(TEXTS, folder / "public", folder / "sealed", PLAN)


def test_same_texts_same_bytes_in_any_order(built, tmp_path):
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    again = build_packs(shuffled, tmp_path / "public", tmp_path / "sealed", PLAN)
    assert (again.public.hash, again.sealed.hash) == (built.public.hash, built.sealed.hash)
    assert load_pack(tmp_path / "public").hash == built.public.hash
    other = build_packs(TEXTS, tmp_path / "c", tmp_path / "d", Plan(name="p", seed=b"other", min_domains=3))
    assert other.public.hash != built.public.hash
    assert {source_of(d) for d in other.public.documents} != {source_of(d) for d in built.public.documents}


@settings(max_examples=6, deadline=None)
@given(seed=st.binary(max_size=8), quoted=st.lists(st.integers(0, 35), min_size=2, max_size=6, unique=True))
def test_halves_share_neither_texts_nor_thirteen_words(tmp_path_factory, seed, quoted):
    """Also where some texts quote each other, in another case and with other punctuation."""
    folder = tmp_path_factory.mktemp("halves")
    saying = " ".join(VOCABULARY[:14])
    texts = [
        SourceText(t.id, t.domain, f"{saying.title()}!\n\n{t.text}" if i in quoted else t.text)
        for i, t in enumerate(texts_of(("code", "news"), each=40, sentences=10))
    ]
    made = build_packs(texts, folder / "a", folder / "b", Plan(name="p", seed=seed, min_domains=2))
    assert made.refused["shares 13 words in a row"] == len(quoted) - 1
    seen = set()
    for document in (*made.public.documents, *made.sealed.documents):
        grams = set(overlap_ngrams(document.text))
        assert grams and seen.isdisjoint(grams)
        seen |= grams
    public, sealed = ({source_of(d) for d in half.documents} for half in (made.public, made.sealed))
    assert public.isdisjoint(sealed)
    assert shared_runs(made.public.texts(), made.sealed.texts()) == 0


def test_halves_are_alike(built):
    public, sealed = built.public, built.sealed
    assert public.info.domains == sealed.info.domains == DOMAINS
    for domain in DOMAINS:
        assert abs(len(public.by_domain[domain]) - len(sealed.by_domain[domain])) <= 1
        assert len(public.cloze_by_domain[domain]) > len(public.by_domain[domain])
    assert public.info.sealed == sealed.hash and sealed.info.half == "sealed"


def test_copies_and_scraps_are_refused(tmp_path):
    changed = [SourceText(f"copy-{t.id}", t.domain, t.text.replace("a", "o", 1)) for t in TEXTS[:5]]
    every_ninth = []
    for text in TEXTS[5:10]:
        tokens = text.text.split()
        tokens[::9] = [f"{token}x" for token in tokens[::9]]
        every_ninth.append(SourceText(f"edited-{text.id}", text.domain, " ".join(tokens)))
    scraps = [SourceText(f"scrap-{i}", "code", " ".join(VOCABULARY[: MIN_WORDS - 1])) for i in range(3)]
    made = build_packs([*TEXTS, *changed, *every_ninth, *scraps], tmp_path / "a", tmp_path / "b", PLAN)
    assert made.refused["near duplicate"] == 10
    assert made.refused["too short"] >= 3
    assert made.public.info.documents + made.sealed.info.documents == len(TEXTS)


def test_a_domain_with_too_few_documents_is_left_out(tmp_path):
    few = texts_of(("poems",), each=12)
    made = build_packs([*TEXTS, *few], tmp_path / "a", tmp_path / "b", PLAN)
    assert made.left_out == {"poems": 12} and made.public.info.domains == DOMAINS
    with pytest.raises(BadInput, match=r"poems \(12\)"):
        build_packs([*TEXTS, *few], tmp_path / "c", tmp_path / "d", Plan(name="p", seed=b"", min_domains=4))
    assert not (tmp_path / "c").exists() and not (tmp_path / "d").exists()


def test_one_long_text_neither_makes_a_domain_nor_crosses_the_halves(tmp_path):
    book = SourceText("book.txt", "books", prose("book", 2000))
    made = build_packs([*TEXTS, book], tmp_path / "a", tmp_path / "b", PLAN)
    assert made.left_out == {"books": 16}


def test_the_limit_on_documents_holds(tmp_path):
    made = build_packs(TEXTS, tmp_path / "a", tmp_path / "b", Plan("p", b"", min_domains=3, max_documents=16))
    sizes = [len(documents) for half in (made.public, made.sealed) for documents in half.by_domain.values()]
    assert sizes == [16] * 6


def test_a_pack_takes_no_text_of_those_that_it_follows(built, tmp_path):
    more = texts_of(("code", "news", "wiki"), each=72)
    later = Plan("p", b"seed", version=2, min_domains=3)
    made = build_packs(more, tmp_path / "a", tmp_path / "b", later, [built.public, built.sealed])
    assert {source_of(d) for half in (made.public, made.sealed) for d in half.documents}.isdisjoint(
        source_of(d) for half in (built.public, built.sealed) for d in half.documents
    )


def test_passages_hold_the_text_word_for_word():
    text = f"# Title\r\n\r\n{prose('a', 60)}\n\n\n\n\u201cQuoted.\u201d  And\ton\x00 without an end"
    pieces = list(passages(text))
    assert len(pieces) >= 3
    assert " ".join(pieces).split() == text.replace("\0", "").split()
    assert all(MIN_WORDS <= len(words(piece)) <= MAX_WORDS for piece in pieces[:-1])
    assert all(piece.endswith(".") for piece in pieces[:-1])
    assert list(passages("")) == list(passages(" \n\n ")) == []


def test_a_text_without_sentences_is_too_long():
    (piece,) = passages(" ".join(f"word{i}" for i in range(MAX_WORDS + 1)))
    assert Fresh().refuses(piece) == "too long"


@pytest.fixture(scope="module")
def items(built):
    return {document.id: document for document in built.public.documents}, built.public.cloze


def plain(text):
    return " ".join(text.split())


def test_the_right_choice_is_how_the_document_goes_on(items):
    documents, cloze = items
    kinds = {"next": 0, "last": 0}
    for item in cloze:
        identity, kind = item.id.rsplit(":", 1)
        document = documents[identity]
        kinds[kind] += 1
        assert item.domain == document.domain
        assert item.context + item.choices[item.answer] in plain(document.text)
        assert not any(
            item.context + choice in plain(document.text) for i, choice in enumerate(item.choices) if i != item.answer
        )
        assert len(item.choices) == 4 and len(item.context.split()) >= MIN_CONTEXT_WORDS
        if kind == "last":
            assert item.choices[item.answer].strip() in words(item.context)
    assert min(kinds.values()) > 0.6 * len(documents)


def test_neither_place_nor_length_tells_the_answer(items):
    _, cloze = items
    places = [item.answer for item in cloze]
    assert all(0.15 < places.count(place) / len(places) < 0.35 for place in range(4))
    sentences = [item for item in cloze if item.id.endswith(":next")]
    longest = sum(max(item.choices, key=len) == item.choices[item.answer] for item in sentences)
    assert 0.1 < longest / len(sentences) < 0.5


def test_items_do_not_depend_on_the_order_of_documents(built):
    documents = built.public.documents
    assert cloze_items(documents, b"s") == cloze_items(documents[::-1], b"s") != cloze_items(documents, b"t")


def test_domains_without_prose_have_no_items(built):
    listing = [d.model_copy(update={"text": "x = 1\n" * 80}) for d in built.public.by_domain["code"]]
    assert {item.domain for item in cloze_items([*listing, *built.public.by_domain["news"]], b"s")} == set()
    others = [*built.public.by_domain["news"], *built.public.by_domain["wiki"]]
    assert {item.domain for item in cloze_items([*listing, *others], b"s")} == {"news", "wiki"}


def test_domains_come_from_folders_fields_and_files(tmp_path):
    for path in ("Web News/a/1.txt", "Web News/2.md", "top.txt", "Web News/skip.pdf"):
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).write_text("\ufefftext", "utf-8")
    lines = [{"text": "one", "domain": "Code"}, {"text": "two", "label": 1}]
    body = "\n".join(map(json.dumps, lines)).encode()
    (tmp_path / "in" / "forum.jsonl.gz").write_bytes(gzip.compress(body, mtime=0))
    found = {text.id: (text.domain, text.text) for text in read_texts([tmp_path / "in"])}
    assert found == {
        "in/Web News/a/1.txt": ("web-news", "text"),
        "in/Web News/2.md": ("web-news", "text"),
        "in/top.txt": ("in", "text"),
        "in/forum.jsonl.gz:1": ("code", "one"),
        "in/forum.jsonl.gz:2": ("forum", "two"),
    }
    (alone,) = read_texts([tmp_path / "in" / "Web News" / "2.md"])
    assert (alone.id, alone.domain) == ("2.md", "web-news")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", b"\xff\xfe", BadInput),
        ("a.jsonl", b'{"text": "fine"}\n{"text": 1}\n', BadInput),
        ("a.jsonl", b"text", BadInput),
        ("a.jsonl", b'{"text": "x", "domain": "---"}', BadInput),
        ("a.jsonl.gz", b"no gzip", BadInput),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}', mtime=0)[:-9], BadInput),
        ("a.jsonl.gz", gzip.compress(b'{"text": "' + b"x" * 5000, mtime=0), TooLarge),
        ("a.txt", b"x" * 1001, TooLarge),
        ("a.pdf", b"", BadInput),
    ],
    ids=lambda value: None,
)
def test_files_that_are_no_texts_are_refused(tmp_path, monkeypatch, name, content, kind):
    monkeypatch.setattr(sources, "MAX_TEXT_BYTES", 1000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind):
        list(read_texts([tmp_path / name]))


def test_texts_over_the_whole_cap_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 1000)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("x" * 400)
    with pytest.raises(TooLarge):
        list(read_texts([tmp_path]))
    with pytest.raises(NotFound):
        list(read_texts([tmp_path / "nowhere"]))
    with pytest.raises(BadInput):
        domain_name("漢")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for text in texts_of(("code", "news"), sentences=10):
        (folder / text.domain).mkdir(exist_ok=True)
        (folder / text.id).write_text(text.text)
    return folder


def run(*arguments):
    return CliRunner().invoke(
        app, ["evalpack", *map(str, arguments)], env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    )


def test_packs_are_built_shown_and_verified(text_folder, tmp_path):
    out = tmp_path / "web-1"
    common = ("--min-domains", 2, "--seed", "x", "--expires", 100)
    result = run("build", text_folder, "--out", out, *common)
    assert result.exit_code == 0, result.output
    pack, sealed = load_pack(out), load_pack(tmp_path / "web-1-sealed")
    assert (pack.info.name, pack.info.expiry_block) == ("web-1", 100)
    assert pack.hash in result.output and sealed.hash in result.output and "news" in result.output
    assert isinstance(run("build", text_folder, "--out", out, *common).exception, Conflict)

    assert "quote no public one" in run("verify", out, "--sealed", tmp_path / "web-1-sealed").output
    assert isinstance(run("verify", out, "--sealed", out).exception, BadInput)
    (tmp_path / "web-1-sealed" / "documents.jsonl").write_bytes(b"")
    assert isinstance(run("verify", out, "--sealed", tmp_path / "web-1-sealed").exception, BadInput)
    assert sealed.hash in run("show", out).output


def test_the_next_pack_takes_over_where_the_last_one_ends(text_folder, tmp_path):
    shelf, more = tmp_path / "packs", tmp_path / "more"
    for text in texts_of(("code", "news"), each=72, sentences=10):
        (more / text.domain).mkdir(parents=True, exist_ok=True)
        (more / text.id).write_text(text.text)
    common = ("--min-domains", 2, "--sealed")
    first = ("build", text_folder, "--out", shelf / "1", "--name", "web", *common, tmp_path / "s1")
    second = ("build", more, "--out", shelf / "2", "--after", shelf / "1", *common, tmp_path / "s2")
    assert run(*first).exit_code == 0
    assert isinstance(run(*second).exception, BadInput)
    result = run(*second, "--active", 50)
    assert result.exit_code == 0, result.output
    info = load_pack(shelf / "2").info
    assert (info.name, info.version, info.activation_block) == ("web", 2, 50)
    shown = run("show", shelf, "--block", 50).output
    assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["no", "yes"]


def test_the_alarm_goes_off(tmp_path):
    def sheets(gain, pack):
        lines = []
        for number in range(5):
            effect = {"mean": gain + number / 1e5, "low": 0.0, "high": 0.0, "by_domain": {}}
            lines.append(json.dumps({
                "task_id": f"{number:032x}", "hotkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
                "dataset": {"location": "file:org/data", "revision": "a" * 40, "root": "b" * 64}, "rule_version": "1",
                "validator": "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", "eval_pack": pack * 64,
                "issued_block": 1, "commit_block": 2, "seed_block": 3, "outcome": "pass", "gates": [], "effect": effect,
            }))  # fmt: skip
        path = tmp_path / f"{gain}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        return path

    assert run("alarm", sheets(0.01, "a"), sheets(0.0100001, "b")).exit_code == 0
    result = run("alarm", sheets(0.02, "a"), sheets(0.01, "b"))
    assert result.exit_code == 1 and "to be retired" in result.output
    (tmp_path / "none").write_text("{}\n")
    assert isinstance(run("alarm", tmp_path / "none", tmp_path / "none").exception, BadInput)


def test_the_guides_use_commands_and_options_that_exist():
    root = Path(__file__).parents[1]
    guides = (root / "docs" / "evaluation.md").read_text("utf-8") + (root / "README.md").read_text("utf-8")
    lines = re.findall(r"athena evalpack (\w+)([^\n`]*)", guides)
    assert {command for command, _ in lines} == {command.callback.__name__ for command in cli.registered_commands}
    for command, rest in lines:
        shown = run(command, "--help").output
        assert all(option in shown for option in re.findall(r"--[\w-]+", rest)), (command, rest)
