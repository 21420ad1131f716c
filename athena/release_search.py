"""Where a page, a domain or a miner's work lies: in which releases and datasets, and in which of their rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from athena.errors import BadInput, NotFound
from athena.hub import Hub
from athena.journal import Verify
from athena.optout import host_of
from athena.protocol import Manifest
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE
from athena.release import LINEAGE, MANIFEST, MAX_MANIFEST_BYTES, read_release
from athena.release_hub import Wanted, fetch_part, locate
from athena.release_lineage import HOST, Sought, find_documents, host_key

MAX_LINEAGE_BYTES = 256 * 2**30
_DATASET_COLUMNS = ("url", "warc_path", "warc_offset", "warc_length", "record_id", "token_count")


@dataclass(frozen=True)
class Place:
    """A release or a dataset in `folder`; `name` is what it calls itself."""

    kind: Literal["release", "dataset"]
    name: str
    folder: Path

    def find(self, sought: Sought) -> Iterator[pa.Table]:
        """The matching documents: url, hotkey, dataset, warc_path, warc_offset, warc_length, record_id, tokens.

        Raises BadInput for a damaged file.
        """
        return find_documents(self.folder / LINEAGE, sought) if self.kind == "release" else self._of_dataset(sought)

    def _of_dataset(self, sought: Sought) -> Iterator[pa.Table]:
        manifest = _manifest(self.folder / MANIFEST_FILE)
        if sought.hotkey not in (None, manifest.hotkey):
            return
        try:
            with pq.ParquetFile(self.folder / DATA_FILE) as file:
                for batch in file.iter_batches(columns=list(_DATASET_COLUMNS), use_threads=False):
                    table = pa.Table.from_batches([batch]).rename_columns([*_DATASET_COLUMNS[:-1], "tokens"])
                    hosts = [host_key(host_of(url)) for url in table["url"].to_pylist()]
                    given = {HOST: pa.array(hosts, pa.string())}
                    given |= {
                        name: pa.array([value] * table.num_rows, pa.string())
                        for name, value in (("hotkey", manifest.hotkey), ("dataset", self.name))
                    }
                    for name, column in given.items():
                        table = table.append_column(name, column)
                    found = sought.matches(table).drop_columns([HOST])
                    if found.num_rows:
                        yield found
        except (pa.ArrowException, OSError, KeyError) as error:
            raise BadInput(f"{self.folder} cannot be read: {error}", remedy="fetch the dataset again") from error


def places_below(roots: Iterable[Path]) -> Iterator[Place]:
    """Every release and every dataset in these folders, or anywhere below them. Raises NotFound for a folder that is
    not there."""
    for root in roots:
        if not root.is_dir():
            raise NotFound(f"no folder {root}")
        for folder, below, files in os.walk(root):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if MANIFEST in files and LINEAGE in files:
                release = read_release(Path(folder)).release
                yield Place("release", f"{release.name} {release.version}", Path(folder))
            elif MANIFEST_FILE in files and DATA_FILE in files:
                yield Place("dataset", _manifest(Path(folder) / MANIFEST_FILE).root, Path(folder))
            else:
                continue
            below.clear()


def published_place(hub: Hub, wanted: Wanted, shelf: Path, verify: Verify) -> Place:
    """A release on a hub, of which only the lineage is fetched, once, into `shelf`. Raises what `locate` raises."""
    revision, digest = locate(hub, wanted, verify)
    folder = shelf / revision
    signed = fetch_part(
        hub, wanted.name, revision, folder, verify, digest=digest, file=LINEAGE,
        max_bytes=MAX_MANIFEST_BYTES + MAX_LINEAGE_BYTES,
    )  # fmt: skip
    return Place("release", f"{signed.release.name} {signed.release.version}", folder)


def _manifest(file: Path) -> Manifest:
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BadInput(f"{file} is over {MAX_MANIFEST_BYTES} bytes")
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} is not a dataset's manifest: {error.errors()[0]['msg']}") from error
