"""Sketches stay within their limit, and what they keep is the same in a text and in its copy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.judge.gates.duplicates import unique_share
from athena.judge.sketch import Sketch, mixed, thinned


def hashes(start, count):
    return mixed(np.arange(start, start + count, dtype=np.uint64))


def test_mixing_loses_nothing():
    assert len(np.unique(hashes(0, 100_000))) == 100_000


@pytest.mark.parametrize("halvings", [0, 1, 5, 64, 100])
def test_thinning_keeps_one_in_so_many(halvings):
    kept = len(thinned(hashes(1, 64_000), halvings))
    assert kept == pytest.approx(64_000 / 2**halvings, rel=0.1, abs=0.01)


@given(sizes=st.lists(st.integers(0, 120), max_size=30), limit=st.integers(1, 200))
def test_a_sketch_is_the_thinned_whole(sizes, limit):
    """Whenever it was thinned, it holds what would have stayed of everything."""
    sketch = Sketch(limit)
    parts = [hashes(100 * number, size) for number, size in enumerate(sizes)]
    for number, part in enumerate(parts):
        sketch.add(number, part)
    assert len(sketch.hashes) == len(sketch.owners) <= limit
    for number, part in enumerate(parts):
        expected = np.unique(thinned(part, sketch.halvings))
        assert np.array_equal(np.sort(sketch.hashes[sketch.owners == number]), expected)


def test_equal_hashes_without_end_end():
    sketch = Sketch(10)
    for number in range(100):
        sketch.add(number, np.zeros(1, dtype=np.uint64))
    assert len(sketch.hashes) <= 10


@pytest.mark.parametrize("limit", [1 << 20, 20_000, 4000])
def test_repetition_shows_in_a_sample(limit):
    """400 documents, a quarter of them nearly the same as others: what share is found does not hang on the limit."""
    dice = np.random.default_rng(0)
    words = [f"word{number}" for number in range(2000)]
    fresh = [" ".join(dice.choice(words, 200)) for _ in range(300)]
    nearly = [f"{text} {' '.join(dice.choice(words, 10))}" for text in fresh[:100]]
    assert unique_share([*fresh, *nearly], limit) == pytest.approx(0.74, abs=0.08)


def test_exact_copies_are_found_however_small_the_sample():
    assert unique_share(["one two three four five six seven", "One, two three four five six seven!"] * 5, 1) == 0.1
