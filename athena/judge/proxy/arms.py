"""Arms of the proxy comparison: their text as token files, their jobs, and the processes that train them. No torch."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from tokenizers import Tokenizer

from athena.durable import write_file
from athena.errors import Unavailable
from athena.evalpack import EvalDocument
from athena.judge.rules import ProxyRules
from athena.protocol import Arm, Hex64
from athena.refine.text.bpe import END_OF_TEXT_ID, VOCABULARY_SIZE, load_tokenizer

Ids = NDArray[np.int32]


@lru_cache
def proxy_tokenizer(vocab_size: int) -> Tokenizer:
    """The shared BPE cut to its first `vocab_size` tokens, with the same ids: a prefix of a BPE's merges is a BPE.

    A small model spends most of its time on a large output layer, and learns more text per second with fewer tokens.
    """
    if vocab_size == VOCABULARY_SIZE:
        return load_tokenizer()
    whole = json.loads(load_tokenizer().to_str())
    vocab = {token: index for token, index in whole["model"]["vocab"].items() if index < vocab_size}
    whole["model"]["vocab"] = vocab
    whole["model"]["merges"] = [pair for pair in whole["model"]["merges"] if "".join(pair) in vocab]
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    tokenizer.encode_special_tokens = True
    return tokenizer


def tokenize(texts: Sequence[str], vocab_size: int) -> list[Ids]:
    return [np.array(e.ids, dtype=np.int32) for e in proxy_tokenizer(vocab_size).encode_batch(list(texts))]


def save_documents(path: Path, documents: Sequence[Ids]) -> None:
    """Writes token ids as one int32 array in which END_OF_TEXT_ID closes each document."""
    end = np.array([END_OF_TEXT_ID], dtype=np.int32)
    flat = np.concatenate([part for document in documents for part in (document, end)] or [end[:0]])
    write_file(path, flat.astype("<i4").tobytes())


def load_documents(path: Path) -> list[Ids]:
    flat = np.frombuffer(path.read_bytes(), dtype="<i4").astype(np.int32)
    ends = np.flatnonzero(flat == END_OF_TEXT_ID)
    return [part[part != END_OF_TEXT_ID] for part in np.split(flat, ends + 1)[:-1]]


@dataclass(frozen=True)
class EvalSet:
    """Evaluation windows: int32 [n, length + 1], padded; the first `lengths` targets of each count.

    `bytes` are the UTF-8 bytes of all counted targets of a domain.
    """

    domains: tuple[str, ...]
    windows: Ids
    lengths: Ids
    domain_of: Ids
    bytes: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Sequence[EvalDocument], rules: ProxyRules) -> Self:
        """Cuts each document to its first `windows_per_document` windows."""
        domains = tuple(sorted({document.domain for document in documents}))
        token_bytes = _token_bytes(rules.vocab_size)
        sizes = np.zeros(len(domains), dtype=np.int64)
        rows: list[tuple[Ids, int, int]] = []
        tokens = tokenize([document.text for document in documents], rules.vocab_size)
        for document, ids in zip(documents, tokens, strict=True):
            stream = np.concatenate(([END_OF_TEXT_ID], ids[: rules.windows_per_document * rules.length]))
            domain = domains.index(document.domain)
            sizes[domain] += int(token_bytes[stream[1:]].sum())
            for start in range(0, len(stream) - 1, rules.length):
                part = stream[start : start + rules.length + 1]
                padded = np.full(rules.length + 1, END_OF_TEXT_ID, dtype=np.int32)
                padded[: len(part)] = part
                rows.append((padded, len(part) - 1, domain))
        windows = np.stack([row[0] for row in rows])
        lengths, owners = (np.array([row[i] for row in rows], dtype=np.int32) for i in (1, 2))
        return cls(domains, windows, lengths, owners, sizes)

    def save(self, path: Path) -> None:
        arrays = {name: getattr(self, name).tolist() for name in ("windows", "lengths", "domain_of", "bytes")}
        write_file(path, json.dumps({"domains": self.domains, **arrays}).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        saved = json.loads(path.read_bytes())
        windows, lengths, owners = (np.array(saved[k], dtype=np.int32) for k in ("windows", "lengths", "domain_of"))
        return cls(tuple(saved["domains"]), windows, lengths, owners, np.array(saved["bytes"], dtype=np.int64))


@lru_cache
def _token_bytes(vocab_size: int) -> NDArray[np.int64]:
    """UTF-8 bytes of each token: in a byte-level BPE a character of a token's name is a byte of text."""
    tokenizer = proxy_tokenizer(vocab_size)
    sizes = np.array([len(tokenizer.id_to_token(index) or "") for index in range(vocab_size)], dtype=np.int64)
    sizes[END_OF_TEXT_ID] = 0
    return sizes


class Job(BaseModel):
    """One arm to train and measure. All that decides the result is in here and in the two files that it names.

    The trained model is kept in `model`: another measurement of the arm does not train it again.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    seed: Hex64
    budget_tokens: int
    documents: Path
    evaluation: Path
    rules: ProxyRules
    model: Path
    result: Path


class ProxyWorkers:
    """At most `parallel` single-threaded worker processes, started when needed and kept for the next arms."""

    def __init__(self, parallel: int = 1) -> None:
        self._parallel = parallel
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []

    def run(self, jobs: Sequence[Job], finished: Callable[[Arm], None]) -> list[Arm]:
        """The jobs' arms, in order. Arms whose results lie on disk, from before a restart, are not trained again.

        `finished` is called for each arm as it is done. Raises Unavailable when a worker dies or takes too long: a
        fault of this machine.
        """
        with ThreadPoolExecutor(self._parallel) as executor:
            futures = [executor.submit(self._finish, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    finished(future.result())
            except BaseException:
                for future in futures:
                    future.cancel()
                self.close()  # ends the workers, so that the threads that wait for them return
                raise
        return [future.result() for future in futures]

    def close(self) -> None:
        for process in self._all:
            process.kill()
            process.communicate()  # closes its pipes and waits
        self._all.clear()
        self._idle = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _finish(self, job: Job) -> Arm:
        done = _read_arm(job.result)
        if done is not None:
            return done
        order = job.result.with_suffix(".job")
        write_file(order, job.model_dump_json().encode())
        process = self._worker()
        self._ask(process, order, job.rules.arm_seconds)
        self._idle.put(process)
        arm = _read_arm(job.result)
        if arm is None:
            raise Unavailable(f"a proxy worker left no result for {job.name}")
        order.unlink(missing_ok=True)
        return arm

    def _worker(self) -> subprocess.Popen[bytes]:
        try:
            return self._idle.get_nowait()
        except Empty:
            pass
        # glibc returns large buffers to the system at every free, and each page back costs a fault: 1.5 times the
        # time of a training step.
        keep = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
        process = subprocess.Popen(
            [sys.executable, "-m", "athena.judge.proxy.training"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **keep},
        )
        self._all.append(process)
        return process

    @staticmethod
    def _ask(process: subprocess.Popen[bytes], order: Path, seconds: int) -> None:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{order}\n".encode())
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], seconds)
            answer = process.stdout.readline() if ready else b""
        except (OSError, ValueError) as error:
            raise Unavailable(f"a proxy worker broke off: {error}") from error
        if answer.decode().rstrip("\n") != str(order):
            raise Unavailable("a proxy worker died" if ready else f"a proxy worker took over {seconds} s")


def _read_arm(path: Path) -> Arm | None:
    """A finished arm; None if there is none, or not a whole one."""
    try:
        return Arm.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
