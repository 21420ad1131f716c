import hashlib
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.judge.words import overlap_ngrams
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import DatasetRef
from athena.train.mixture import (
    AcceptedDataset,
    Candidate,
    MixtureRules,
    allocate,
    candidates,
    canonical_order,
    deduplicate,
    mix,
)

MINERS = ("alice", "bob", "carol")
PLENTY = MixtureRules(max_tokens=10**9, max_miner_share=1.0)


def document(miner, text, offset=0, tokens=10, bands=(), dataset=0, row=0):
    return Candidate(
        dataset=dataset,
        row=row,
        hotkey=miner,
        warc_path="a.warc.gz",
        offset=offset,
        tokens=tokens,
        text_hash=hashlib.sha256(str(text).encode()).digest()[:16],
        bands=bands,
    )


@st.composite
def corpora(draw):
    """Documents of up to three miners; a text has the same tokens and bands whoever supplies it."""
    found = []
    for number, (miner, text) in enumerate(draw(st.lists(st.tuples(st.sampled_from(MINERS), st.integers(0, 30))))):
        bands = (text % 7,) if text % 3 == 0 else ()
        found.append(
            document(miner, text, offset=number, tokens=1 + text * 7 % 40, bands=bands, dataset=number % 2, row=number)
        )
    return found


incentives_of = st.fixed_dictionaries({miner: st.sampled_from([0.0, 0.1, 0.5, 2.0]) for miner in MINERS})


@given(corpora(), incentives_of, st.integers(1, 400), st.sampled_from([0.2, 0.5, 1.0]), st.randoms())
def test_the_order_of_arrival_does_not_matter(corpus, incentives, max_tokens, share, shuffler: random.Random):
    rules = MixtureRules(max_tokens=max_tokens, max_miner_share=share)
    shuffled = list(corpus)
    shuffler.shuffle(shuffled)
    assert mix(corpus, incentives, rules) == mix(shuffled, incentives, rules)


@given(corpora(), incentives_of, st.integers(1, 400), st.sampled_from([0.2, 0.5, 1.0]))
def test_a_mixture_keeps_its_rules(corpus, incentives, max_tokens, share):
    mixture = mix(corpus, incentives, MixtureRules(max_tokens=max_tokens, max_miner_share=share))
    by_row = {(d.dataset, d.row): d for d in corpus}
    chosen = [by_row[dataset, row] for dataset, rows in mixture.rows.items() for row in rows]
    texts = Counter(d.text_hash for d in chosen)
    bands = Counter(band for d in chosen for band in d.bands)
    assert all(count == 1 for count in (*texts.values(), *bands.values()))
    tokens = Counter(dict.fromkeys(mixture.tokens_by_hotkey, 0))
    for d in chosen:
        assert incentives[d.hotkey] > 0
        tokens[d.hotkey] += d.tokens
    assert dict(tokens) == mixture.tokens_by_hotkey
    assert tokens.total() <= max_tokens
    suppliers = len({d.hotkey for d in corpus if incentives[d.hotkey] > 0})
    limit = max(share, 1 / max(1, suppliers))
    unfilled = 40 * suppliers  # a share is filled up to its next document, which has at most 40 tokens
    assert all(count <= limit * (tokens.total() + unfilled) + 1 for count in tokens.values())


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.floats(0.01, 10)), min_size=1, max_size=6),
    st.integers(1, 4000),
    st.floats(0.05, 1.0),
)
def test_allocation_is_the_largest_within_share_and_budget(miners, budget, share):
    available = {str(i): tokens for i, (tokens, _) in enumerate(miners)}
    weights = {str(i): weight for i, (_, weight) in enumerate(miners)}
    share = max(share, 1 / len(miners))
    given_tokens = allocate(available, weights, budget, share)
    total = sum(given_tokens.values()) + len(miners)  # each is rounded down
    assert sum(given_tokens.values()) <= budget
    assert all(given_tokens[m] <= min(available[m], share * total + 1) for m in available)
    more = total + 2
    assert more > budget or sum(min(tokens, share * more) for tokens in available.values()) < more


def test_a_budget_is_split_by_incentive():
    available = {"alice": 1000, "bob": 1000, "carol": 10}
    assert allocate(available, {"alice": 3, "bob": 1, "carol": 1}, 100, 1.0) == {"alice": 67, "bob": 22, "carol": 10}


