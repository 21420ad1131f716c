import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from athena.crawl import open_crawl
from athena.errors import BadInput, NotFound, TooLarge
from athena.events import EventLog
from athena.protocol import Manifest, Shard, Task, merkle_root
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, ROW_SCHEMA, Limits, leaves, load_dataset, parquet_writer
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task

HOTKEY = "5" + "G" * 47


@pytest.fixture
def dataset(site_crawl, tmp_path):
    task = Task(shard=Shard(crawl="LOCAL-t", warc_paths=("a.warc.gz", "b.warc.gz")), rule_version="1", opened_block=1)
    recipe, crawl = load_recipe("unfiltered-1"), open_crawl(site_crawl.as_uri())
    refine_task(task, HOTKEY, recipe, crawl, tmp_path / "set", events=EventLog(None))
    return tmp_path / "set"


def rewrite(folder, table, write=None, **changes):
    """A consistent dataset of other rows, as a miner with its own writer would make it."""
    path = folder / DATA_FILE
    (write or _write)(path, table)
    raw = path.read_bytes()
    old = json.loads((folder / MANIFEST_FILE).read_bytes())
    entry = {"path": DATA_FILE, "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "rows": table.num_rows}
    try:
        root = merkle_root(leaves(table, HOTKEY))
    except (BadInput, KeyError):
        root = "0" * 64
    tokens = sum(table["token_count"].to_pylist())
    counts = {"rows": table.num_rows, "records": table.num_rows, "rejected": {}, "tokens": tokens}
    manifest = Manifest.model_validate_json(json.dumps(old | counts | {"files": [entry], "root": root} | changes))
    (folder / MANIFEST_FILE).write_bytes(manifest.canonical())


def _write(path, table):
    with parquet_writer(path) as writer:
        for warc in dict.fromkeys(table["warc_path"].to_pylist()):
            writer.write_table(table.filter(pa.compute.equal(table["warc_path"], warc)))


def changed(table, name, value):
    rows = table.to_pylist()
    rows[1][name] = value
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def test_what_is_consistent_is_loaded(dataset):
    loaded = load_dataset(dataset, limits=Limits())
    assert loaded.table.schema.equals(ROW_SCHEMA)
    rewrite(dataset, loaded.table)
    assert load_dataset(dataset, limits=Limits()).table.equals(loaded.table)


def test_limits_hold(dataset):
    for limits in (
        Limits(max_manifest_bytes=10), Limits(max_data_bytes=10), Limits(max_rows=1), Limits(max_text_bytes=10),
        Limits(max_unpacked_bytes=1000),
    ):  # fmt: skip
        with pytest.raises(TooLarge):
            load_dataset(dataset, limits=limits)


def test_missing_and_linked_files(dataset, tmp_path):
    (dataset / DATA_FILE).rename(tmp_path / "elsewhere")
    with pytest.raises(NotFound):
        load_dataset(dataset, limits=Limits())
    (dataset / DATA_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="regular"):
        load_dataset(dataset, limits=Limits())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": "0" * 64}, "Merkle root"),
        ({"tokens": 1}, "token counts"),
        ({"records": 99}, "add up"),
        ({"rows": 1}, "rows"),
        ({"rejected": {"x": -1}}, "fewer than no"),
        ({"hotkey": "5" + "H" * 47}, "Merkle root"),
        ({"files": []}, "other files"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(dataset, changes, message):
    table = load_dataset(dataset, limits=Limits()).table
    rewrite(dataset, table, **changes)
    with pytest.raises(BadInput, match=message):
        load_dataset(dataset, limits=Limits())


@pytest.mark.parametrize("raw", [b"", b"{}", b"[" * 100_000, b'{"format": "athena-dataset/1"}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(dataset, raw):
    (dataset / MANIFEST_FILE).write_bytes(raw)
    with pytest.raises(BadInput):
        load_dataset(dataset, limits=Limits())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("language_score", float("nan")),
        ("language_score", 1.5),
        ("warc_offset", -1),
        ("warc_length", 2**60),
        ("token_count", -5),
        ("text", ""),
        ("url", "x" * 9000),
        ("minhash", [1, 2, 3]),
        ("warc_offset", 0),
    ],
)
def test_a_row_with_an_impossible_value_is_refused(dataset, name, value):
    table = load_dataset(dataset, limits=Limits()).table
    rewrite(dataset, changed(table, name, value))
    with pytest.raises(BadInput):
        load_dataset(dataset, limits=Limits())


def _dictionary(path, table):
    with pq.ParquetWriter(path, ROW_SCHEMA, store_schema=False) as writer:
        writer.write_table(table)


def _with_schema(path, table):
    pq.write_table(table, path, use_dictionary=False)


def _other_pages(path, table):
    with pq.ParquetWriter(
        path, ROW_SCHEMA, store_schema=False, use_dictionary=False, data_page_version="2.0"
    ) as writer:
        writer.write_table(table)


def _one_group(path, table):
    with parquet_writer(path) as writer:
        writer.write_table(table)


def _extra_column(path, table):
    pq.write_table(table.append_column("x", table["url"]), path, use_dictionary=False, store_schema=False)


def _garbage(path, _table):
    path.write_bytes(b"PAR1" + b"\xff" * 200 + b"PAR1")


@pytest.mark.parametrize("write", [_dictionary, _with_schema, _other_pages, _one_group, _extra_column, _garbage])
def test_another_form_of_parquet_is_refused(dataset, write):
    table = load_dataset(dataset, limits=Limits()).table
    rewrite(dataset, table, write)
    with pytest.raises(BadInput):
        load_dataset(dataset, limits=Limits())


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_it_does(dataset):
    table = load_dataset(dataset, limits=Limits()).table.slice(0, 1)
    bomb = pa.Table.from_pylist([table.to_pylist()[0] | {"text": "a" * (48 << 20)}], schema=ROW_SCHEMA)
    rewrite(dataset, bomb)
    assert (dataset / DATA_FILE).stat().st_size < 1 << 20
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(TooLarge, match="unpack"):
        load_dataset(dataset, limits=Limits(max_unpacked_bytes=16 << 20))
    assert pa.default_memory_pool().max_memory() == before


def test_damaged_bytes_are_refused_or_do_not_matter(dataset):
    raw = (dataset / DATA_FILE).read_bytes()
    table = load_dataset(dataset, limits=Limits()).table
    for position in range(4, len(raw) - 8, max(1, len(raw) // 150)):
        damaged = raw[:position] + bytes([raw[position] ^ 0xA5]) + raw[position + 1 :]
        rewrite(dataset, table, lambda path, _table, damaged=damaged: path.write_bytes(damaged))
        try:
            loaded = load_dataset(dataset, limits=Limits())
        except BadInput:
            continue
        assert loaded.table.equals(table)  # the footer has bytes that nothing reads
