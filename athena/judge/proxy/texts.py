"""Text as the proxy reads it: a prefix of the shared BPE, and token files. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from athena.durable import write_file
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


@lru_cache
def token_bytes(vocab_size: int) -> NDArray[np.int64]:
    """UTF-8 bytes of each token: in a byte-level BPE a character of a token's name is a byte of text."""
    tokenizer = proxy_tokenizer(vocab_size)
    sizes = np.array([len(tokenizer.id_to_token(index) or "") for index in range(vocab_size)], dtype=np.int64)
    sizes[END_OF_TEXT_ID] = 0
    return sizes


def save_documents(path: Path, documents: Sequence[Ids]) -> None:
    """Writes token ids as one int32 array in which END_OF_TEXT_ID closes each document."""
    end = np.array([END_OF_TEXT_ID], dtype=np.int32)
    flat = np.concatenate([part for document in documents for part in (document, end)] or [end[:0]])
    write_file(path, flat.astype("<i4").tobytes())


def keep_documents(folder: Path, documents: Sequence[Ids]) -> Path:
    """The token file of these documents in a folder, named after what is in it; written where it is not there yet."""
    content = hashlib.sha256(b"".join(ids.tobytes() + b"\xff\xff\xff\xff" for ids in documents)).hexdigest()
    path = token_file(folder, content)
    if not path.exists():
        save_documents(path, documents)
    return path


def token_file(folder: Path, content: str) -> Path:
    return folder / f"{content}.tokens"


def load_documents(path: Path) -> list[Ids]:
    flat = np.frombuffer(path.read_bytes(), dtype="<i4").astype(np.int32)
    ends = np.flatnonzero(flat == END_OF_TEXT_ID)
    return [part[part != END_OF_TEXT_ID] for part in np.split(flat, ends + 1)[:-1]]
