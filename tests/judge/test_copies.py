"""Copies are told by what no public recipe explains; honest work agrees in the rest, and is never taken for one."""

import dataclasses
import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.crawl import open_crawl
from athena.errors import Unavailable
from athena.judge.agreement import Page, agreement, kappa, likeness, shingles
from athena.judge.evidence import Rival, Rows, noting_undecided
from athena.judge.gates import copies
from athena.judge.public_work import PublicWork, public_work
from athena.judge.rules import rules_of
from athena.protocol import Shard, Task
from athena.refine.manifest import ROW_SCHEMA
from athena.refine.recipe import Document, load_recipe
from athena.refine.records import read_records

FIRST, SECOND = "a.warc.gz", "b.warc.gz"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
NUM_PAGES = 120


def rows(texts, path=FIRST, tokens=1):
    """Rows of one WARC file: the text of each record's offset."""
    made = [
        {
            "text": text, "url": f"http://site{offset}.example/", "date": "2026-01-01T00:00:00Z", "language": "en",
            "language_score": 0.9, "token_count": tokens, "warc_path": path, "warc_offset": offset, "warc_length": 1,
            "record_id": f"<urn:uuid:{offset}>", "payload_digest": "sha1:A", "minhash": None,
        }
        for offset, text in sorted(texts.items())
    ]  # fmt: skip
    return Rows(pa.Table.from_pylist(made, schema=ROW_SCHEMA))


def line(dice, kind):
    return f"{kind} " + " ".join(f"word{dice.randrange(3000)}" for _ in range(12))


def page(number):
    """Lines of a page: a menu, text, a note below each paragraph, and a list that only some extractors keep."""
    dice = random.Random(number)
    paragraphs = [found for _ in range(6) for found in (line(dice, "text"), line(dice, "note"))]
    return [line(dice, "menu"), *paragraphs, line(dice, "list"), line(dice, "footer")]


PAGES = {offset: page(offset) for offset in range(NUM_PAGES)}


def recipe(kinds, keeps=lambda offset: True):
    return {
        offset: "\n".join(found for found in lines if found.split()[0] in kinds)
        for offset, lines in PAGES.items()
        if keeps(offset)
    }


def some(share, seed, base=0.0):
    """A filter that keeps `share` of the pages by its own taste, beside `base` that every filter drops."""
    bad = random.Random("bad").sample(range(NUM_PAGES), int(base * NUM_PAGES))
    dice = random.Random(seed)
    taste = {offset for offset in PAGES if dice.random() < share}
    return lambda offset: offset in taste and offset not in bad


EXTRACTIONS = ({"text", "note"}, {"text", "note", "menu", "list", "footer"})
EXTRACTED = tuple(recipe(kinds) for kinds in EXTRACTIONS)
CANONICAL = recipe({"text", "note"}, some(0.9, "canonical"))
LENIENT = recipe({"text", "note"}, some(1.0, "lenient"))
PRIVATE = recipe({"text", "list"}, some(0.8, "alice"))  # notes go, lists stay, and so do pages that canonical drops
FILTERED = recipe({"text", "note"}, some(0.6, "filter"))


@pytest.fixture
def judge(make_evidence):
    """The gate's verdict on rows by record, with bob's earlier rows, and public recipes beside the canonical one."""

    def judge(mine, theirs, *, canonical=CANONICAL, public=(), rival_block=5, **changes):
        evidence = make_evidence([])
        rival = Rival(Path("bob"), BOB, rival_block, "0" * 32)

        def public_work(_, places):
            return [
                PublicWork(tuple(made[offset] for made in EXTRACTED), tuple(offset in made for made in public))
                for offset, _ in places
            ]

        fields = {
            "case": evidence.case.model_copy(update={"rivals": (rival,)}), "rows": rows(mine),
            "refined": lambda _: rows(canonical), "rival_rows": lambda _: rows(theirs), "public_work": public_work,
        }  # fmt: skip
        return copies.check(dataclasses.replace(evidence, **{**fields, **changes}))

    return judge


def shares(verdict):
    [found] = verdict.evidence["rivals"].values()
    return found


def away(*_):
    raise Unavailable("the crawl is away")


