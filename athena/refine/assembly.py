"""From parts to a dataset: near-duplicates go, the first by (source, offset) stays; the manifest comes last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from athena.durable import finish, sha256_of, write_file
from athena.protocol import FileEntry, Manifest, merkle_root
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, leaves, parquet_writer
from athena.refine.parts import Parts
from athena.refine.recipe import Recipe
from athena.refine.text.minhash import Signature, first_of_each

DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Label:
    """In whose name, for which task and under which rules a dataset is made: what its manifest says beside its rows."""

    task_id: str
    hotkey: str
    rule_version: str


def finished_manifest(out: Path, label: Label, recipe: Recipe) -> Manifest | None:
    """The manifest of the dataset in `out` if it is just this one. That of another is removed."""
    path = out / MANIFEST_FILE
    if not path.exists():
        return None
    manifest = Manifest.model_validate_json(path.read_bytes())
    if (manifest.task_id, manifest.hotkey, manifest.recipe) == (label.task_id, label.hotkey, recipe.ref):
        return manifest
    path.unlink()
    return None


def assemble(parts: Parts, sources: int, label: Label, recipe: Recipe, out: Path) -> Manifest:
    """The dataset of all sources, each of which is done. One row group per source that has rows."""
    kept = np.array(
        first_of_each(s for i in range(sources) for s in signatures(parts.of(i).table(["minhash"]))), dtype=bool
    )
    rejected: Counter[str] = Counter()
    records = rows = tokens = start = 0
    row_leaves: list[bytes] = []
    temporary = parts.folder / f"{DATA_FILE}.part"
    with parquet_writer(temporary) as writer:
        for index in range(sources):
            counts, table = parts.of(index).counts(), parts.of(index).table()
            table = table.filter(pa.array(kept[start : start + counts.rows])).combine_chunks()
            start += counts.rows
            records += counts.records
            rejected.update(counts.rejected)
            rejected[DUPLICATE] += counts.rows - table.num_rows
            if not table.num_rows:
                continue
            writer.write_table(table, row_group_size=table.num_rows)
            rows += table.num_rows
            tokens += sum(table["token_count"].to_pylist())
            row_leaves.extend(leaves(table, label.hotkey))
    out.mkdir(parents=True, exist_ok=True)
    data = out / DATA_FILE
    finish(temporary, data)
    entry = FileEntry(path=DATA_FILE, bytes=data.stat().st_size, sha256=sha256_of(data), rows=rows)
    manifest = Manifest(
        task_id=label.task_id,
        hotkey=label.hotkey,
        rule_version=label.rule_version,
        recipe=recipe.ref,
        files=(entry,),
        records=records,
        rows=rows,
        rejected=dict(sorted((+rejected).items())),
        tokens=tokens,
        root=merkle_root(row_leaves),
    )
    write_file(out / MANIFEST_FILE, manifest.canonical())
    return manifest


def signatures(table: pa.Table) -> Iterator[Signature | None]:
    """The MinHash signatures of rows."""
    for value in table["minhash"]:
        yield value.values.to_numpy() if value.is_valid else None
