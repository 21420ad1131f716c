"""The mixture as memory-mapped shards of token ids, and windows of them that hold whole documents where they fit.

A folder of tokens: `tokens-00000.bin` and so on, all ids, each document opened by the end token and none across two
shards; `documents.parquet`, one row of LINEAGE_SCHEMA a document, in the order of the shards; `tokens.json`, last.
`packing-<length>` beside them says what each window of that length holds; it is made when first asked for.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from athena.draw import permuted
from athena.durable import finish, flush, sha256_of, write_file
from athena.errors import BadInput, NotFound
from athena.protocol import Hex64, Noun
from athena.train.encoder import (
    DOCUMENTS_SCHEMA,
    LINEAGE_SCHEMA,
    ORIGIN,
    Dtype,
    EncodedShard,
    ShardOrder,
    encode_shards,
)
from athena.train.packing import Packing, PackingInfo, joined, pack_documents
from athena.train.tokenizer import end_of, load_tokenizer

__all__ = [
    "DOCUMENTS_SCHEMA",
    "IGNORED",
    "LINEAGE_SCHEMA",
    "ORIGIN",
    "Batch",
    "TokenStream",
    "TokensInfo",
    "write_tokens",
]

IGNORED = -100
"""The label of padding, which transformers and torch leave out of the loss."""
SHARD_DOCUMENTS = 32_768
"""Documents of a shard at least: some 30 million tokens, half a minute of one core."""
DOCUMENTS = "documents.parquet"
INFO = "tokens.json"
_SOURCE = "source.json"
_ROWS_PER_GROUP = 1024
_WINDOWS_AT_A_TIME = 8


class Shard(Noun):
    path: Annotated[str, Field(pattern=r"^tokens-\d{5,}\.bin$")]
    tokens: Annotated[int, Field(ge=1)]
    documents: Annotated[int, Field(ge=1)]
    sha256: Hex64


class TokensInfo(Noun):
    """tokens.json, written last. A document's tokens include the `end` that opens it."""

    format: Literal["athena-tokens/2"] = "athena-tokens/2"
    dtype: Dtype
    tokens: Annotated[int, Field(ge=1)]
    documents: Annotated[int, Field(ge=1)]
    end: Annotated[int, Field(ge=0)]
    shards: Annotated[tuple[Shard, ...], Field(min_length=1)]
    documents_sha256: Hex64
    tokenizer_sha256: Hex64


@dataclass(frozen=True)
class Batch:
    """int64 arrays [windows, length].

    `inputs`, padded with the end token; their `positions`, which restart at 0 with every document, every piece of one
    that was cut, and the padding; `labels`, the token that follows each input in its document, the end token after its
    last, and IGNORED on padding.
    """

    inputs: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]


class Source(Noun):
    """source.json of a folder in the making: what it is made of."""

    documents: Hex64
    tokenizer: Hex64
    end: int
    dtype: Dtype


@dataclass(frozen=True)
class Written:
    """What `write_tokens` left, and the CPU seconds that it took, of all processes together."""

    info: TokensInfo
    cpu_seconds: float

    @property
    def tokens_per_core_second(self) -> float:
        return self.info.tokens / self.cpu_seconds


