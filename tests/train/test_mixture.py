import hashlib
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athena.errors import BadInput
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import DatasetRef
from athena.train.mixing import CandidateTable
from athena.train.mixture import (
    AcceptedDataset,
    Candidate,
    HeldOut,
    MixtureRules,
    allocate,
    candidates,
    canonical_order,
    crawl_of,
)

MINERS = ("alice", "bob", "carol")
PLENTY = MixtureRules(max_tokens=10**9, max_miner_share=1.0)


NOTHING_HELD_OUT = HeldOut([])


def mix(corpus, incentives, rules, trained=()):
    """The mixture, and the chosen rows by dataset."""
    with CandidateTable() as table:
        table.add(0, corpus, Counter())
        mixture = table.mix(incentives, rules, trained)
        return mixture, {dataset: list(table.rows(dataset)) for dataset in mixture.tokens_by_dataset}


def document(miner, text, offset=0, tokens=10, bands=(), dataset=0, row=0, warc_path="a.warc.gz"):
    return Candidate(
        dataset=dataset,
        row=row,
        hotkey=miner,
        warc_path=warc_path,
        offset=offset,
        tokens=tokens,
        language="en",
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


@settings(max_examples=40)
@given(corpora(), incentives_of, st.integers(1, 400), st.sampled_from([0.2, 0.5, 1.0]), st.randoms())
def test_the_order_of_arrival_does_not_matter(corpus, incentives, max_tokens, share, shuffler: random.Random):
    rules = MixtureRules(max_tokens=max_tokens, max_miner_share=share)
    shuffled = list(corpus)
    shuffler.shuffle(shuffled)
    assert mix(corpus, incentives, rules) == mix(shuffled, incentives, rules)


@settings(max_examples=40)
@given(corpora(), incentives_of, st.integers(1, 400), st.sampled_from([0.2, 0.5, 1.0]))
def test_a_mixture_keeps_its_rules(corpus, incentives, max_tokens, share):
    mixture, rows = mix(corpus, incentives, MixtureRules(max_tokens=max_tokens, max_miner_share=share))
    by_row = {(d.dataset, d.row): d for d in corpus}
    chosen = [by_row[dataset, row] for dataset, chosen_rows in rows.items() for row in chosen_rows]
    texts = Counter(d.text_hash for d in chosen)
    bands = Counter(band for d in chosen for band in d.bands)
    assert all(count == 1 for count in (*texts.values(), *bands.values()))
    tokens: Counter[str] = Counter()
    for d in chosen:
        assert incentives[d.hotkey] > 0
        tokens[d.hotkey] += d.tokens
    assert dict(tokens) == mixture.tokens_by_hotkey
    assert len(chosen) + mixture.dropped.total() == sum(incentives[d.hotkey] > 0 for d in corpus)
    for counts in (mixture.tokens_by_dataset, mixture.tokens_by_crawl, mixture.tokens_by_language):
        assert sum(counts.values()) == tokens.total()
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


def greedy(corpus, incentives):
    """The rule of deduplication by itself, in memory: the documents that stand for a text, and what was dropped."""
    taken, bands, dropped = {}, set(), Counter()
    paid = [d for d in corpus if incentives[d.hotkey] > 0]
    for d in sorted(paid, key=lambda d: (-incentives[d.hotkey], d.warc_path, d.offset, d.hotkey, d.dataset, d.row)):
        if d.text_hash in taken:
            dropped["duplicate"] += 1
        elif not bands.isdisjoint(d.bands):
            dropped["near duplicate"] += 1
        else:
            taken[d.text_hash] = d
            bands.update(d.bands)
    return taken, dropped


@st.composite
def signed_otherwise(draw):
    """Documents whose bands do not follow from their texts, as of recipes that edit a text after signing it."""
    numbers = st.tuples(st.sampled_from(MINERS), st.integers(0, 6), st.sets(st.integers(0, 5), max_size=3))
    return [
        document(miner, text, offset=i, bands=tuple(bands), row=i)
        for i, (miner, text, bands) in enumerate(draw(st.lists(numbers, max_size=14)))
    ]


@settings(max_examples=40)
@given(signed_otherwise(), incentives_of)
def test_what_is_kept_on_disk_is_what_the_rule_keeps(corpus, incentives):
    taken, dropped = greedy(corpus, incentives)
    mixture, rows = mix(corpus, incentives, PLENTY)
    by_row = {d.row: d for d in corpus}
    assert {by_row[row].text_hash for row in rows.get(0, [])} == taken.keys()
    assert mixture.dropped == dropped


def test_the_better_paid_miner_is_credited_then_the_smaller_offset():
    incentives = {"alice": 0.2, "bob": 0.8}
    corpus = [document("alice", "t", 1), document("bob", "t", 9, row=1), document("bob", "t", 5, row=2)]
    mixture, rows = mix(corpus, incentives, PLENTY)
    assert rows == {0: [2]}
    assert mixture.dropped == {"duplicate": 2}


def test_near_duplicates_leave_one():
    corpus = [document("alice", "a", 1, bands=(7, 8)), document("alice", "b", 2, bands=(8, 9), row=1)]
    mixture, rows = mix(corpus, {"alice": 1.0}, PLENTY)
    assert rows == {0: [0]}
    assert mixture.dropped == {"near duplicate": 1}


def test_copies_fill_the_next_suppliers_share_before_anything_is_dropped():
    shared = [document(m, t, t, dataset=i, row=t) for t in range(8) for i, m in enumerate(("alice", "bob"))]
    only_alice = [document("alice", t, t, row=t) for t in range(8, 12)]
    mixture, _ = mix(shared + only_alice, {"alice": 0.9, "bob": 0.1}, replace_share(0.5))
    assert mixture.tokens_by_hotkey == {"alice": 60, "bob": 60}
    assert mixture.dropped == {"duplicate": 8}


def replace_share(share):
    return PLENTY.model_copy(update={"max_miner_share": share})


def test_another_seed_draws_other_documents():
    corpus = [document("alice", t, t, row=t) for t in range(40)]
    rows = {seed: mix(corpus, {"alice": 1.0}, MixtureRules(seed=seed, max_tokens=100))[1][0] for seed in (1, 2)}
    assert len(rows[1]) == len(rows[2]) == 10
    assert rows[1] != rows[2]


def row(text, offset, **fields):
    place = {"url": f"https://site.example/{offset}", "warc_path": "a", "warc_offset": offset, "token_count": 5}
    return {"text": text, "language": "en", **place, **fields}


def test_documents_of_domains_that_opted_out_are_left_out():
    rows = [row("one", 1), row("two", 2, url="https://www.gone.example/2"), row("three", 3)]
    dropped: Counter[str] = Counter()
    excluded = LeftOut(frozenset({"gone.example"}))
    assert [d.row for d in candidates(0, "alice", rows, NOTHING_HELD_OUT, excluded, dropped)] == [0, 2]
    assert dropped == {"opted out": 1}


def test_documents_that_hold_a_test_are_left_out():
    held_out = "the quick brown fox jumps over the lazy dog and then runs away from here"
    rows = [row(f"before. THE quick {held_out[9:]} after", 1), row("nothing of the kind", 2)]
    dropped: Counter[str] = Counter()
    found = list(candidates(0, "alice", rows, HeldOut([held_out]), NOTHING_LEFT_OUT, dropped))
    assert [d.row for d in found] == [1]
    assert dropped == {"contaminated": 1}


def test_bands_come_from_the_signature():
    signature = np.arange(112, dtype=np.uint64)
    changed = signature.copy()
    changed[8:] += 1  # all bands but the first
    rows = [row(str(i), i, minhash=s) for i, s in enumerate((signature, changed, None))]
    first, second, third = candidates(0, "alice", rows, NOTHING_HELD_OUT, NOTHING_LEFT_OUT, Counter())
    assert set(first.bands) & set(second.bands) == {first.bands[0]}
    assert len(set(first.bands)) == 14
    assert third.bands == ()


def test_a_language_of_no_usual_form_is_other():
    rows = [row(name, i, language=name) for i, name in enumerate(("en", "zho_Hans", "\x1b[31m", "x" * 8000))]
    found = candidates(0, "alice", rows, NOTHING_HELD_OUT, NOTHING_LEFT_OUT, Counter())
    assert [d.language for d in found] == ["en", "zho_Hans", "other", "other"]


def test_unpaid_miners_are_left_out():
    assert mix([document("alice", "t")], {"alice": 0.0}, PLENTY)[1] == {}
    assert mix([], {}, PLENTY)[0].tokens_by_hotkey == {}


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
        assert mix(order, {"alice": 1.0}, PLENTY)[1] == {0: [0]}


def test_weights_of_miners_take_the_place_of_incentives():
    corpus = [document(m, (m, t), t, dataset=i, row=t) for t in range(40) for i, m in enumerate(MINERS)]
    rules = MixtureRules(max_tokens=400, max_miner_share=1.0, weights={"alice": 3, "bob": 1})
    mixture, _ = mix(corpus, dict.fromkeys(MINERS, 1.0), rules)
    assert mixture.tokens_by_hotkey == {"alice": 300, "bob": 100}
    assert mixture.dropped == {"over share": 80}


def test_weights_of_crawls_hold_within_the_miners_shares():
    crawls = ("CC-MAIN-2026-39", "CC-MAIN-2026-43")
    corpus = [
        document(m, (m, t), t, dataset=i, row=t, warc_path=f"crawl-data/{crawls[t % 2]}/a.warc.gz")
        for t in range(40)
        for i, m in enumerate(("alice", "bob"))
    ]
    weights = {crawls[0]: 1.0, crawls[1]: 3.0}
    rules = MixtureRules(max_tokens=400, max_miner_share=0.5, weighed_by="crawl", weights=weights)
    mixture, _ = mix(corpus, {"alice": 1.0, "bob": 1.0}, rules)
    assert mixture.tokens_by_crawl == {crawls[0]: 100, crawls[1]: 300}
    assert max(mixture.tokens_by_hotkey.values()) <= 200
    with pytest.raises(ValueError, match="positive weight"):
        MixtureRules(max_tokens=1, weights={"alice": 0.0})


@pytest.mark.parametrize(
    ("path", "crawl"),
    [
        ("crawl-data/CC-MAIN-2026-43/segments/1.2/warc/a.warc.gz", "CC-MAIN-2026-43"),
        ("crawl-data/CC-NEWS/2026/10/CC-NEWS-20261001.warc.gz", "CC-NEWS-2026-10"),
        ("books/moby.warc.gz", "books"),
        ("\x1b[31m/moby.warc.gz", "other"),
        ("x" * 8000, "other"),
    ],
)
def test_a_path_tells_its_crawl(path, crawl):
    assert crawl_of(path) == crawl


def test_what_was_trained_on_before_is_not_taken_again_nor_what_is_nearly_the_same():
    bands = {"new": (1, 2), "old": (3, 4), "edited": (4, 5), "other": (5, 6), "signed anew": (7,)}
    corpus = [document("alice", name, offset=i, row=i, bands=signed) for i, (name, signed) in enumerate(bands.items())]
    corpus.append(document("bob", "old", row=9, bands=(8,)))
    signed = np.array(bands["old"], dtype="<u8").tobytes()
    trained = [(document("", "old").text_hash, signed), (document("", "signed anew").text_hash, b"")]
    mixture, rows = mix(corpus, {"alice": 1.0, "bob": 1.0}, PLENTY, trained)
    assert rows == {0: [0, 3]}, "`other` is like `edited`, which was not trained on"
    assert mixture.dropped == {"trained on before": 4}


def test_what_was_scanned_outlasts_the_process(tmp_path):
    file = tmp_path / "shelf" / "candidates.sqlite"
    with CandidateTable(file, "mixture one") as table:
        table.add(0, [document("alice", "t", row=3)], Counter({"opted out": 2}))
        table.refuse(1, "gone")

        def broken():
            yield document("alice", "u", dataset=2)
            raise BadInput("half way")

        with pytest.raises(BadInput):
            table.add(2, broken(), Counter())
    with CandidateTable(file, "mixture one") as table:
        assert [table.scanned(i) for i in range(3)] == [True, True, False]
        assert table.refused() == {1: "gone"}
        first = table.mix({"alice": 1.0}, PLENTY)
        assert first.dropped == {"opted out": 2}
        assert list(table.rows(0)) == [3]
        assert table.mix({"alice": 1.0}, PLENTY) == first
    with CandidateTable(file, "mixture two") as table:
        assert not table.scanned(0)
        table.remove()
    assert list(file.parent.iterdir()) == []


MEMORY = """
import random, resource, sys
from collections import Counter
from athena.train import mixing
from athena.train.mixture import Candidate, MixtureRules
mixing.CACHE_KIB = 1024

def documents(count):
    for i in range(count):
        text = i % (count // 2)  # each text has two suppliers
        draw = random.Random(text)
        bands = tuple(draw.randrange(2**64) for _ in range(14)) if text % 10 else tuple(range(text, text + 14))
        yield Candidate(0, i, f"miner-{i * 2 // count}", f"crawl/{i % 50}.warc.gz", i, 500, "en",
                        text.to_bytes(16), bands)

with mixing.CandidateTable() as table:
    table.add(0, documents(int(sys.argv[1])), Counter())
    mixture = table.mix({"miner-0": 1.0, "miner-1": 0.5}, MixtureRules(max_tokens=10**12))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, mixture.dropped["duplicate"])
"""


@pytest.mark.full
@pytest.mark.timeout(900)
def test_memory_does_not_grow_with_the_documents():
    peaks = []
    for count in (4_000, 40_000):
        command = [sys.executable, "-c", MEMORY, str(count)]
        peak, duplicates = map(int, subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split())
        assert duplicates >= count // 4
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 8 * 1024, "KiB: 36,000 documents more, of which each takes some 400 bytes"
