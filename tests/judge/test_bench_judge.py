"""The benchmarks' datasets are made as promised, and their comparison sees what is there and nothing else."""

import json
import math
import random
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest

from athena.evalpack import EvalDocument, EvalPack, PackInfo
from athena.judge.rules import PayRules, ProxyRules, Rules, rules_of

SCRIPTS = Path(__file__).parents[2] / "scripts"
SEED = b"s" * 32
RULES = Rules(
    "tiny",
    proxy=ProxyRules(
        vocab_size=512, hidden_size=32, num_layers=1, num_heads=2, length=64, max_tokens=12_000, batch_windows=4,
        learning_rate=1e-2, documents_per_domain=12, windows_per_document=1, miner_seeds=2, canonical_seeds=3,
        arm_seconds=60,
    ),
    pay=PayRules(sigma_seed=0.035),
)  # fmt: skip
_WORDS = [
    [a + b + c for a in ("b", "dr", "k", "m", "st", "w") for b in ("a", "ee", "o", "ou") for c in (d, f"{d}er")]
    for d in ("n", "lt", "ck", "ve")
]


def prose(number, sentences=14):
    """A document whose words depend on the words before them, so that there is something to learn."""
    chance = random.Random(number)
    lines = []
    for _ in range(sentences):
        index = chance.randrange(48)
        words = []
        for kind in chance.choices(range(4), k=chance.randint(5, 9)):
            index = (index * 7 + chance.randrange(4)) % 48
            words.append(_WORDS[kind][index])
        lines.append(" ".join(words).capitalize() + ".")
    return " ".join(lines)


@pytest.fixture(scope="module")
def pages():
    return [SimpleNamespace(url=f"http://site{i}.example/", text=prose(i, 8 + i % 20)) for i in range(120)]


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark, which are scripts."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_datasets
    import bench_incumbent
    import bench_judge
    import bench_null
    import bench_runs

    return SimpleNamespace(
        datasets=bench_datasets, incumbent=bench_incumbent, judge=bench_judge, null=bench_null, runs=bench_runs
    )


@pytest.fixture
def corpus(pages):
    classifier = SimpleNamespace(probability=lambda text: (len(text) % 10) / 10)
    return SimpleNamespace(canonical=pages, raw=pages, german=pages[:9], classifier=classifier)


@pytest.fixture
def pack():
    documents = tuple(
        EvalDocument(id=f"{domain}/{i}", domain=domain, text=prose(f"{domain} {i}", 30))
        for domain in ("one", "two", "three")
        for i in range(12)
    )
    info = PackInfo(name="test", domains=("one", "three", "two"), documents=len(documents), sha256="0" * 64)
    return EvalPack(info, documents)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_spam_has_its_share_of_the_tokens(bench, pages, share):
    texts = [page.text for page in pages]
    mixed = bench.datasets.mixed(texts, share, SEED)
    assert bench.datasets.spam_share(mixed, texts) == pytest.approx(share, abs=0.02)
    total = sum(bench.datasets.tokens_of(texts))
    assert sum(bench.datasets.tokens_of(mixed)) == pytest.approx(total, rel=0.05)
    assert max(Counter(mixed).values()) == 1
    assert mixed == bench.datasets.mixed(texts, share, SEED) != bench.datasets.mixed(texts, share, b"t" * 32)


def test_a_tenth_is_repeated_ten_times(bench, pages):
    texts = [page.text for page in pages]
    repeated = bench.datasets.repeated_tenth(texts, SEED)
    assert set(Counter(repeated).values()) == {10} and set(repeated) < set(texts)
    total = sum(bench.datasets.tokens_of(texts))
    assert sum(bench.datasets.tokens_of(repeated)) == pytest.approx(total, rel=0.1)


def test_shuffles_keep_what_they_shuffle(bench, pages):
    texts = [page.text for page in pages]

    def parts(of, end):
        return Counter(part for text in of for part in text.replace(end, f"{end}\n").split("\n") if part.strip())

    sentences = bench.datasets.shuffled_sentences(texts, SEED)
    assert Counter(s.strip() for s in parts(sentences, ".").elements()) == Counter(
        s.strip() for s in parts(texts, ".").elements()
    )
    assert not set(sentences) & set(texts)
    words = bench.datasets.shuffled_words(texts, SEED)
    assert [Counter(text.split()) for text in words] == [Counter(text.split()) for text in texts]


def test_gibberish_has_the_letters_but_not_the_words(bench, pages):
    texts = [page.text for page in pages]
    made = bench.datasets.gibberish(texts, SEED)
    assert [len(text) for text in made] == [len(text) for text in texts]
    assert set("".join(made)) <= set("".join(texts))
    known = {word for text in texts for word in text.split()}
    assert sum(word not in known for text in made for word in text.split()) > 100


def test_draws_share_no_page_and_hold_every_set(bench, corpus):
    first, second = (bench.datasets.datasets(corpus, number, SEED) for number in (0, 1))
    assert list(first) == list(second) == list(bench.datasets.TIERS)
    assert all(first.values()) and all(second.values())
    assert not set(first["canonical"]) & set(second["canonical"])


