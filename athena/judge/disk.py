"""What a validator keeps on disk: the datasets that it fetched, and what it made to judge them.

datasets/<root>-<revision>            a miner's files, and beside them .arrow, their checked rows
tasks/<task id>                       refined rows and arms, shared by the task's cases
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from athena.judge.evidence import Found
from athena.judge.gates.form import dataset_folder
from athena.judge.queue import CaseQueue, Known
from athena.refine.work.disk import folder_bytes

log = logging.getLogger("athena.validator")

_GONE = ".gone-"
_NO_CASE = -1


def task_folder(workdir: Path, task_id: str) -> Path:
    """Where a task's refined rows and arms lie."""
    return workdir / "tasks" / task_id


@dataclass(frozen=True)
class _Item:
    """Something that is removed as a whole. `block` is the last commitment that used it."""

    path: Path
    block: int
    is_open: bool
    can_be_made_again: bool
    bytes: int


def tidy(workdir: Path, queue: CaseQueue, *, oldest_block: int, max_bytes: int) -> int:
    """Makes room; the bytes that stay in use.

    What no case has, or was committed before `oldest_block`, is removed; and while the folder holds more than
    `max_bytes`, the earliest of the rest: first what can be made again, then datasets, which later copies are held
    against. What an open case needs always stays.
    """
    # Listed before the queue is asked: whoever made these files was in the queue by then.
    paths = [path for kind in ("datasets", "tasks") for path in _children(workdir / kind)]
    items = sorted(_items(paths, workdir, queue.known()), key=lambda item: (not item.can_be_made_again, item.block))
    used = sum(item.bytes for item in items)
    for item in items:
        if not item.is_open and (item.block < oldest_block or item.block == _NO_CASE or used > max_bytes):
            _remove(item.path)
            used -= item.bytes
    if used > max_bytes:
        log.warning("open cases take %.1f GiB of disk, over the budget", used / (1 << 30))
    return used


def _children(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _items(paths: Iterable[Path], workdir: Path, cases: Iterable[Known]) -> Iterator[_Item]:
    last: dict[str, int] = defaultdict(lambda: _NO_CASE)
    open_names = set[str]()
    for case in cases:
        names = (case.task_id, dataset_folder(workdir, Found.model_validate_json(case.payload).commitment).name)
        for name in names:
            last[name] = max(last[name], case.commit_block)
        if not case.settled:
            open_names.update(names)
    for path in paths:
        # Checked rows, whole or half written, are of the dataset whose name they carry.
        name = path.name.removeprefix(".").removesuffix(".part").removesuffix(".arrow")
        made = path.parent.name == "tasks" or path.suffix in (".arrow", ".part")
        size = folder_bytes(path) if path.is_dir() else _size(path)
        yield _Item(path, last[name], name in open_names, made, size)


def _size(file: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # a temporary name that was finished since
        return file.stat().st_size
    return 0


def _remove(path: Path) -> None:
    """At once for whoever looks at it, so that nobody finds half of it."""
    gone = path.with_name(f"{_GONE}{path.name}") if path.is_dir() and not path.name.startswith(_GONE) else path
    with contextlib.suppress(FileNotFoundError):
        if gone is not path:
            path.rename(gone)
        if gone.is_dir():
            shutil.rmtree(gone)
        else:
            gone.unlink()
