"""From accepted datasets on a hub to the mixture's documents in one Parquet file."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from athena.draw import permuted, sample
from athena.durable import sha256_of
from athena.errors import BadInput, NotFound
from athena.evalpack import EvalPack
from athena.evaluations.canaries import CanaryPlan, planted
from athena.events import EventLog
from athena.optout import NOTHING_LEFT_OUT, LeftOut
from athena.protocol import DatasetRef, Hex64, Noun, canonical_json
from athena.refine.manifest import DATA_FILE, Dataset, Limits, load_dataset
from athena.refine.text.minhash import signature
from athena.train.encoder import DOCUMENTS_SCHEMA
from athena.train.folders import staged
from athena.train.mixing import CandidateTable
from athena.train.mixture import AcceptedDataset, HeldOut, MixtureRules, candidates, hash_of

log = logging.getLogger(__name__)

LIMITS = Limits()
DOCUMENTS = "documents.parquet"
INFO = "mixture.json"
_BANDS = pa.field("bands", pa.binary())
"""A document's MinHash bands, as the table of candidates holds them: later mixtures are compared with it by them."""
_SCHEMA = DOCUMENTS_SCHEMA.append(_BANDS)
_ROWS_PER_GROUP = 1024
CHECKED_SIGNATURES = 16


class MixtureInfo(Noun):
    """mixture.json, written last. Token counts are the datasets' own; `refused`: reason by dataset."""

    format: Literal["athena-mixture/2"] = "athena-mixture/2"
    rules: MixtureRules
    eval_pack: Hex64
    left_out: Hex64
    """Digest of the domains that are left out (athena.optout)."""
    earlier: tuple[Hex64, ...] = ()
    """documents_sha256 of the mixtures whose texts are not taken again."""
    datasets: tuple[AcceptedDataset, ...]
    refused: dict[str, str]
    dropped: dict[str, int]
    """Documents by reason."""
    documents: int
    """Without canaries."""
    tokens: int
    tokens_by_hotkey: dict[str, int]
    tokens_by_dataset: dict[str, int]
    tokens_by_crawl: dict[str, int]
    tokens_by_language: dict[str, int]
    documents_sha256: Hex64


class Sources(Protocol):
    """Where datasets lie: the part of a hub that a mixture needs."""

    scheme: str

    def fetch(
        self, name: str, revision: str, into: Path, *, max_bytes: int, suffixes: tuple[str, ...] = ()
    ) -> Path: ...


