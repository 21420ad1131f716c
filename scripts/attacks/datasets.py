"""Datasets of the right form for any rows at all: what an honest miner publishes, and what a forger does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from athena.durable import write_file
from athena.protocol import FileEntry, Manifest, RecipeRef, Task, merkle_root
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, ROW_SCHEMA, leaves, parquet_writer

Row = dict[str, Any]
OTHER_RECIPE = RecipeRef(name="my-recipe", version="1", hash="77" * 32)


def own_decisions(rows: Sequence[Row]) -> list[Row]:
    """What a recipe of a miner's own makes of canonical rows: some pages less, and of others the last line less."""
    kept = (row for row in rows if row["warc_offset"] % 7)
    return [
        {**row, "text": row["text"].rsplit("\n", 1)[0]} if row["warc_offset"] % 3 == 0 and "\n" in row["text"] else row
        for row in kept
    ]


def write_dataset(
    folder: Path, rows: Sequence[Row], task: Task, hotkey: str, recipe: RecipeRef = OTHER_RECIPE, **changed: object
) -> Manifest:
    """Writes rows, grouped by WARC file in the order in which they come, and a manifest; `changed` are fields of the
    manifest that are to say something else."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=ROW_SCHEMA)
    with parquet_writer(folder / DATA_FILE) as writer:
        for path in dict.fromkeys(row["warc_path"] for row in rows):
            group = table.filter(pc.equal(table["warc_path"], path))
            writer.write_table(group, row_group_size=max(1, group.num_rows))
    data = (folder / DATA_FILE).read_bytes()
    entry = FileEntry(path=DATA_FILE, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=table.num_rows)
    manifest = Manifest(
        task_id=task.id,
        hotkey=hotkey,
        rule_version=task.rule_version,
        recipe=recipe,
        files=(entry,),
        records=table.num_rows,
        rows=table.num_rows,
        rejected={},
        tokens=sum(table["token_count"].to_pylist()),
        root=merkle_root(leaves(table, hotkey)),
    ).model_copy(update=changed)
    write_file(folder / MANIFEST_FILE, manifest.canonical())
    return manifest
