import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from athena.train.packing import best_fit, pack_documents

lengths = st.integers(1, 40)


def naive_best_fit(sizes, length):
    rooms, placed = [], []
    for size in sizes:
        fitting = [(room, index) for index, room in enumerate(rooms) if room >= size]
        if fitting:
            index = min(fitting)[1]
        else:
            rooms.append(length)
            index = len(rooms) - 1
        rooms[index] -= size
        placed.append(index)
    return placed, rooms


@given(st.lists(st.integers(1, 40)), lengths)
def test_it_is_best_fit(sizes, length):
    falling = np.array(sorted((min(size, length) for size in sizes), reverse=True), dtype=np.int64)
    window_of = best_fit(falling, length)
    _, rooms = naive_best_fit(falling.tolist(), length)
    filled = np.bincount(window_of, weights=falling, minlength=len(rooms)) if len(falling) else np.zeros(0)
    assert sorted(length - filled) == sorted(rooms)


@given(st.lists(st.integers(1, 100)), lengths)
def test_every_token_lies_in_one_window(documents, length):
    packing = pack_documents(np.array(documents, dtype=np.int64), length)
    covered = [t for start, size in zip(packing.starts, packing.sizes, strict=True) for t in range(start, start + size)]
    assert sorted(covered) == list(range(sum(documents)))
    ends = np.cumsum(documents)
    for start, size in zip(packing.starts, packing.sizes, strict=True):
        document = np.searchsorted(ends, start, side="right")
        assert start + size <= ends[document]
    assert packing.windows[-1] == len(packing.sizes)
    for first, last in zip(packing.windows[:-1], packing.windows[1:], strict=True):
        assert 0 < packing.sizes[first:last].sum() <= length


@given(st.lists(st.integers(1, 100)), lengths)
def test_only_documents_longer_than_a_window_are_cut(documents, length):
    packing = pack_documents(np.array(documents, dtype=np.int64), length)
    assert len(packing.sizes) == sum(-(-tokens // length) for tokens in documents)


def test_no_documents_fill_no_window():
    assert pack_documents(np.array([], dtype=np.int64), 8).num_windows == 0


def test_documents_of_the_web_waste_almost_nothing():
    documents = np.random.default_rng(0).lognormal(6.2, 1.1, 20_000).astype(np.int64) + 2
    packing = pack_documents(documents, 2048)
    assert 1 - documents.sum() / (packing.num_windows * 2048) < 0.001