def write_documents(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes rows of DOCUMENTS_SCHEMA as the Parquet file that `write_tokens` reads."""
    table = pa.Table.from_pylist(list(rows), schema=DOCUMENTS_SCHEMA)
    pq.write_table(table, path, compression="zstd", row_group_size=_ROWS_PER_GROUP)


def write_tokens(
    documents: Path,
    tokenizer: Path,
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Encodes a Parquet file of DOCUMENTS_SCHEMA with the tokenizer in a folder, in its order, into `folder`.

    The same bytes for any number of `workers`, processes of one core each. A call that was killed goes on with the
    shard it was at. `progress` takes (documents done, documents). Raises NotFound if there are no documents.
    """
    work = folder.with_name(f".{folder.name}.work")
    with pq.ParquetFile(documents) as file:
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    if not sum(rows):
        raise NotFound("the mixture holds no document")
    loaded = load_tokenizer(tokenizer)
    source = Source(
        documents=sha256_of(documents),
        tokenizer=sha256_of(tokenizer / "tokenizer.json"),
        end=end_of(loaded),
        dtype="uint16" if len(loaded) <= 2**16 else "uint32",
    )
    _begin(work, source)
    orders = [
        ShardOrder(
            documents=documents.absolute(), first_group=first, last_group=last, number=number, folder=work.absolute(),
            tokenizer=(tokenizer / "tokenizer.json").absolute(), end=source.end, dtype=source.dtype,
        )
        for number, (first, last) in enumerate(_shards(rows))
    ]  # fmt: skip
    done = 0

    def finished(shard: EncodedShard) -> None:
        nonlocal done
        done += shard.documents
        progress(done, sum(rows))

    shards = encode_shards(orders, workers, finished)
    info = TokensInfo(
        dtype=source.dtype,
        tokens=sum(shard.tokens for shard in shards),
        documents=sum(shard.documents for shard in shards),
        end=source.end,
        shards=tuple(Shard(**shard.model_dump(exclude={"cpu_seconds"})) for shard in shards),
        documents_sha256=join_documents([order.lineage for order in orders], work / DOCUMENTS),
        tokenizer_sha256=source.tokenizer,
    )
    write_file(work / INFO, info.canonical())
    for order in orders:
        order.done.unlink()  # first: a shard without it is encoded anew
        order.lineage.unlink()
    (work / _SOURCE).unlink()
    finish(work, folder)
    return Written(info, sum(shard.cpu_seconds for shard in shards))


@dataclass(frozen=True)
class Throughput:
    """Tokens a second of one core, encoded and read as batches, and the share of the windows that is padding."""

    encoded: float
    read: float
    waste: float


def measure_throughput(texts: Sequence[str], tokenizer: Path, length: int) -> Throughput:
    """Encodes and reads `texts` once, in a temporary folder."""
    origin = {name: "" if pa.types.is_string(kind) else 0 for name, kind in ORIGIN}
    with TemporaryDirectory(prefix="athena-tokens-") as name:
        documents, tokens = Path(name) / DOCUMENTS, Path(name) / "tokens"
        write_documents(({"text": text, **origin} for text in texts), documents)
        written = write_tokens(documents, tokenizer, tokens)
        stream = TokenStream(tokens, length)
        windows = stream.windows("", 0, stream.num_windows)
        started = time.process_time()
        for first in range(0, len(windows), _WINDOWS_AT_A_TIME):
            stream.batch(windows[first : first + _WINDOWS_AT_A_TIME])
        read = stream.info.tokens / (time.process_time() - started)
    return Throughput(written.tokens_per_core_second, read, stream.packing.waste)


def _begin(work: Path, source: Source) -> None:
    """A folder for the shards; what an earlier attempt of other documents left is removed."""
    marker = work / _SOURCE
    if marker.exists() and marker.read_bytes() == source.canonical():
        return
    shutil.rmtree(work, ignore_errors=True)
    write_file(marker, source.canonical())


def _shards(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of row groups, [first, last), of SHARD_DOCUMENTS rows at least but for the last."""
    runs, first, held = [], 0, 0
    for group, count in enumerate(rows, 1):
        held += count
        if held >= SHARD_DOCUMENTS or (group == len(rows) and held):
            runs.append((first, group))
            first, held = group, 0
    return runs


def join_documents(parts: Sequence[Path], target: Path, *, of_miners: bool = False) -> str:
    """The rows of all parts in one file, a row group in memory at a time; the file's sha256.

    `of_miners`: without what is nobody's, planted canaries.
    """
    with pq.ParquetWriter(target, LINEAGE_SCHEMA, compression="zstd") as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, use_threads=False)
                    writer.write_table(rows.filter(pc.not_equal(rows["hotkey"], "")) if of_miners else rows)
    flush(target)
    return sha256_of(target)


class TokenStream:
    """A folder that `write_tokens` left, packed into windows of `length` tokens.

    Every token of every document is an input once an epoch, and every one but the first of each document a label.
    Raises NotFound, or BadInput if the folder is damaged or no length fits.
    """

    def __init__(self, folder: Path, length: int) -> None:
        if length < 1:
            raise BadInput(f"no window holds {length} tokens")
        if not (folder / INFO).is_file():
            raise NotFound(f"no tokens in {folder}")
        try:
            self.info = TokensInfo.model_validate_json((folder / INFO).read_bytes())
        except ValidationError as error:
            raise BadInput(f"{folder / INFO} is damaged: {error}") from error
        self.length = length
        self._folder = folder
        self._shards = [self._open(shard) for shard in self.info.shards]
        self._firsts = np.cumsum([0, *(shard.tokens for shard in self.info.shards)])
        index = folder / f"packing-{length}"
        if not index.exists():
            self._pack(index)
        self._packing, self.packing = Packing.load(index, self.info.digest())

    @property
    def num_windows(self) -> int:
        return self._packing.num_windows

    def _open(self, shard: Shard) -> NDArray[Any]:
        ids = np.memmap(self._folder / shard.path, dtype=self.info.dtype, mode="r")
        if ids.size != shard.tokens:
            raise BadInput(f"{self._folder / shard.path} holds {ids.size} tokens, not {shard.tokens}")
        return ids

    def _pack(self, index: Path) -> None:
        """Shard by shard: a window reads one file, and memory is that of one shard's documents."""
        parts: list[Packing] = []
        cut = first_document = 0
        tokens = pq.read_table(self._folder / DOCUMENTS, columns=["tokens"])["tokens"].to_numpy()
        if tokens.sum() != self.info.tokens or len(tokens) != self.info.documents:
            raise BadInput(f"{self._folder / DOCUMENTS} lists other documents than {INFO}")
        for first, shard in zip(self._firsts, self.info.shards, strict=False):
            of_shard = tokens[first_document : first_document + shard.documents]
            if of_shard.sum() != shard.tokens:
                raise BadInput(f"{self._folder / DOCUMENTS} lists other documents than {shard.path} holds")
            part = pack_documents(of_shard, self.length)
            parts.append(Packing(part.starts + first, part.sizes, part.windows))
            first_document += shard.documents
            cut += int((of_shard > self.length).sum())
        packing = joined(parts)
        info = PackingInfo(
            tokens_digest=self.info.digest(),
            length=self.length,
            windows=packing.num_windows,
            pieces=len(packing.sizes),
            documents_cut=cut,
            waste=1 - self.info.tokens / (packing.num_windows * self.length),
        )
        packing.save(index, info)

    def windows(self, seed: str, first: int, count: int) -> list[int]:
        """Windows from the `first`-th on, in the order that `seed` draws.

        Epochs follow each other without a gap, each in its own order.
        """
        return [
            permuted(f"{seed}:{n // self.num_windows}", self.num_windows, n % self.num_windows)
            for n in range(first, first + count)
        ]

    def num_labels(self, windows: Sequence[int]) -> int:
        """Labels that count in these windows: one for every token that is no padding."""
        bounds, sizes = self._packing.windows, self._packing.sizes
        return sum(int(sizes[bounds[window] : bounds[window + 1]].sum()) for window in windows)

    def batch(self, windows: Sequence[int]) -> Batch:
        shape = (len(windows), self.length)
        inputs = np.full(shape, self.info.end, dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        positions = np.empty(shape, dtype=np.int64)
        count = np.arange(self.length)
        bounds, starts, sizes = self._packing.windows, self._packing.starts, self._packing.sizes
        for row, window in enumerate(windows):
            place = 0
            for piece in range(bounds[window], bounds[window + 1]):
                size = int(sizes[piece])
                following = slice(place, place + size)
                inputs[row, following], labels[row, following] = self._read(int(starts[piece]), size)
                positions[row, following] = count[:size]
                place += size
            positions[row, place:] = count[: self.length - place]
        return Batch(inputs, positions, labels)

    def _read(self, start: int, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """`size` tokens and the tokens that follow each. After a document's last comes the end token in any case: the
        next document opens with it, and the stream closes with it."""
        shard = int(np.searchsorted(self._firsts, start, side="right")) - 1
        local = start - int(self._firsts[shard])
        ids = self._shards[shard][local : local + size + 1]
        if len(ids) == size:
            return ids, np.append(ids[1:], self.info.end)
        return ids[:-1], ids[1:]
