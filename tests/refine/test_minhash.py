import random

import numpy as np
import pytest
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig

from athena.crawl import open_crawl
from athena.events import EventLog
from athena.protocol import Shard, Task
from athena.refine.manifest import Limits, load_dataset
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task
from athena.refine.text import minhash
from athena.refine.text.minhash import first_of_each, signature


def test_signatures_are_datatroves(prose):
    stock = MinhashDedupSignature("unused", MinhashConfig(hash_config=HashConfig(hash_fc="sha1", precision=64)))
    texts = ["\n".join(prose(seed)) for seed in range(3)] + ["Don't stop: e.g. U.S. 3.14, café naïve 100km/h!"]
    texts.append(" ".join(" ".join(prose(seed)) for seed in range(12)))  # more shingles than one block holds
    for text in texts:
        expected = np.array(stock.get_signature(stock.get_shingles(text)), dtype=np.uint64).reshape(-1)
        assert np.array_equal(signature(text), expected)


def test_a_text_of_four_words_has_no_signature():
    assert signature("only four words here") is None
    assert first_of_each([None, None]) == [True, True]


def test_of_linked_documents_the_first_stays():
    base = np.arange(112, dtype=np.uint64)
    middle, last = base + 1000, base + 2000
    middle[:8] = base[:8]  # linked with the first
    last[8:16] = middle[8:16]  # and through it with the last
    assert first_of_each([base, middle, last]) == [True, False, False]
    assert first_of_each([base, last]) == [True, True]
    assert first_of_each([last, base, middle]) == [True, False, False]


LEVELS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def caught_in_theory(similarity):
    return 1 - (1 - similarity**8) ** 14


def _shingles(text):
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def _jaccard(first, second):
    one, two = _shingles(first), _shingles(second)
    return len(one & two) / len(one | two)


def _words(texts):
    """The distinct plain words of texts, as no tokenizer cuts them."""
    return sorted({word for text in texts for word in text.lower().split() if word.isascii() and word.isalpha()})


@pytest.mark.parametrize("similarity", LEVELS)
def test_the_caught_share_follows_the_theory(prose, similarity):
    """4,000 pairs of sets of 75 to 97 shingles out of one text: 3 points are nearly four standard errors."""
    draw = np.random.default_rng(round(similarity * 100))
    text = " ".join(" ".join(prose(seed, 60)) for seed in range(6))
    pool = np.unique(minhash._shingle_hashes(text, "en"))
    hashes = minhash._folded(pool.reshape(-1, 1) * minhash._SCALE + minhash._SHIFT)
    shared = round(100 * similarity)
    extra = round((100 - shared) / 2)
    caught, trials = 0, 4000
    for _ in range(trials):
        chosen = hashes[draw.choice(len(pool), shared + 2 * extra, replace=False)]
        common = chosen[:shared].min(axis=0)
        pair = [np.minimum(common, part.min(axis=0)) for part in (chosen[shared:-extra], chosen[-extra:])]
        caught += first_of_each(pair) == [True, False]
    assert caught / trials == pytest.approx(caught_in_theory(shared / (shared + 2 * extra)), abs=0.03)


def _near_duplicates(words, similarity, draw):
    """Two texts of 300 words: the second has words replaced, far enough apart to cost five shingles each."""
    first = draw.sample(words, 300)
    replaced = round(296 * (1 - similarity) / (1 + similarity) / 5)
    second = list(first)
    for place in draw.sample(range(4, 296, 5), replaced):
        second[place] += "x"
    return " ".join(first), " ".join(second)


def _check_texts(words, levels, pairs):
    for similarity in levels:
        draw = random.Random(round(similarity * 100))
        texts = [_near_duplicates(words, similarity, draw) for _ in range(pairs)]
        expected = sum(caught_in_theory(_jaccard(*pair)) for pair in texts) / pairs
        caught = sum(first_of_each([signature(a), signature(b)]) == [True, False] for a, b in texts) / pairs
        assert abs(similarity - sum(_jaccard(*pair) for pair in texts) / pairs) < 0.02
        assert caught == pytest.approx(expected, abs=0.03), similarity


def test_near_duplicate_texts_are_caught_as_in_theory(test_data):
    _check_texts(_words([(test_data / "text" / "wikitext2-valid.txt").read_text()]), [0.9], 400)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_near_duplicate_texts_are_caught_as_in_theory_at_every_level(test_data):
    _check_texts(_words([(test_data / "text" / "wikitext2-valid.txt").read_text()]), LEVELS, 3000)


def test_of_twins_the_first_by_path_and_offset_stays(tmp_path, warc, html_page, prose):
    """Two near-duplicates in each of two files: whatever the pages' order, the first page of the first file stays."""
    twins = [html_page([*prose(1), f"The page ends with word number {i}."]) for i in range(4)]
    for order in ([0, 1, 2, 3], [3, 1, 2, 0]):
        for name, part in (("a.warc.gz", order[:2]), ("b.warc.gz", order[2:])):
            pages = [(f"http://a.example/{i}", twins[i]) for i in part]
            (tmp_path / name).write_bytes(warc([(f"http://{name}/", html_page(prose(len(name)))), *pages]))
        for names in (("a.warc.gz", "b.warc.gz"), ("b.warc.gz", "a.warc.gz")):
            task = Task(shard=Shard(crawl="LOCAL-test", warc_paths=names), rule_version="1", opened_block=7)
            out, crawl = tmp_path / f"{order[0]}-{names[0]}", open_crawl(tmp_path.as_uri())
            refine_task(task, "5" + "G" * 47, load_recipe("fineweb-1"), crawl, out, events=EventLog(None))
            urls = load_dataset(out, limits=Limits()).table["url"].to_pylist()
            first = order[0] if names[0] == "a.warc.gz" else order[2]
            assert [url for url in urls if url.startswith("http://a.example")] == [f"http://a.example/{first}"]
