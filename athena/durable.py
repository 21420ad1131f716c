"""Finished means renamed: a file under its final name is whole, whenever the power goes."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Writes under a temporary name, then finishes it. Makes the folder where there is none.

    Threads that write one file at a time do not disturb each other: the last one's content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    temporary.write_bytes(content)
    finish(temporary, path)


def finish(temporary: Path, path: Path) -> None:
    """Gives a file or folder its final name, for good. Of a folder, what lies in it is to be flushed before."""
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Content on disk before the rename that shows it: a name never points at bytes that a power cut can take."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, 64 hex characters; reads in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
