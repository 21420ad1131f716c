"""Folders that are whole or absent: what a run leaves behind survives a kill at any moment."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from athena.durable import finish, flush


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
        flush(path)
    finish(temporary, target)


def discard(folder: Path) -> None:
    """Removes a folder; renamed first, so that a kill half way leaves nothing that looks whole."""
    condemned = folder.with_name(f".{folder.name}.gone")
    if condemned.exists():
        shutil.rmtree(condemned)
    folder.rename(condemned)
    shutil.rmtree(condemned)
