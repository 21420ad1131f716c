"""Where a validator's sheets go: to the task server one by one, and to its own repository on the hub in batches."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from athena.client import LedgerClient
from athena.durable import finish, write_file
from athena.errors import AthenaError, NotFound, RateLimited, Unavailable
from athena.hub import BRANCH, Hub
from athena.judge.queue import CaseQueue
from athena.judge.rules import BLOCKS_PER_DAY
from athena.protocol import SignedSheet

log = logging.getLogger("athena.validator")

MAX_BATCH = 1000
"""Sheets in one commit to the hub."""
MAX_REPOSITORY_BYTES = 64 << 30


def post(queue: CaseQueue, ledger: LedgerClient) -> None:
    """Posts the sheets that the task server does not have yet; what it cannot take now stays for the next time."""
    for key, signed in queue.unposted():
        try:
            ledger.post_sheet(signed)
        except (Unavailable, RateLimited) as error:
            log.warning("sheets stay here for now: %s", error)
            return
        except AthenaError as error:  # refused for good: the weights count all the same
            log.error("the task server refuses the sheet of %s: %s", key, error)
        queue.mark_posted(key)


class SheetRepository:
    """A validator's final sheets as a dataset repository: signed, one a line, a file for each day of seed blocks.

    `folder` is its copy here. Files only grow: what is in the repository already, from another machine or an earlier
    state folder, stays.
    """

    def __init__(self, hub: Hub, name: str, folder: Path) -> None:
        self._hub, self._name, self._folder = hub, name, folder

    def publish(self, queue: CaseQueue) -> int:
        """One commit with the sheets that are not published yet, at most MAX_BATCH; how many.

        Interrupted anywhere, the next call does it again. Raises what the hub raises; nothing is marked then.
        """
        batch = queue.unpublished(MAX_BATCH)
        if not batch:
            return 0
        self._open()
        by_file: dict[Path, set[bytes]] = defaultdict(set)
        for _, signed in batch:
            by_file[self._file_of(signed)].add(signed.canonical())
        for file, lines in by_file.items():
            known = file.read_bytes().splitlines() if file.exists() else []
            write_file(file, b"".join(line + b"\n" for line in sorted({*known, *lines})))
        self._hub.publish(self._folder, self._name, message=f"{len(batch)} score sheets")
        queue.mark_published(key for key, _ in batch)
        return len(batch)

    def _file_of(self, signed: SignedSheet) -> Path:
        return self._folder / "sheets" / f"day-{signed.sheet.seed_block // BLOCKS_PER_DAY:05d}.jsonl"

    def _open(self) -> None:
        """The copy here, with what the hub has. It gets its name once it is whole."""
        if self._folder.exists():
            return
        part = self._folder.with_name(f".{self._folder.name}.part")
        try:
            revision = self._hub.resolve(self._name, BRANCH)
        except NotFound:
            part.mkdir(parents=True, exist_ok=True)
        else:
            self._hub.fetch(self._name, revision, part, max_bytes=MAX_REPOSITORY_BYTES)
        finish(part, self._folder)
