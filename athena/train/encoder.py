"""Texts to token ids, one shard of documents at a time. `python -m athena.train.encoder` is a worker.

A worker reads orders from its standard input, one a line, and answers each. It ends when its input ends, so none
outlives the process that started it. What a shard holds depends on its order alone, so any number of workers leaves the
same bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from tokenizers import Tokenizer

from athena.durable import flush, sha256_of, write_file
from athena.errors import Unavailable
from athena.protocol import Hex64, Noun

Dtype = Literal["uint16", "uint32"]
ORIGIN = (
    ("hotkey", pa.string()),
    ("task_id", pa.string()),
    ("dataset", pa.string()),
    ("warc_path", pa.string()),
    ("warc_offset", pa.int64()),
    ("warc_length", pa.int64()),
    ("record_id", pa.string()),
    ("url", pa.string()),
)
DOCUMENTS_SCHEMA = pa.schema([("text", pa.string()), *ORIGIN])
LINEAGE_SCHEMA = pa.schema([*ORIGIN, ("tokens", pa.int64())])
_MODULE = [sys.executable, "-m", "athena.train.encoder"]
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}  # a worker is one core
_DONE = b"done\n"


class ShardOrder(Noun):
    """Row groups of a Parquet file of DOCUMENTS_SCHEMA to encode, and where the result is to lie."""

    documents: Path
    first_group: Annotated[int, Field(ge=0)]
    last_group: Annotated[int, Field(ge=1)]
    """The first one that is not read."""
    tokenizer: Path
    """Its tokenizer.json."""
    end: int
    dtype: Dtype
    folder: Path
    number: Annotated[int, Field(ge=0)]

    @property
    def name(self) -> str:
        return f"tokens-{self.number:05d}"

    @property
    def lineage(self) -> Path:
        return self.folder / f"{self.name}.parquet"

    @property
    def done(self) -> Path:
        """An EncodedShard, written last: where it is there, the shard is whole."""
        return self.folder / f"{self.name}.json"


class EncodedShard(Noun):
    """What a worker leaves: `<name>.bin` with these tokens. `cpu_seconds` of encoding and writing."""

    path: str
    tokens: int
    documents: int
    sha256: Hex64
    cpu_seconds: float


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text and nothing before it. Text that spells a special token out is encoded as the text it is."""
    tokenizer.encode_special_tokens = True
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def encode_shard(order: ShardOrder) -> EncodedShard:
    """Leaves the shard's token file and lineage, unless an earlier attempt finished them.

    Memory is that of one row group. Each document is opened by `order.end`.
    """
    if order.done.exists():
        return EncodedShard.model_validate_json(order.done.read_bytes())
    started = time.process_time()
    tokenizer = Tokenizer.from_file(str(order.tokenizer))
    stream = order.folder / f"{order.name}.bin"
    num_tokens = num_documents = 0
    with (
        stream.open("wb") as file,
        pq.ParquetFile(order.documents) as source,
        pq.ParquetWriter(order.lineage, LINEAGE_SCHEMA, compression="zstd") as writer,
    ):
        for group in range(order.first_group, order.last_group):
            table = source.read_row_group(group, use_threads=False)
            counts = []
            for ids in encode(tokenizer, table["text"].to_pylist()):
                file.write(np.array([order.end, *ids], dtype=order.dtype).tobytes())
                counts.append(len(ids) + 1)
            lineage = table.select([name for name, _ in ORIGIN]).append_column("tokens", pa.array(counts, pa.int64()))
            writer.write_table(lineage.cast(LINEAGE_SCHEMA))
            num_tokens += sum(counts)
            num_documents += len(counts)
    for path in (stream, order.lineage):
        flush(path)
    shard = EncodedShard(
        path=stream.name,
        tokens=num_tokens,
        documents=num_documents,
        sha256=sha256_of(stream),
        cpu_seconds=time.process_time() - started,
    )
    write_file(order.done, shard.canonical())
    return shard


def encode_shards(
    orders: Sequence[ShardOrder], workers: int, finished: Callable[[EncodedShard], None]
) -> list[EncodedShard]:
    """All shards, in order, by `workers` processes of one core each; one works in this process.

    `finished` is called for each as it is done. Raises Unavailable when a worker dies; the shards that are done stay.
    """
    workers = min(workers, len(orders))
    if workers <= 1:
        return [_told(encode_shard(order), finished) for order in orders]
    with _encoders(workers) as encoders, ThreadPoolExecutor(workers) as executor:
        idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in encoders:
            idle.put(process)
        futures = [executor.submit(_ordered, idle, order) for order in orders]
        try:
            for future in as_completed(futures):
                finished(future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            for process in encoders:
                process.kill()  # what is under way ends here, and is begun anew by the next call
            raise
        return [future.result() for future in futures]


def _told(shard: EncodedShard, finished: Callable[[EncodedShard], None]) -> EncodedShard:
    finished(shard)
    return shard


@contextmanager
def _encoders(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    environment = {**os.environ, **_ENVIRONMENT}
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(
                _MODULE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def _ordered(idle: SimpleQueue[subprocess.Popen[bytes]], order: ShardOrder) -> EncodedShard:
    process = idle.get()
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(order.canonical() + b"\n")
        answered = process.stdout.readline() == _DONE
    except BrokenPipeError:  # it died, or was ended because another one did
        answered = False
    finally:
        idle.put(process)
    if not answered:
        raise Unavailable(f"the process that encoded {order.name} died", remedy="see its messages above; start again")
    return EncodedShard.model_validate_json(order.done.read_bytes())


def main(lines: Iterable[bytes]) -> None:
    for line in lines:
        encode_shard(ShardOrder.model_validate(json.loads(line)))
        sys.stdout.buffer.write(_DONE)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer)
