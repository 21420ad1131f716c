import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.draw import permuted
from athena.errors import BadInput, NotFound, Unavailable
from athena.train import encoder, tokens
from athena.train.lineage import summarize_lineage
from athena.train.tokenizer import END, END_ID, adopt_tokenizer, load_tokenizer, train_tokenizer
from athena.train.tokens import IGNORED, LINEAGE_SCHEMA, TokenStream, write_documents, write_tokens

HOTKEYS = ["5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


@pytest.fixture
def backend(tokenizer):
    return tokenizer.backend_tokenizer


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 8 documents in row groups of 4."""
    monkeypatch.setattr(tokens, "SHARD_DOCUMENTS", 8)
    monkeypatch.setattr(tokens, "_ROWS_PER_GROUP", 4)


@pytest.fixture
def written(tmp_path, make_corpus, documents, tokenizer_folder, small_shards):
    """Thirty documents in four shards: their texts and folder."""
    texts = make_corpus(30)
    write_documents(documents(texts), tmp_path / "documents.parquet")
    write_tokens(tmp_path / "documents.parquet", tokenizer_folder, tmp_path / "tokens")
    return texts, tmp_path / "tokens"


def test_same_texts_train_the_same_tokenizer(tmp_path, make_corpus, tokenizer_folder):
    train_tokenizer(make_corpus(120), 400, 32, tmp_path / "again")
    for file in tokenizer_folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_every_byte_is_known_and_comes_back(tokenizer, backend):
    text = "Ünïcode 漢字 \U0001f40b\x00\x7f\r\n\t  tabs, 12345 and 'quotes'"
    [ids] = encoder.encode(backend, [text])
    assert tokenizer.decode(ids) == text


def test_numbers_are_split_in_groups_of_two(tmp_path):
    train_tokenizer(["12345678 " * 50], 300, 32, tmp_path / "numbers")
    backend = load_tokenizer(tmp_path / "numbers").backend_tokenizer
    assert backend.encode("1234567", add_special_tokens=False).tokens == ["12", "34", "56", "7"]


def test_a_text_cannot_forge_the_end_of_a_document(tokenizer, backend):
    [ids] = encoder.encode(backend, [f"before {END} after"])
    assert END_ID not in ids
    assert tokenizer.decode(ids) == f"before {END} after"


def test_a_prompt_begins_as_a_document_does(tokenizer_folder, tokenizer, backend):
    assert tokenizer("The river").input_ids == [END_ID, *encoder.encode(backend, ["The river"])[0]]
    assert json.loads((tokenizer_folder / "tokenizer_config.json").read_text())["tokenizer_class"] == (
        "PreTrainedTokenizerFast"
    )


def test_no_tokenizer_is_said_so(tmp_path):
    with pytest.raises(NotFound, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_another_tokenizer_is_taken_with_its_own_end(tmp_path, tokenizer, make_corpus, documents):
    own = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")
    own.save_pretrained(tmp_path / "theirs")
    adopt_tokenizer(tmp_path / "theirs", 64, tmp_path / "ours")
    ours = load_tokenizer(tmp_path / "ours")
    end = ours.eos_token_id
    assert end == own.eos_token_id != END_ID
    assert ours("The river").input_ids[0] == end
    write_documents(documents(make_corpus(5)), tmp_path / "documents.parquet")
    info = write_tokens(tmp_path / "documents.parquet", tmp_path / "ours", tmp_path / "tokens").info
    assert info.end == end
    stream = TokenStream(tmp_path / "tokens", 16)
    assert (stream.batch(range(stream.num_windows)).inputs == end).sum() >= 5


def test_a_tokenizer_without_an_end_is_refused(tmp_path, tokenizer):
    tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer).save_pretrained(tmp_path / "endless")
    with pytest.raises(BadInput, match="end-of-text"):
        adopt_tokenizer(tmp_path / "endless", 64, tmp_path / "ours")
    (tmp_path / "endless" / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="cannot be read"):
        load_tokenizer(tmp_path / "endless")


def test_the_shards_hold_every_document_and_its_lineage(written, tokenizer, documents):
    texts, folder = written
    info = TokenStream(folder, 16).info
    assert [shard.documents for shard in info.shards] == [8, 8, 8, 6]
    shards = [np.fromfile(folder / shard.path, dtype=info.dtype) for shard in info.shards]
    assert all(ids[0] == END_ID for ids in shards)
    stream = np.concatenate(shards)
    pieces = np.split(stream, np.flatnonzero(stream == END_ID))[1:]
    assert [tokenizer.decode(piece[1:]) for piece in pieces] == texts
    table = pq.read_table(folder / "documents.parquet")
    assert table.schema == LINEAGE_SCHEMA
    assert table.drop_columns("tokens").to_pylist() == [
        {name: value for name, value in row.items() if name != "text"} for row in documents(texts)
    ]
    assert table["tokens"].to_pylist() == [piece.size for piece in pieces]
    assert sum(table["tokens"].to_pylist()) == info.tokens == stream.size
    assert sorted(path.name for path in folder.parent.glob(".*")) == []


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_any_number_of_workers_leaves_the_same_bytes(written, tokenizer_folder):
    _, folder = written
    parallel, told = folder.with_name("parallel"), []
    source = folder.with_name("documents.parquet")
    result = write_tokens(source, tokenizer_folder, parallel, workers=2, progress=lambda *done: told.append(done))
    assert bytes_of(parallel) == bytes_of(folder)
    assert told[-1] == (30, 30) and len(told) == 4
    assert result.tokens_per_core_second > 0


def test_a_worker_that_dies_costs_only_its_shard(written, tokenizer_folder, monkeypatch):
    _, folder = written
    again, source = folder.with_name("again"), folder.with_name("documents.parquet")
    monkeypatch.setattr(encoder, "_MODULE", [sys.executable, "-c", "import sys; sys.stdin.readline()"])
    with pytest.raises(Unavailable, match="died"):
        write_tokens(source, tokenizer_folder, again, workers=2)
    write_tokens(source, tokenizer_folder, again)
    assert bytes_of(again) == bytes_of(folder)


KILLED = """
import sys
from pathlib import Path
from athena.train import tokens
tokens.SHARD_DOCUMENTS = 8
source, tokenizer, folder = map(Path, sys.argv[1:])
def stop_at_two(done, total):
    if done == 16:
        print("half", flush=True)
        sys.stdin.read()
tokens.write_tokens(source, tokenizer, folder, progress=stop_at_two)
"""


def test_killed_it_goes_on_with_the_shards_that_are_done(written, tokenizer_folder):
    _, folder = written
    again, source = folder.with_name("again"), folder.with_name("documents.parquet")
    command = [sys.executable, "-c", KILLED, str(source), str(tokenizer_folder), str(again)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"half\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not again.exists()
    done = {path: path.stat().st_mtime_ns for path in folder.with_name(".again.work").glob("*.bin")}
    assert len(done) == 2
    time.sleep(0.01)
    write_tokens(source, tokenizer_folder, again)
    assert bytes_of(again) == bytes_of(folder)
    assert all((again / path.name).stat().st_mtime_ns == at for path, at in done.items())


def test_what_an_attempt_on_other_documents_left_is_not_used(written, tokenizer_folder, make_corpus, documents):
    _, folder = written
    again, other = folder.with_name("again"), folder.with_name("other.parquet")
    write_documents(documents(make_corpus(30, seed=9)), other)

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    with pytest.raises(Stop):
        write_tokens(other, tokenizer_folder, again, progress=stop)
    write_tokens(folder.with_name("documents.parquet"), tokenizer_folder, again)
    assert bytes_of(again) == bytes_of(folder)


def test_lineage_adds_up_by_dataset_and_warc(tmp_path, make_corpus, documents, tokenizer_folder):
    rows = [{**d, "dataset": f"file:a/b@{'1' * 40}#{'2' * 64}", "hotkey": HOTKEYS[i % 2]} for i, d in
            enumerate(documents(make_corpus(12)))]  # fmt: skip
    write_documents(rows, tmp_path / "documents.parquet")
    info = write_tokens(tmp_path / "documents.parquet", tokenizer_folder, tmp_path / "tokens").info
    lineage = summarize_lineage(tmp_path / "tokens" / "documents.parquet")
    assert [entry.hotkey for entry in lineage] == sorted(HOTKEYS)
    assert sum(entry.tokens for entry in lineage) == info.tokens
    assert sum(entry.documents for entry in lineage) == 12
    assert all(sum(entry.tokens_by_warc.values()) == entry.tokens for entry in lineage)


def test_no_documents_leave_no_folder(tmp_path, tokenizer_folder):
    write_documents([], tmp_path / "documents.parquet")
    with pytest.raises(NotFound, match="no document"):
        write_tokens(tmp_path / "documents.parquet", tokenizer_folder, tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("length", [8, 32, 300])
def test_every_token_is_read_once_and_learnt_in_its_document(written, tokenizer, backend, length):
    """Whatever is cut or put together, the pairs of an input and its label are those of the documents by themselves."""
    texts, folder = written
    stream = TokenStream(folder, length)
    batch = stream.batch(range(stream.num_windows))
    counted = batch.labels != IGNORED
    found = sorted(zip(batch.inputs[counted].tolist(), batch.labels[counted].tolist(), strict=True))
    documents = [[END_ID, *ids] for ids in encoder.encode(backend, texts)]
    assert found == sorted(pair for ids in documents for pair in zip(ids, [*ids[1:], END_ID], strict=True))
    assert counted.sum() == stream.info.tokens == stream.num_labels(range(stream.num_windows))
    assert (batch.inputs[~counted] == END_ID).all()
    assert stream.packing.waste == pytest.approx(1 - stream.info.tokens / counted.size)
    assert stream.packing.documents_cut == sum(len(ids) > length for ids in documents)


def test_positions_restart_with_every_piece_and_the_padding(written, backend):
    texts, folder = written
    stream = TokenStream(folder, 64)
    documents = {(END_ID, *ids) for ids in encoder.encode(backend, texts)}
    batch = stream.batch(range(stream.num_windows))
    for inputs, positions, labels in zip(batch.inputs, batch.positions, batch.labels, strict=True):
        starts = np.flatnonzero(positions == 0)
        assert all((np.diff(piece) == 1).all() for piece in np.split(positions, starts[1:]))
        for piece, expected in zip(np.split(inputs, starts[1:]), np.split(labels, starts[1:]), strict=True):
            if (expected == IGNORED).all():
                continue
            whole = any(set(pairwise(piece)) <= set(pairwise(d)) for d in documents)
            assert whole and (expected != IGNORED).all()


def test_the_packing_is_made_once_and_checked(written):
    _, folder = written
    first = TokenStream(folder, 32)
    made = bytes_of(folder / "packing-32")
    second = TokenStream(folder, 32)
    assert np.array_equal(first.batch([3, 1]).inputs, second.batch([3, 1]).inputs)
    assert bytes_of(folder / "packing-32") == made
    (folder / "packing-32" / "packing.json").write_bytes(
        first.packing.model_copy(update={"tokens_digest": "0" * 64}).canonical()
    )
    with pytest.raises(BadInput, match="other tokens"):
        TokenStream(folder, 32)
    (folder / "packing-32" / "sizes.npy").write_bytes(b"x")
    with pytest.raises(BadInput, match="damaged"):
        TokenStream(folder, 32)


def test_each_epoch_reads_every_window_once_in_another_order(tokens_folder):
    stream = TokenStream(tokens_folder, 32)
    count = stream.num_windows
    steps = stream.windows("7", 0, 2 * count)
    first, second = steps[:count], steps[count:]
    assert sorted(first) == sorted(second) == list(range(count))
    assert first != second
    assert first != stream.windows("8", 0, count)


@given(st.text(max_size=5), st.integers(1, 200))
def test_permuted_is_a_permutation(seed, population):
    assert sorted(permuted(seed, population, i) for i in range(population)) == list(range(population))


def test_damaged_tokens_are_refused(written):
    _, folder = written
    with pytest.raises(BadInput, match="no window"):
        TokenStream(folder, 0)
    table = pq.read_table(folder / "documents.parquet")
    pq.write_table(table.slice(1), folder / "documents.parquet")
    with pytest.raises(BadInput, match="lists other documents"):
        TokenStream(folder, 16)
    with (folder / "tokens-00001.bin").open("ab") as file:
        file.write(b"\x01\x00")
    with pytest.raises(BadInput, match="tokens"):
        TokenStream(folder, 16)
    with pytest.raises(NotFound):
        TokenStream(folder.parent, 16)
