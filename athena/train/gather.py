"""From accepted datasets on a hub to the mixture's documents in one Parquet file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from athena.draw import sample
from athena.durable import sha256_of
from athena.errors import BadInput, NotFound
from athena.evalpack import EvalPack
from athena.events import EventLog
from athena.hub import Hub
from athena.judge.words import overlap_ngrams
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import DatasetRef, Hex64, Noun
from athena.refine.manifest import DATA_FILE, Dataset, Limits, load_dataset
from athena.refine.text.minhash import signature
from athena.train.folders import staged
from athena.train.mixture import AcceptedDataset, Candidate, MixtureRules, candidates, mix
from athena.train.tokens import ORIGIN, permuted

log = logging.getLogger(__name__)

LIMITS = Limits()
DOCUMENTS = "documents.parquet"
DOCUMENTS_SCHEMA = pa.schema([("text", pa.string()), *ORIGIN])
_ROWS_PER_GROUP = 1024
CHECKED_SIGNATURES = 16


class MixtureInfo(Noun):
    """mixture.json, written last. Token counts are the datasets' own; `refused`: reason by dataset."""

    format: Literal["athena-mixture/1"] = "athena-mixture/1"
    rules: MixtureRules
    eval_pack: Hex64
    datasets: tuple[AcceptedDataset, ...]
    refused: dict[str, str]
    dropped: dict[str, int]
    documents: int
    tokens_by_hotkey: dict[str, int]
    documents_sha256: Hex64


def gather(
    datasets: Sequence[AcceptedDataset],
    rules: MixtureRules,
    pack: EvalPack,
    hub: Hub,
    shelf: Path,
    into: Path,
    events: EventLog,
    left_out: LeftOut = NOTHING_LEFT_OUT,
) -> MixtureInfo:
    """Fetches `datasets` (in canonical order) below `shelf`, chooses documents, leaves them in `into`.

    Pages that are `left_out` by now are not trained on, whenever they were refined.

    A dataset that is gone, or not what its miner committed to, is left out with its reason. Raises NotFound when
    nothing is left to train on, and Unavailable when a service fails: the same call goes on later.
    """
    held_out = frozenset(gram for document in pack.documents for gram in overlap_ngrams(document.text))
    refused: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    found: list[Candidate] = []
    for index, dataset in enumerate(datasets):
        try:
            rows = _rows(fetch_dataset(dataset, hub, shelf))
            found += candidates(index, dataset.hotkey, rows, held_out, left_out, dropped)
        except (BadInput, NotFound) as error:
            log.warning("dataset %s left out: %s", dataset.dataset, error)
            events.emit("train.refused", dataset=str(dataset.dataset), hotkey=dataset.hotkey, reason=str(error))
            refused[str(dataset.dataset)] = str(error)
    mixture = mix(found, {d.hotkey: d.incentive for d in datasets}, rules)
    if not mixture.rows:
        raise NotFound("no document to train on", remedy="wait until validators have scored and weights have paid")
    with staged(into) as out:
        num_documents = 0
        with pq.ParquetWriter(out / DOCUMENTS, DOCUMENTS_SCHEMA, compression="zstd") as writer:
            for index, rows_of_dataset in mixture.rows.items():
                table = _chosen(datasets[index], rows_of_dataset, shelf)
                writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
                num_documents += table.num_rows
        info = MixtureInfo(
            rules=rules,
            eval_pack=pack.hash,
            datasets=tuple(datasets),
            refused=refused,
            dropped=dict(sorted((dropped + mixture.dropped).items())),
            documents=num_documents,
            tokens_by_hotkey=mixture.tokens_by_hotkey,
            documents_sha256=sha256_of(out / DOCUMENTS),
        )
        (out / "mixture.json").write_bytes(info.canonical())
    return info


def fetch_dataset(accepted: AcceptedDataset, hub: Hub, shelf: Path) -> Dataset:
    """The dataset, verified: its files, rows and Merkle root are those that the miner committed to.

    Raises BadInput, NotFound, TooLarge, Unavailable.
    """
    ref = accepted.dataset
    if ref.scheme != hub.scheme:
        raise BadInput(f"{ref.location} does not lie on this hub ({hub.scheme}:)")
    limit = LIMITS.max_manifest_bytes + LIMITS.max_data_bytes
    folder = _folder(ref, shelf)
    hub.fetch(ref.repository, ref.revision, folder, max_bytes=limit, suffixes=(".json", ".parquet"))
    dataset = load_dataset(folder, limits=LIMITS)
    manifest = dataset.manifest
    if (manifest.root, manifest.hotkey, manifest.task_id) != (ref.root, accepted.hotkey, accepted.task_id):
        raise BadInput(f"{ref} is not the dataset that {accepted.hotkey} committed to")
    return dataset


def _folder(ref: DatasetRef, shelf: Path) -> Path:
    """Named by the bytes: another dataset that claims the same root never takes the place of a verified one."""
    return shelf / f"{ref.root}-{ref.revision}"


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """What the mixture decides by. Rows without a MinHash signature get one: a recipe may leave it out."""
    _check_signatures(dataset)
    columns = ["text", "url", "warc_path", "warc_offset", "token_count", "minhash"]
    for batch in dataset.table.select(columns).to_batches(max_chunksize=_ROWS_PER_GROUP):
        for row in batch.to_pylist():
            yield row if row["minhash"] is not None else {**row, "minhash": signature(row["text"])}


def _check_signatures(dataset: Dataset) -> None:
    """Raises BadInput if drawn rows do not bear their text's signature: others' texts could be pushed out with it.

    The root does not cover signatures, and a recipe may edit a text after signing it, so half of the hashes suffice.
    """
    signed = dataset.table.filter(dataset.table["minhash"].is_valid())
    for index in sample(bytes.fromhex(dataset.manifest.root), signed.num_rows, CHECKED_SIGNATURES):
        row = signed.slice(index, 1).to_pylist()[0]
        actual = signature(row["text"])
        if actual is None or np.mean(actual == np.array(row["minhash"], dtype=np.uint64)) < 0.5:
            raise BadInput(f"row {row['record_id']} does not bear the MinHash signature of its text")


def _chosen(accepted: AcceptedDataset, rows: list[int], shelf: Path) -> pa.Table:
    """Rows of a dataset that `fetch_dataset` verified, as DOCUMENTS_SCHEMA."""
    table = pq.read_table(_folder(accepted.dataset, shelf) / DATA_FILE, use_threads=False).take(rows)
    constant = {"hotkey": accepted.hotkey, "task_id": accepted.task_id, "dataset": str(accepted.dataset)}
    columns = [
        pa.array([constant[field.name]] * len(rows), field.type)
        if field.name in constant
        else table.column(field.name).cast(field.type)
        for field in DOCUMENTS_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=DOCUMENTS_SCHEMA)


def read_documents(mixture: Path, *, seed: int | None = None) -> Iterator[dict[str, Any]]:
    """The mixture's documents, fields of DOCUMENTS_SCHEMA, one row group in memory at a time.

    In the file's order, or with `seed` the row groups in a drawn order, so that the first of them stand for all.
    """
    with pq.ParquetFile(mixture / DOCUMENTS) as file:
        count = file.num_row_groups
        for i in range(count):
            group = i if seed is None else permuted(f"{seed}:groups", count, i)
            yield from file.read_row_group(group).to_pylist()