def test_samples_are_disjoint_and_of_like_lengths(bench, corpus):
    dealt = bench.datasets.samples(corpus, 6, SEED)
    assert all(not set(a) & set(b) for a, b in combinations(dealt, 2))
    sizes = [sum(map(len, sample)) for sample in dealt]
    assert max(sizes) < 1.1 * min(sizes)
    pairs = bench.null.pairs_of(6)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == 15
    assert set(Counter(reference for _, reference in pairs)) == set(range(6))


def test_spearman_is_over_tiers(bench):
    tiers = bench.datasets.TIERS
    assert bench.judge.spearman({name: -tier for name, tier in tiers.items()}) == pytest.approx(1)
    assert bench.judge.spearman(tiers) == pytest.approx(-1)
    assert bench.judge.spearman(dict.fromkeys(list(tiers)[:3], 0.0) | {"gibberish": -1.0}) > 0.7
    ordered = bench.judge.spearman({name: -i for i, name in enumerate(tiers)})
    swapped = {name: -i for i, name in enumerate(["canonical-classifier", "canonical", *list(tiers)[2:]])}
    assert bench.judge.spearman(swapped) == pytest.approx(ordered)
    assert 0.97 < ordered < 1
    assert bench.judge.spam_pairs() == [
        ("canonical", "spam-30"), ("canonical", "spam-60"), ("spam-10", "spam-60"), ("spam-30", "spam-60"),
    ]  # fmt: skip


def test_the_last_line_says_what_the_targets_are_about(bench):
    pairs = {"a/b": {"separated": True}, "c/d": {"separated": False}}
    line = {"spearman": 0.9, "incumbent_spearman": 0.1, "cpu_seconds_per_dataset": 90.0, "separated": pairs}
    found = bench.judge.summary([line, {**line, "spearman": 0.96}])
    assert found == {
        "spearman_mean": 0.93, "spearman_min": 0.9, "separated_30pct": 0.5, "cpu_seconds_per_dataset": 90.0,
        "incumbent_spearman": 0.1,
    }  # fmt: skip
    json.dumps(found)


def test_a_quick_run_promises_less(bench):
    default, quick = (bench.runs.bench_setting("1", quick) for quick in (False, True))
    assert default.rules == rules_of("1")
    assert quick.rules.proxy.max_tokens < default.rules.proxy.max_tokens
    assert quick.rules.pay.sigma_seed > default.rules.pay.sigma_seed
    assert quick.sample_spread > default.sample_spread


def test_like_samples_are_not_told_apart_and_spam_is(bench, corpus, pack, tmp_path, capsys):
    dealt = bench.datasets.samples(corpus, 4, SEED)
    setting = bench.runs.Setting(RULES, sample_spread=0.01)
    pairs, measured = bench.null.compare_samples(dealt, setting, pack, tmp_path, "test", parallel=1)
    assert len(pairs) >= 4
    assert sum(pair.different for pair in pairs) <= 1
    spreads = bench.null.spreads(pairs, [measured], setting)
    assert all(math.isfinite(value) and value >= 0 for value in spreads.values())
    reference = next(name for name in measured if name.endswith("canonical"))
    spam = bench.datasets.mixed(dealt[int(reference[0])], 0.6, SEED)
    trainer = bench.runs.Bench(tmp_path, RULES, pack, "00" * 32)
    runs = trainer.run([bench.runs.Request("spam", spam, 2)], budget_tokens=12_000)
    found = bench.runs.contrast(runs.measured["spam"], measured[reference], setting)
    assert found.high < 0
    assert runs.seconds_per_arm > 0
    again = trainer.run([bench.runs.Request("spam", spam, 2)], budget_tokens=12_000)
    assert again == runs  # nothing is trained twice
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_incumbent_asks_ten_questions_after_ten_steps(bench, corpus, pack):
    asked = bench.incumbent.questions(pack, SEED)
    assert len(asked) == len({item.id for item in asked}) == 10
    texts = " ".join(document.text for document in pack.documents)
    assert all(item.context + item.choices[item.answer] in texts for item in asked)
    canonical = [page.text for page in corpus.canonical]
    found = bench.incumbent.incumbent_score(canonical, asked, RULES.proxy, SEED)
    assert 0.3 < found < 1
    assert found == bench.incumbent.incumbent_score(canonical, asked, RULES.proxy, SEED)


@pytest.mark.full
def test_evaluation_documents_of_real_text_are_in_no_set(monkeypatch, test_data, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_corpus

    from athena.judge.words import overlap_ngrams

    corpus = bench_corpus.Corpus(test_data, tmp_path, raw_sets=("readability",))
    assert len(corpus.pack.info.domains) >= 8
    assert min(map(len, corpus.pack.by_domain.values())) >= 32
    grams = {gram for document in corpus.pack.documents for gram in overlap_ngrams(document.text)}
    for page in (*corpus.canonical, *corpus.raw):
        assert grams.isdisjoint(overlap_ngrams(page.text))
    assert len(corpus.canonical) > 1000
