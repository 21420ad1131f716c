"""The form of a dataset: data.parquet, one row group per WARC in shard order, rows by offset; and manifest.json.

The loader is the gate through which strangers' files come in: sizes before reading, then the footer, then every page
header, then the rows, and last the Merkle root.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from athena.errors import BadInput, NotFound, TooLarge
from athena.protocol import ROW_FIELDS, Manifest, merkle_root, row_leaf
from athena.refine.parquet_pages import check_pages, open_parquet
from athena.refine.text.minhash import NUM_HASHES

DATA_FILE = "data.parquet"
MANIFEST_FILE = "manifest.json"
_MAX_SHORT_TEXT_BYTES = 8192  # of url, date, record id and the like
_LEAF_BATCH_ROWS = 1024

ROW_SCHEMA = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("date", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("language_score", pa.float64(), nullable=False),
        pa.field("token_count", pa.int64(), nullable=False),
        pa.field("warc_path", pa.string(), nullable=False),
        pa.field("warc_offset", pa.int64(), nullable=False),
        pa.field("warc_length", pa.int64(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("payload_digest", pa.string(), nullable=False),
        # 112 values, 14 buckets of 8; null where the text has no 5-gram or the recipe does not sign.
        pa.field("minhash", pa.list_(pa.field("element", pa.uint64(), nullable=False))),
    ]
)


@dataclass(frozen=True)
class Limits:
    """How much of a stranger's dataset is read at all. Bytes, except for `max_rows`."""

    max_manifest_bytes: int = 1 << 20
    max_data_bytes: int = 1 << 30
    max_unpacked_bytes: int = 4 << 30
    max_rows: int = 2_000_000
    max_text_bytes: int = 8 << 20


@dataclass(frozen=True)
class Dataset:
    """A dataset whose form, checksums and root hold. `table` has ROW_SCHEMA, in file order."""

    manifest: Manifest
    table: pa.Table


def parquet_writer(path: Path) -> pq.ParquetWriter:
    """A writer whose bytes depend on the rows and pyarrow's version alone, in the form that load_dataset takes."""
    return pq.ParquetWriter(
        path, ROW_SCHEMA, compression="zstd", compression_level=3, use_dictionary=False, store_schema=False,
        write_statistics=False, version="2.6", data_page_version="1.0",
    )  # fmt: skip


def leaves(table: pa.Table, hotkey: str) -> Iterator[bytes]:
    """The Merkle leaf of each row, in order."""
    for batch in table.select(ROW_FIELDS).to_batches(max_chunksize=_LEAF_BATCH_ROWS):
        for row in batch.to_pylist():
            yield row_leaf(hotkey, row)


def load_dataset(folder: Path, *, limits: Limits) -> Dataset:
    """The dataset in `folder`, if it keeps every promise of its form.

    Raises NotFound if a file is missing, TooLarge over a limit, BadInput for everything else. What the rows claim
    about the crawl is not checked here.
    """
    manifest = _read_manifest(folder, limits)
    if [entry.path for entry in manifest.files] != [DATA_FILE]:
        raise BadInput(f"the manifest lists other files than {DATA_FILE}")
    entry = manifest.files[0]
    path = folder / DATA_FILE
    if _size(path, limits.max_data_bytes) != entry.bytes:
        raise BadInput(f"{DATA_FILE} has another size than the manifest says")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            raise BadInput(f"{DATA_FILE} has another sha256 than the manifest says")
        table = _read_table(file, limits)
    _check_values(table, limits)
    if not table.num_rows == entry.rows == manifest.rows:
        raise BadInput(f"the manifest counts {manifest.rows} rows, the file holds {table.num_rows}")
    if manifest.rows + sum(manifest.rejected.values()) != manifest.records:
        raise BadInput("rows and rejected records do not add up to the records")
    if (pc.sum(table["token_count"]).as_py() or 0) != manifest.tokens:
        raise BadInput("the rows' token counts do not add up to the manifest's")
    if merkle_root(leaves(table, manifest.hotkey)) != manifest.root:
        raise BadInput("the rows have another Merkle root than the manifest says")
    return Dataset(manifest, table)


