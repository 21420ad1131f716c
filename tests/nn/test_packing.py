import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.errors import BadInput
from athena.nn.packing import pack, positions

END = 0
documents = st.lists(st.lists(st.integers(1, 9), max_size=12), max_size=12)


@given(documents, st.integers(1, 9))
def test_nothing_is_lost_but_the_last_partial_window(texts, length):
    stream = [token for text in texts for token in (END, *text)]
    tokens, _ = pack(texts, length, END)
    assert tokens.shape == (len(stream) // length, length)
    assert tokens.dtype == np.int32
    assert tokens.ravel().tolist() == stream[: tokens.size]


@given(documents, st.integers(1, 9))
def test_positions_count_up_from_each_document_and_window(texts, length):
    tokens, position_ids = pack(texts, length, END)
    for row, places in zip(tokens.tolist(), position_ids.tolist(), strict=True):
        expected = -1
        for token, place in zip(row, places, strict=True):
            expected = 0 if token == END else expected + 1
            assert place == expected


def test_a_document_goes_on_in_the_next_window():
    tokens, position_ids = pack([[1, 2], [3, 4, 5, 6, 7]], 4, END)
    assert tokens.tolist() == [[0, 1, 2, 0], [3, 4, 5, 6]]
    assert position_ids.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3]]


def test_a_document_cannot_forge_a_boundary():
    with pytest.raises(BadInput, match="document 1"):
        pack([[1, 2], [3, END, 4]], 4, END)


def test_positions_of_one_window():
    assert positions(np.array([5, 5, END, 5], dtype=np.int32), END).tolist() == [0, 1, 0, 1]