@pytest.mark.parametrize("taken", [PRIVATE, FILTERED], ids=["texts", "decisions"])
def test_a_copy_of_a_private_recipes_rows_fails(judge, taken):
    verdict = judge(taken, taken)
    assert verdict.outcome == "fail" and verdict.evidence["rival"] == BOB
    assert verdict.evidence["equal_rows"] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_an_edited_copy_fails(judge, seed):
    """A tenth of the rows left out, and of a tenth of those that stay the first half."""
    dice = random.Random(seed)
    kept = {offset: text for offset, text in PRIVATE.items() if dice.random() < 0.9}
    short = {offset: text[len(text) // 2 :] for offset, text in kept.items() if dice.random() < 0.1}
    assert judge({**kept, **short}, PRIVATE).outcome == "fail"


def test_copied_decisions_with_some_rows_less_fail(judge):
    fewer = dict(list(FILTERED.items())[2:])
    verdict = judge(fewer, FILTERED)
    assert verdict.outcome == "fail" and verdict.evidence["texts"] == 0.0


def test_a_copy_of_half_of_the_rows_with_public_work_beside_fails(judge):
    half = {offset: text for offset, text in PRIVATE.items() if offset < NUM_PAGES // 2}
    half |= {offset: text for offset, text in CANONICAL.items() if offset >= NUM_PAGES // 2}
    assert judge(half, PRIVATE).outcome == "fail"


@pytest.mark.parametrize("made", [CANONICAL, LENIENT, recipe(EXTRACTIONS[1])], ids=["canonical", "lenient", "all-text"])
def test_equal_rows_of_a_public_recipe_are_honest_work(judge, made):
    verdict = judge(made, made, public=(LENIENT, recipe(EXTRACTIONS[1])))
    assert verdict.outcome == "pass"
    assert shares(verdict) == {"equal_rows": 1.0, "texts": 0.0, "decisions": 0.0}


def test_a_public_recipe_with_filters_of_ones_own_is_no_copy_of_the_recipe(judge):
    """Both are far from canonical work, and nearly all of their rows are equal."""
    lax = recipe(EXTRACTIONS[1])
    own = dict(list(lax.items())[7:])
    assert judge(own, lax, canonical=FILTERED, public=(lax,)).outcome == "pass"
    assert judge(own, lax, canonical=FILTERED).outcome == "fail"  # where nobody knows the recipe, it is alike


def test_public_recipes_beside_the_canonical_one_are_run_only_on_suspicion(judge):
    assert judge(CANONICAL, CANONICAL, public_work=away).outcome == "pass"
    with pytest.raises(Unavailable):
        judge(PRIVATE, PRIVATE, public_work=away)


@pytest.mark.parametrize("base", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("seeds", list(itertools.combinations(range(5), 2)))
def test_two_honest_recipes_that_drop_the_same_bad_pages_pass(judge, base, seeds):
    first, second = (recipe({"text", "note"}, some(0.7, seed, base)) for seed in seeds)
    assert judge(first, second, canonical=recipe({"text", "note"})).outcome == "pass"


def test_a_stricter_filter_of_the_same_kind_is_no_copy(judge):
    """What the earlier set drops, the later one drops too, and some more."""
    order = random.Random("scores").sample(range(NUM_PAGES), NUM_PAGES)
    lax, strict = ({offset: LENIENT[offset] for offset in order[:kept]} for kept in (90, 70))
    assert judge(strict, lax, canonical=LENIENT).outcome == judge(lax, strict, canonical=LENIENT).outcome == "pass"


def test_an_honest_extractor_may_differ_from_public_ones_on_each_page(judge):
    own = recipe({"text"}, some(0.8, "own"))
    verdict = judge(own, PRIVATE)
    assert verdict.outcome == "pass" and shares(verdict)["texts"] == 0.0


def test_hardly_any_departures_say_nothing(judge):
    nearly = dict(list(CANONICAL.items())[3:])
    assert judge(nearly, nearly).outcome == "pass"


def test_a_rival_that_kept_next_to_nothing_makes_no_copies(judge):
    """It dropped whatever anybody dropped."""
    assert judge(PRIVATE, dict(list(LENIENT.items())[:1])).outcome == "pass"


def test_what_could_not_be_read_before_is_not_looked_at(judge):
    verdict = judge(PRIVATE, PRIVATE, rival_block=10)
    assert verdict.outcome == "pass" and verdict.evidence["rivals"] == {}


def test_rows_of_other_files_are_no_rivals(judge):
    verdict = judge(PRIVATE, {}, rival_rows=lambda _: rows(PRIVATE, SECOND))
    assert verdict.outcome == "pass" and verdict.evidence["rivals"] == {}


def test_without_rivals_nothing_is_refined(make_evidence):
    assert copies.check(dataclasses.replace(make_evidence(["a text"]), refined=away)).outcome == "pass"


def test_records_that_this_validator_could_not_decide_do_not_count(judge):
    half = rows({offset: text for offset, text in LENIENT.items() if offset % 2})
    undecided = Rows(noting_undecided(half.table, [offset for offset in PAGES if offset % 2 == 0]))
    assert judge(LENIENT, LENIENT, refined=lambda _: half).outcome == "fail"
    assert judge(LENIENT, LENIENT, refined=lambda _: undecided).outcome == "pass"


def test_records_that_a_rival_made_up_do_not_count(judge):
    """They agree with nothing, and nobody can say what public work makes of them."""
    invented = {1000 + offset: text for offset, text in PRIVATE.items()}

    def public_work(_, places):
        return [PublicWork((), ()) if offset < NUM_PAGES else None for offset, _ in places]

    assert judge(PRIVATE, {**PRIVATE, **invented}, public_work=public_work).outcome == "fail"


def test_near_duplicates_across_files_that_both_drop_are_the_recipes_doing(judge, make_evidence):
    """The canonical recipe on one file alone keeps what it drops from a shard, because an earlier file has it."""
    task = Task(shard=Shard(crawl="LOCAL-files", warc_paths=(FIRST, SECOND)), rule_version="1", opened_block=1)
    twins = {offset: text for offset, text in CANONICAL.items() if offset % 3 == 0}
    rest = {offset: text for offset, text in CANONICAL.items() if offset % 3}

    def judged(first):
        mine = Rows(pa.concat_tables([rows(first).table, rows(rest, SECOND).table]))
        return judge(
            {}, {}, rows=mine, rival_rows=lambda _: mine,
            case=make_evidence([]).case.model_copy(
                update={"task": task, "rivals": (Rival(Path("bob"), BOB, 5, task.id),)}
            ),
            refined=lambda path: rows(CANONICAL if path == SECOND else {}, path, tokens=10**6),
        )  # fmt: skip

    assert judged(twins).outcome == "pass"
    assert judged({}).outcome == "fail"


@pytest.fixture
def found(make_evidence):
    def make(**changes):
        return make_evidence([]).case.model_copy(update=changes)

    return make


@pytest.mark.parametrize(
    ("earlier", "later", "may_copy"),
    [
        ({"commit_block": 10, "visible_block": 10}, {"commit_block": 11}, True),  # plain: open at once
        ({"commit_block": 10}, {"commit_block": 11}, True),
        ({"commit_block": 10}, {"commit_block": 10}, False),
        ({"commit_block": 10, "visible_block": 100}, {"commit_block": 50}, False),  # sealed until block 100
        ({"commit_block": 10, "visible_block": 100}, {"commit_block": 100}, False),
        ({"commit_block": 10, "visible_block": 100}, {"commit_block": 101}, True),
        ({"commit_block": 50}, {"commit_block": 10, "visible_block": 100}, False),
    ],
)
def test_only_what_lay_open_may_have_been_copied(found, earlier, later, may_copy):
    commitment = found().commitment.model_copy(update={"hotkey": BOB})
    assert found(**later).may_copy(found(commitment=commitment, **earlier)) is may_copy


def test_nobody_copies_oneself_nor_other_files(found):
    other = found().commitment.model_copy(update={"hotkey": BOB})
    task = Task(shard=Shard(crawl="LOCAL-files", warc_paths=(SECOND,)), rule_version="1", opened_block=1)
    assert not found(commit_block=20).may_copy(found(commit_block=1))
    assert not found(commit_block=20).may_copy(found(commit_block=1, commitment=other, task=task))
    assert found(commit_block=20).may_copy(found(commit_block=1, commitment=other))


PIECES = ("one two three four five six", "seven eight nine ten eleven", "twelve thirteen fourteen", "fifteen")
TEXTS = st.none() | st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("\n".join)
WORKS = st.lists(
    st.tuples(
        st.builds(Page, st.integers(0, 99), st.just(1), TEXTS, TEXTS, TEXTS),
        st.builds(PublicWork, st.just(()), st.tuples(st.booleans(), st.booleans())),
    ),
    max_size=12,
)


@given(works=WORKS, at_least=st.integers(1, 4))
def test_agreements_are_shares(works, at_least):
    found = agreement(works, at_least)
    assert 0.0 <= found.texts <= 1.0 and 0.0 <= found.equal_rows <= 1.0 and -1.0 <= found.decisions <= 1.0


@given(works=WORKS)
def test_a_rival_that_did_public_work_lent_nothing(works):
    honest = [(dataclasses.replace(page, theirs=page.canonical), work) for page, work in works]
    found = agreement(honest, 1)
    assert found.texts == 0.0 and found.decisions <= 1e-9


@pytest.mark.full
def test_public_recipes_rows_are_public_work(test_data):
    """Filters take lines out of what extractors find: the very texts that recipes make count as public."""
    folder = test_data / "extraction" / "scrapinghub"
    with (folder / "pages.warc.gz").open("rb") as file:
        records = list(itertools.islice(read_records(file, "pages.warc.gz"), 24))
    recipes = [load_recipe(name) for name in ("fineweb-1", *rules_of("1").gates.public_recipes)]
    places = [(record.offset, record.length) for record in records]
    works = public_work(open_crawl(folder.as_uri()), "pages.warc.gz", [*places, (1, 10)], recipes)
    assert works.pop() is None
    kept = 0
    for record, work in zip(records, works, strict=True):
        made = [recipe.process(record) for recipe in recipes]
        assert work.kept == tuple(isinstance(document, Document) for document in made)
        for document in (document for document in made if isinstance(document, Document)):
            found = shingles(document.row["text"])
            assert max(likeness(found, shingles(text)) for text in work.texts) > 0.95
            kept += 1
    assert kept > len(records)


def test_kappa_is_cohens():
    """The example of his paper's kind: 45 and 15 of 70 alike, 25 and 15 of 100 not."""
    first = np.repeat([True, True, False, False], [45, 15, 25, 15])
    second = np.repeat([True, False, True, False], [45, 15, 25, 15])
    assert kappa(first, second) == pytest.approx((0.60 - 0.54) / (1 - 0.54))
    assert kappa(first, first) == pytest.approx(1.0) and kappa(first, ~first) < 0
    assert kappa(np.ones(5, dtype=bool), np.ones(5, dtype=bool)) == kappa(first[:0], first[:0]) == 0.0
