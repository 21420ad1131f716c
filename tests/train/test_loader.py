import pytest

from athena.errors import BadInput, Conflict
from athena.train.loader import Loader
from athena.train.tokens import TokenStream, write_documents, write_tokens


@pytest.fixture(scope="module")
def stream(tokens_folder):
    return TokenStream(tokens_folder, 32)


@pytest.fixture(scope="module")
def later(tmp_path_factory, make_corpus, documents, tokenizer_folder):
    folder = tmp_path_factory.mktemp("later")
    write_documents(documents(make_corpus(40, seed=3)), folder / "documents.parquet")
    write_tokens(folder / "documents.parquet", tokenizer_folder, folder / "tokens")
    return TokenStream(folder / "tokens", 32)


def ramp(step):
    return 3 if step < 5 else 7


@pytest.mark.parametrize("world_size", [1, 2, 4, 16])
def test_the_ranks_batches_make_up_the_same_batch(stream, world_size):
    alone = Loader([(0, stream)], 7, ramp)
    ranks = [Loader([(0, stream)], 7, ramp, rank, world_size) for rank in range(world_size)]
    for step in (0, 4, 5, 9):
        together = [window for loader in ranks for window in loader.batches(step)]
        assert together == alone.batches(step) == alone.global_batch(step)
        assert len(alone.batches(step)) == ramp(step)


def test_steps_read_on_without_gap_or_repetition(stream):
    loader = Loader([(0, stream)], 7, ramp)
    read = [window for step in range(40) for window in loader.batches(step)]
    epoch = stream.num_windows
    assert sorted(read[:epoch]) == list(range(epoch))
    assert loader.epochs(40) == len(read) / epoch
    assert [loader.batches(step) for step in (39, 3)] == [Loader([(0, stream)], 7, ramp).batches(s) for s in (39, 3)]


def test_the_order_does_not_depend_on_the_batch(stream):
    orders = [
        [w for step in range(steps) for w in Loader([(0, stream)], 0, lambda _, n=n: n).batches(step)]
        for steps, n in ((4, 6), (8, 3))
    ]
    assert orders[0] == orders[1]
    assert orders[0] != [w for step in range(4) for w in Loader([(0, stream)], 1, lambda _: 6).batches(step)]


def test_a_later_stage_changes_no_earlier_step(stream, later):
    before, after = Loader([(0, stream)], 7, ramp), Loader([(0, stream), (6, later)], 7, ramp)
    assert [before.batches(step) for step in range(6)] == [after.batches(step) for step in range(6)]
    read = [window for step in range(6, 30) for window in after.batches(step)]
    assert sorted(read[: later.num_windows]) == list(range(later.num_windows))
    assert after.stream(5) is stream and after.stream(6) is later
    assert after.read(6, after.batches(6)).inputs.shape == (7, 32)
    after.check(before.state(6))
    with pytest.raises(Conflict):
        after.check(before.state(7))


def test_a_state_belongs_to_its_data_and_order(stream, later):
    loader = Loader([(0, stream)], 7, ramp)
    state = loader.state(8)
    Loader([(0, stream)], 7, ramp, 1, 2).check(state)
    others = (
        Loader([(0, stream)], 8, ramp),
        Loader([(0, later)], 7, ramp),
        Loader([(0, stream)], 7, lambda _: 3),
        Loader([(0, stream), (4, later)], 7, ramp),
    )
    for other in others:
        with pytest.raises(Conflict, match="other data"):
            other.check(state)
    loader.check(loader.state(0))


def test_the_labels_that_count_are_told_for_the_whole_batch(stream):
    loader = Loader([(0, stream)], 7, ramp, 1, 2)
    labels = stream.batch(loader.global_batch(3)).labels
    assert loader.num_labels(3) == (labels >= 0).sum()


def test_stages_that_do_not_fit_together_are_refused(stream, tokens_folder):
    with pytest.raises(BadInput, match="stages from"):
        Loader([(1, stream)], 0, ramp)
    with pytest.raises(BadInput, match="stages from"):
        Loader([(0, stream), (0, stream)], 0, ramp)
    with pytest.raises(BadInput, match="window lengths"):
        Loader([(0, stream), (3, TokenStream(tokens_folder, 16))], 0, ramp)
    with pytest.raises(BadInput, match="rank"):
        Loader([(0, stream)], 0, ramp, 2, 2)
    with pytest.raises(BadInput, match="no step"):
        Loader([(0, stream)], 0, ramp).batches(-1)
