import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.errors import BadInput, NotFound
from athena.train.lineage import summarize_lineage
from athena.train.tokenizer import END, END_ID, encode, load_tokenizer, train_tokenizer
from athena.train.tokens import LINEAGE_SCHEMA, TokenStream, permuted, write_tokens


def test_same_texts_train_the_same_tokenizer(tmp_path, make_corpus, tokenizer_folder):
    train_tokenizer(make_corpus(120), 400, 32, tmp_path / "again")
    for file in tokenizer_folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_every_byte_is_known_and_comes_back(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    text = "Ünïcode 漢字 \U0001f40b\x00\x7f\r\n\t  tabs, 12345 and 'quotes'"
    [ids] = encode(tokenizer, [text])
    assert tokenizer.decode(ids) == text


def test_a_text_cannot_forge_the_end_of_a_document(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    [ids] = encode(tokenizer, [f"before {END} after"])
    assert END_ID not in ids
    assert tokenizer.decode(ids) == f"before {END} after"


def test_a_prompt_begins_as_a_document_does(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    assert tokenizer("The river").input_ids == [END_ID, *encode(tokenizer, ["The river"])[0]]
    assert json.loads((tokenizer_folder / "tokenizer_config.json").read_text())["tokenizer_class"] == (
        "PreTrainedTokenizerFast"
    )


def test_no_tokenizer_is_said_so(tmp_path):
    with pytest.raises(NotFound):
        load_tokenizer(tmp_path)


def test_the_stream_holds_every_document_and_its_lineage(tmp_path, make_corpus, documents, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    texts = make_corpus(30)
    info = write_tokens(documents(texts), tokenizer, tmp_path / "tokens")
    stream = np.fromfile(tmp_path / "tokens" / "tokens.bin", dtype=info.dtype)
    pieces = np.split(stream, np.flatnonzero(stream == END_ID))[1:]
    assert [tokenizer.decode(piece[1:]) for piece in pieces] == texts
    table = pq.read_table(tmp_path / "tokens" / "documents.parquet")
    assert table.schema == LINEAGE_SCHEMA
    assert table["tokens"].to_pylist() == [piece.size for piece in pieces]
    assert sum(table["tokens"].to_pylist()) == info.tokens == stream.size


def test_lineage_adds_up_by_dataset_and_warc(tmp_path, make_corpus, documents, tokenizer_folder):
    rows = [{**d, "dataset": f"file:a/b@{'1' * 40}#{'2' * 64}", "hotkey": HOTKEYS[i % 2]} for i, d in
            enumerate(documents(make_corpus(12)))]  # fmt: skip
    info = write_tokens(rows, load_tokenizer(tokenizer_folder), tmp_path / "tokens")
    lineage = summarize_lineage(tmp_path / "tokens" / "documents.parquet")
    assert [entry.hotkey for entry in lineage] == sorted(HOTKEYS)
    assert sum(entry.tokens for entry in lineage) == info.tokens
    assert sum(entry.documents for entry in lineage) == 12
    assert all(sum(entry.tokens_by_warc.values()) == entry.tokens for entry in lineage)


HOTKEYS = ["5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"]


def test_no_documents_leave_no_folder(tmp_path, tokenizer_folder):
    with pytest.raises(NotFound, match="no document"):
        write_tokens([], load_tokenizer(tokenizer_folder), tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()


def test_windows_shift_labels_by_one_and_restart_positions(tokens_folder):
    stream = TokenStream(tokens_folder, 16)
    ids = np.fromfile(tokens_folder / "tokens.bin", dtype=stream.info.dtype)
    batch = stream.batch(list(range(stream.num_windows)))
    assert batch.inputs.ravel().tolist() == ids[: stream.num_windows * 16].tolist()
    assert batch.labels.ravel().tolist() == ids[1 : stream.num_windows * 16 + 1].tolist()
    assert (batch.positions[batch.inputs == END_ID] == 0).all()
    assert ids.size - 1 - batch.labels.size < 16


def test_each_epoch_reads_every_window_once_in_another_order(tokens_folder):
    stream = TokenStream(tokens_folder, 32)
    count = stream.num_windows
    steps = [stream.windows_of_step(7, step, 1)[0] for step in range(2 * count)]
    first, second = steps[:count], steps[count:]
    assert sorted(first) == sorted(second) == list(range(count))
    assert first != second
    assert first != [stream.windows_of_step(8, step, 1)[0] for step in range(count)]


def test_the_order_does_not_depend_on_the_batch(tokens_folder):
    stream = TokenStream(tokens_folder, 32)
    whole = [w for step in range(4) for w in stream.windows_of_step(0, step, 6)]
    halves = [w for step in range(8) for w in stream.windows_of_step(0, step, 3)]
    assert whole == halves


@given(st.text(max_size=5), st.integers(1, 200))
def test_permuted_is_a_permutation(seed, population):
    assert sorted(permuted(seed, population, i) for i in range(population)) == list(range(population))


def test_a_damaged_stream_is_refused(tmp_path, make_corpus, documents, tokenizer_folder):
    write_tokens(documents(make_corpus(3)), load_tokenizer(tokenizer_folder), tmp_path / "tokens")
    with pytest.raises(BadInput, match="one window"):
        TokenStream(tmp_path / "tokens", 10_000)
    with (tmp_path / "tokens" / "tokens.bin").open("ab") as file:
        file.write(b"\x01\x00")
    with pytest.raises(BadInput, match="tokens"):
        TokenStream(tmp_path / "tokens", 16)
    with pytest.raises(NotFound):
        TokenStream(tmp_path, 16)
