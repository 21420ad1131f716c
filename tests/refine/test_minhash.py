import random

import numpy as np
import pytest
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig

from athena.refine.minhash import first_of_each, signature


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


@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.75, 0.8, 0.9])
def test_the_caught_share_follows_the_theory(similarity):
    draw = random.Random(5)
    trials, caught = 250, 0
    shared = round(200 * similarity)
    extra = (200 - shared) // 2
    for _ in range(trials):
        # Sets of hash values with a known Jaccard similarity, in place of texts.
        pool = [draw.getrandbits(64) for _ in range(shared + 2 * extra)]
        first, second = pool[: shared + extra], pool[:shared] + pool[shared + extra :]
        caught += first_of_each([_sign(first), _sign(second)]) == [True, False]
    exact = shared / (shared + 2 * extra)
    assert caught / trials == pytest.approx(1 - (1 - exact**8) ** 14, abs=0.08)


def _sign(values):
    from athena.refine import minhash

    hashes = np.array(values, dtype=np.uint64).reshape(-1, 1)
    return ((hashes * minhash._SCALE + minhash._SHIFT) % minhash._MERSENNE_PRIME).min(axis=0)
