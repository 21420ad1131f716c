"""Folders that are whole or absent: what a run leaves behind survives a kill at any moment."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A new folder that is flushed to disk and renamed to `target` when the block ends without an error.

    What an earlier, killed attempt left is removed first. `target` must not exist.
    """
    temporary = target.with_name(f".{target.name}.part")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    yield temporary
    for path in sorted(temporary.rglob("*")):
        _flush(path)
    _flush(temporary)
    temporary.rename(target)
    _flush(target.parent)


def discard(folder: Path) -> None:
    """Removes a folder; renamed first, so that a kill half way leaves nothing that looks whole."""
    condemned = folder.with_name(f".{folder.name}.gone")
    if condemned.exists():
        shutil.rmtree(condemned)
    folder.rename(condemned)
    shutil.rmtree(condemned)


def sha256_of(path: Path) -> str:
    """64 hex characters; reads in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