def gather(
    datasets: Sequence[AcceptedDataset],
    rules: MixtureRules,
    pack: EvalPack,
    hub: Sources,
    shelf: Path,
    into: Path,
    events: EventLog,
    left_out: LeftOut = NOTHING_LEFT_OUT,
    earlier: Sequence[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MixtureInfo:
    """Fetches `datasets` (in canonical order) below `shelf`, chooses documents, leaves them in `into`.

    Pages that are `left_out` by now are not trained on, whenever they were refined; nor are texts again that one of the
    `earlier` mixtures holds, or nearly. `progress` takes (datasets read, datasets). What was read lies on the shelf
    until the shelf is removed: a call that was killed goes on with the next dataset, and one with other rules reads
    none again.

    A dataset that is gone, or not what its miner committed to, is left out with its reason. Raises NotFound when
    nothing is left to train on, and Unavailable when a service fails: the same call goes on later.
    """
    with CandidateTable(shelf / "candidates.sqlite", _about(datasets, pack, left_out)) as table:
        _scan(datasets, pack, hub, shelf, left_out, table, events, progress)
        mixture = table.mix({d.hotkey: d.incentive for d in datasets}, rules, _texts_of(earlier))
        if not mixture.tokens_by_dataset:
            raise NotFound("no document to train on", remedy="wait until validators have scored and weights have paid")
        with staged(into) as out:
            documents = out / DOCUMENTS
            num_documents = _write(datasets, mixture.tokens_by_dataset, table, hub, shelf, documents, rules.canaries)
            info = MixtureInfo(
                rules=rules,
                eval_pack=pack.hash,
                left_out=left_out.digest,
                earlier=tuple(load_mixture(folder).documents_sha256 for folder in earlier),
                datasets=tuple(datasets),
                refused={str(datasets[index].dataset): reason for index, reason in table.refused().items()},
                dropped=dict(sorted(mixture.dropped.items())),
                documents=num_documents,
                tokens=sum(mixture.tokens_by_hotkey.values()),
                tokens_by_hotkey=mixture.tokens_by_hotkey,
                tokens_by_dataset={str(datasets[i].dataset): n for i, n in mixture.tokens_by_dataset.items()},
                tokens_by_crawl=mixture.tokens_by_crawl,
                tokens_by_language=mixture.tokens_by_language,
                documents_sha256=sha256_of(documents),
            )
            (out / INFO).write_bytes(info.canonical())
    return info


def load_mixture(folder: Path) -> MixtureInfo:
    """What mixture.json says. Raises NotFound, or BadInput where it is damaged."""
    if not (folder / INFO).is_file():
        raise NotFound(f"no mixture in {folder}", remedy="make one with `athena train mixture`")
    try:
        return MixtureInfo.model_validate_json((folder / INFO).read_bytes())
    except ValidationError as error:
        raise BadInput(f"{folder / INFO} is damaged: {error}") from error


def _about(datasets: Sequence[AcceptedDataset], pack: EvalPack, left_out: LeftOut) -> str:
    """What the candidates depend on: not on what their miners are paid, nor on the rules."""
    told = [[str(d.dataset), d.hotkey, d.task_id] for d in datasets]
    return hashlib.sha256(canonical_json([told, pack.hash, left_out.digest])).hexdigest()


def _scan(
    datasets: Sequence[AcceptedDataset],
    pack: EvalPack,
    hub: Sources,
    shelf: Path,
    left_out: LeftOut,
    table: CandidateTable,
    events: EventLog,
    progress: Callable[[int, int], None],
) -> None:
    """The candidates of all datasets that are not in the table yet."""
    held_out: HeldOut | None = None
    for index, dataset in enumerate(datasets):
        if not table.scanned(index):
            held_out = held_out or HeldOut(pack.texts())
            dropped: Counter[str] = Counter()
            try:
                rows = _rows(fetch_dataset(dataset, hub, shelf))
                table.add(index, candidates(index, dataset.hotkey, rows, held_out, left_out, dropped), dropped)
            except (BadInput, NotFound) as error:
                log.warning("dataset %s left out: %s", dataset.dataset, error)
                events.emit("train.refused", dataset=str(dataset.dataset), hotkey=dataset.hotkey, reason=str(error))
                table.refuse(index, str(error))
        progress(index + 1, len(datasets))


def _write(
    datasets: Sequence[AcceptedDataset],
    chosen: Iterable[int],
    table: CandidateTable,
    hub: Sources,
    shelf: Path,
    path: Path,
    canaries: CanaryPlan | None,
) -> int:
    """The chosen rows of each dataset, in order of datasets, and canaries after them; how many there are without."""
    written = 0
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for index in sorted(chosen):
            if not (_folder(datasets[index].dataset, shelf) / DATA_FILE).exists():
                fetch_dataset(datasets[index], hub, shelf)
            documents = _chosen(datasets[index], table.rows(index), shelf)
            writer.write_table(documents, row_group_size=_ROWS_PER_GROUP)
            written += documents.num_rows
        if canaries is not None:
            writer.write_table(_nobodys(planted(canaries)))
    return written


def fetch_dataset(accepted: AcceptedDataset, hub: Sources, shelf: Path) -> Dataset:
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
    columns = ["text", "url", "warc_path", "warc_offset", "token_count", "language", "minhash"]
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


def _chosen(accepted: AcceptedDataset, rows: dict[int, bytes], shelf: Path) -> pa.Table:
    """Rows of a dataset that `fetch_dataset` verified, as _SCHEMA; `rows`: their bands by number."""
    table = pq.read_table(_folder(accepted.dataset, shelf) / DATA_FILE, use_threads=False).take(list(rows))
    table = table.append_column(_BANDS, pa.array(rows.values(), _BANDS.type))
    constant = {"hotkey": accepted.hotkey, "task_id": accepted.task_id, "dataset": str(accepted.dataset)}
    columns = [
        pa.array([constant[field.name]] * len(rows), field.type)
        if field.name in constant
        else table.column(field.name).cast(field.type)
        for field in _SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _nobodys(texts: Iterable[str]) -> pa.Table:
    """Texts without an origin, as _SCHEMA."""
    empty = {field.name: "" if pa.types.is_string(field.type) else 0 for field in DOCUMENTS_SCHEMA}
    return pa.Table.from_pylist([{**empty, "text": text, _BANDS.name: b""} for text in texts], schema=_SCHEMA)


def _texts_of(mixtures: Iterable[Path]) -> Iterator[tuple[bytes, bytes]]:
    """The hash and the bands of each document of miners."""
    for mixture in mixtures:
        with pq.ParquetFile(mixture / DOCUMENTS) as file:
            for batch in file.iter_batches(_ROWS_PER_GROUP, columns=["text", "hotkey", _BANDS.name]):
                for text, hotkey, bands in zip(*(column.to_pylist() for column in batch), strict=True):
                    if hotkey:
                        yield hash_of(text), bands


def read_documents(mixture: Path, *, seed: int | None = None) -> Iterator[dict[str, Any]]:
    """The mixture's documents, fields of DOCUMENTS_SCHEMA, one row group in memory at a time.

    In the file's order, or with `seed` the row groups in a drawn order, so that the first of them stand for all.
    """
    with pq.ParquetFile(mixture / DOCUMENTS) as file:
        count = file.num_row_groups
        for i in range(count):
            group = i if seed is None else permuted(f"{seed}:groups", count, i)
            yield from file.read_row_group(group).to_pylist()
