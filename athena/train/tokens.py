"""The mixture as one memory-mapped stream of token ids, and the data order: a pure function of (seed, step).

Nothing here knows of processes or of a loader's state: whichever of them asks for the windows of a step computes the
same answer, so a run resumes from its step number alone, on any number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from athena.durable import sha256_of
from athena.errors import BadInput, NotFound
from athena.nn.packing import positions
from athena.protocol import Hex64, Noun
from athena.train.folders import staged
from athena.train.tokenizer import END_ID, encode

DOCUMENTS_PER_BATCH = 1024
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
LINEAGE_SCHEMA = pa.schema([*ORIGIN, ("tokens", pa.int64())])


class TokensInfo(Noun):
    """tokens.json, written last. A document's tokens include the END that opens it."""

    format: Literal["athena-tokens/1"] = "athena-tokens/1"
    dtype: Literal["uint16", "uint32"]
    tokens: Annotated[int, Field(ge=1)]
    documents: Annotated[int, Field(ge=1)]
    end: int
    tokens_sha256: Hex64
    documents_sha256: Hex64


@dataclass(frozen=True)
class Batch:
    """int64 arrays [windows, length]: inputs, their position ids, and the token that follows each input."""

    inputs: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]


def write_tokens(documents: Iterable[Mapping[str, Any]], tokenizer: Any, folder: Path) -> TokensInfo:
    """Encodes `documents` (ORIGIN and text) into `folder`, in their order.

    tokens.bin: all ids, each document opened by END; documents.parquet: one row a document, of LINEAGE_SCHEMA. Memory
    is that of one batch of documents. Raises NotFound if there are none.
    """
    dtype: Literal["uint16", "uint32"] = "uint16" if len(tokenizer) <= 2**16 else "uint32"
    num_tokens = num_documents = 0
    with staged(folder) as out:
        stream, lineage = out / "tokens.bin", out / "documents.parquet"
        with stream.open("wb") as file, pq.ParquetWriter(lineage, LINEAGE_SCHEMA, compression="zstd") as writer:
            for batch in _batches(documents):
                counts = []
                for ids in encode(tokenizer, [document["text"] for document in batch]):
                    file.write(np.array([END_ID, *ids], dtype=dtype).tobytes())
                    counts.append(len(ids) + 1)
                rows = [{**d, "tokens": n} for d, n in zip(batch, counts, strict=True)]
                writer.write_table(pa.Table.from_pylist(rows, schema=LINEAGE_SCHEMA))
                num_tokens += sum(counts)
                num_documents += len(batch)
        if not num_documents:
            raise NotFound("the mixture holds no document")
        info = TokensInfo(
            dtype=dtype,
            tokens=num_tokens,
            documents=num_documents,
            end=END_ID,
            tokens_sha256=sha256_of(stream),
            documents_sha256=sha256_of(lineage),
        )
        (out / "tokens.json").write_bytes(info.canonical())
    return info


def _batches(documents: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, DOCUMENTS_PER_BATCH)):
        yield batch


class TokenStream:
    """A folder that `write_tokens` left, cut into windows of `length` inputs; only the last partial one is left out.

    Every token but the first of the stream is a label exactly once an epoch. Raises NotFound, or BadInput if the folder
    is damaged or too small for one window.
    """

    def __init__(self, folder: Path, length: int) -> None:
        if not (folder / "tokens.json").is_file():
            raise NotFound(f"no tokens in {folder}")
        try:
            self.info = TokensInfo.model_validate_json((folder / "tokens.json").read_bytes())
        except ValidationError as error:
            raise BadInput(f"{folder / 'tokens.json'} is damaged: {error}") from error
        self._ids = np.memmap(folder / "tokens.bin", dtype=self.info.dtype, mode="r")
        if self._ids.size != self.info.tokens:
            raise BadInput(f"{folder / 'tokens.bin'} holds {self._ids.size} tokens, not {self.info.tokens}")
        self.length = length
        self.num_windows = (self.info.tokens - 1) // length
        if self.num_windows < 1:
            raise BadInput(f"{self.info.tokens} tokens do not fill one window of {length}", remedy="train on more data")

    def windows_of_step(self, seed: int, step: int, batch_windows: int) -> list[int]:
        """The windows of one step, in order. Epochs follow each other without a gap, each in its own drawn order."""
        first = step * batch_windows
        return [
            permuted(f"{seed}:{n // self.num_windows}", self.num_windows, n % self.num_windows)
            for n in range(first, first + batch_windows)
        ]

    def batch(self, windows: list[int]) -> Batch:
        ids = np.stack([self._ids[w * self.length : (w + 1) * self.length + 1] for w in windows]).astype(np.int32)
        inputs = ids[:, :-1]
        return Batch(
            inputs=inputs.astype(np.int64),
            positions=positions(inputs, self.info.end).astype(np.int64),
            labels=ids[:, 1:].astype(np.int64),
        )


def permuted(seed: str, population: int, index: int) -> int:
    """Where `index` goes in the permutation of range(population) that `seed` draws.

    A four-round Feistel network over the next even number of bits, walked until it falls inside the population: no
    table, so a data set of any size needs no memory, and no generator whose stream may change between versions.
    """
    half_bits = max(1, ((population - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for turn in range(4):
            digest = hashlib.blake2b(f"{seed}:{turn}:{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
        index = left << half_bits | right
        if index < population:
            return index