def _size(path: Path, limit: int) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError as error:
        raise NotFound(f"the dataset has no {path.name}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path.name} is not a regular file")
    if status.st_size > limit:
        raise TooLarge(f"{path.name} has {status.st_size} bytes, over {limit}")
    return status.st_size


def _read_manifest(folder: Path, limits: Limits) -> Manifest:
    path = folder / MANIFEST_FILE
    _size(path, limits.max_manifest_bytes)
    try:
        manifest = Manifest.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise BadInput(f"{MANIFEST_FILE} is not a manifest: {error.error_count()} faults") from error
    if any(count < 0 for count in manifest.rejected.values()):
        raise BadInput("the manifest counts fewer than no records")
    return manifest


def _read_table(file: Any, limits: Limits) -> pa.Table:
    parquet = open_parquet(file)
    metadata = parquet.metadata
    if metadata.num_rows > limits.max_rows:
        raise TooLarge(f"{metadata.num_rows} rows, over {limits.max_rows}")
    if metadata.metadata:  # Arrow would read another schema out of it
        raise BadInput("the Parquet footer carries metadata", remedy="write Parquet with store_schema=False")
    if not parquet.schema_arrow.equals(ROW_SCHEMA):
        raise BadInput("the rows have another schema", remedy="see athena.refine.manifest.ROW_SCHEMA")
    check_pages(file, metadata, max_bytes=limits.max_unpacked_bytes, max_values_per_row=NUM_HASHES)
    seen: set[str] = set()
    groups: list[pa.Table] = []
    for index in range(metadata.num_row_groups):
        try:
            group = parquet.read_row_group(index, use_threads=False)
            group.validate(full=True)
        except (OSError, ValueError) as error:
            raise BadInput(f"row group {index} cannot be read: {error}") from error
        seen.add(_warc_of(group, seen))
        groups.append(group)
    return pa.concat_tables(groups) if groups else ROW_SCHEMA.empty_table()


def _warc_of(group: pa.Table, seen: Iterable[str]) -> str:
    """The one WARC that a row group's rows come from, by rising offset."""
    paths = pc.unique(group["warc_path"]).to_pylist()
    if len(paths) != 1 or paths[0] in seen:
        raise BadInput("a row group is not the rows of one WARC, or a WARC has two")
    offsets = group["warc_offset"].to_numpy()
    if (offsets[1:] <= offsets[:-1]).any():
        raise BadInput("the rows of a WARC are not in rising order of offset")
    return str(paths[0])


def _check_values(table: pa.Table, limits: Limits) -> None:
    for name in ROW_FIELDS:
        column = table[name]
        if pa.types.is_string(column.type):
            allowed = limits.max_text_bytes if name == "text" else _MAX_SHORT_TEXT_BYTES
            if (pc.max(pc.binary_length(column)).as_py() or 0) > allowed:
                raise TooLarge(f"a row's {name} has more than {allowed} bytes")
        elif not pc.all(pc.and_(pc.greater_equal(column, 0), pc.less(column, 1 << 53))).as_py() and len(column):
            raise BadInput(f"a row's {name} is out of range")
    if (pc.min(pc.binary_length(table["text"])).as_py() or 0) == 0 and table.num_rows:
        raise BadInput("a row has no text")
    if (pc.max(table["language_score"]).as_py() or 0.0) > 1.0:
        raise BadInput("a row's language_score is above 1")
    lengths = pc.unique(pc.list_value_length(table["minhash"])).to_pylist()
    if any(length not in (None, NUM_HASHES) for length in lengths):
        raise BadInput(f"a row's minhash has other than {NUM_HASHES} values")
