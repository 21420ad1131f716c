"""Whose tokens: the documents of a run, summed up by dataset and WARC file."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq

from athena.protocol import DatasetRef, LineageEntry


def summarize_lineage(documents: Path) -> tuple[LineageEntry, ...]:
    """Documents and tokens by dataset and WARC file, in order of miner and task; reads row group by row group."""
    tokens: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    columns = ["hotkey", "task_id", "dataset", "warc_path", "tokens"]
    with pq.ParquetFile(documents) as file:
        for batch in file.iter_batches(columns=columns):
            for hotkey, task_id, dataset, warc_path, number in zip(*(c.to_pylist() for c in batch), strict=True):
                tokens[hotkey, task_id, dataset][warc_path] += number
                counts[hotkey, task_id, dataset] += 1
    return tuple(
        LineageEntry(
            hotkey=key[0],
            task_id=key[1],
            dataset=DatasetRef.parse(key[2]),
            tokens=sum(by_warc.values()),
            documents=counts[key],
            tokens_by_warc=dict(sorted(by_warc.items())),
        )
        for key, by_warc in sorted(tokens.items())
    )