def test_the_better_paid_miner_is_credited_then_the_smaller_offset():
    incentives = {"alice": 0.2, "bob": 0.8}
    corpus = [document("alice", "t", 1), document("bob", "t", 9, row=1), document("bob", "t", 5, row=2)]
    dropped: Counter[str] = Counter()
    [group] = deduplicate(corpus, incentives, dropped)
    assert [(d.hotkey, d.offset) for d in group] == [("bob", 5), ("alice", 1)]
    assert dropped == {"duplicate": 2}


def test_near_duplicates_leave_one():
    corpus = [document("alice", "a", 1, bands=(7, 8)), document("alice", "b", 2, bands=(8, 9), row=1)]
    mixture = mix(corpus, {"alice": 1.0}, PLENTY)
    assert mixture.rows == {0: [0]}
    assert mixture.dropped == {"near duplicate": 1}


def test_copies_fill_the_next_suppliers_share_before_anything_is_dropped():
    shared = [document(m, t, t, dataset=i, row=t) for t in range(8) for i, m in enumerate(("alice", "bob"))]
    only_alice = [document("alice", t, t, row=t) for t in range(8, 12)]
    mixture = mix(shared + only_alice, {"alice": 0.9, "bob": 0.1}, replace_share(0.5))
    assert mixture.tokens_by_hotkey == {"alice": 60, "bob": 60}
    assert mixture.dropped == {"duplicate": 8}


def replace_share(share):
    return PLENTY.model_copy(update={"max_miner_share": share})


def test_another_seed_draws_other_documents():
    corpus = [document("alice", t, t, row=t) for t in range(40)]
    rows = {seed: mix(corpus, {"alice": 1.0}, MixtureRules(seed=seed, max_tokens=100)).rows[0] for seed in (1, 2)}
    assert len(rows[1]) == len(rows[2]) == 10
    assert rows[1] != rows[2]


def row(text, offset, **fields):
    place = {"url": f"https://site.example/{offset}", "warc_path": "a", "warc_offset": offset, "token_count": 5}
    return {"text": text, **place, **fields}


def test_documents_of_domains_that_opted_out_are_left_out():
    rows = [row("one", 1), row("two", 2, url="https://www.gone.example/2"), row("three", 3)]
    dropped: Counter[str] = Counter()
    excluded = LeftOut(frozenset({"gone.example"}))
    assert [d.row for d in candidates(0, "alice", rows, frozenset(), excluded, dropped)] == [0, 2]
    assert dropped == {"opted out": 1}


def test_documents_that_hold_a_test_are_left_out():
    held_out = "the quick brown fox jumps over the lazy dog and then runs away from here"
    rows = [row(f"before. THE quick {held_out[9:]} after", 1), row("nothing of the kind", 2)]
    dropped: Counter[str] = Counter()
    found = list(candidates(0, "alice", rows, frozenset(overlap_ngrams(held_out)), NOTHING_LEFT_OUT, dropped))
    assert [d.row for d in found] == [1]
    assert dropped == {"contaminated": 1}


def test_bands_come_from_the_signature():
    signature = np.arange(112, dtype=np.uint64)
    changed = signature.copy()
    changed[8:] += 1  # all bands but the first
    rows = [row(str(i), i, minhash=s) for i, s in enumerate((signature, changed, None))]
    first, second, third = candidates(0, "alice", rows, frozenset(), NOTHING_LEFT_OUT, Counter())
    assert set(first.bands) & set(second.bands) == {first.bands[0]}
    assert len(set(first.bands)) == 14
    assert third.bands == ()


def test_unpaid_miners_are_left_out():
    assert mix([document("alice", "t")], {"alice": 0.0}, PLENTY).rows == {}
    assert mix([], {}, PLENTY).tokens_by_hotkey == {}


def test_canonical_order_has_each_dataset_once():
    ref = DatasetRef(location="file:a/b", revision="0" * 40, root="0" * 64)
    keys = ["5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"]
    one, two = (
        AcceptedDataset(hotkey=k, task_id="0" * 32, dataset=ref, incentive=i)
        for k, i in zip(keys, (0.1, 0.9), strict=True)
    )
    assert canonical_order([one, two, one]) == [two, one]


@pytest.mark.parametrize("field", ["dataset", "row"])
def test_ties_are_broken_to_the_last(field):
    first = document("alice", "t")
    second = replace(first, **{field: 1})
    for order in ([first, second], [second, first]):
        [group] = deduplicate(order, {"alice": 1.0}, Counter())
        assert group == (first,)
