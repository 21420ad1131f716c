"""How much of the disk a miner takes, and how many leases still fit into what it may take."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
LEASE_BYTES = 1 * GIB
"""Room that a lease is given in advance. A shard of 32 WARC files takes 0.4 GiB under the canonical recipe: 6 to 7 MB
of text each, as finished parts, as the dataset, and unpacked while it is checked."""


@dataclass(frozen=True)
class DiskBudget:
    """At most `max_bytes` for everything below `folder`, the state folder; `tasks` holds one sub-folder per lease."""

    folder: Path
    tasks: Path
    max_bytes: int

    def used_bytes(self) -> int:
        return folder_bytes(self.folder)

    def room(self, held: Collection[str]) -> int:
        """How many leases fit beside those of the tasks `held`; 0 when the budget, or the disk itself, is full."""
        used = self.used_bytes()
        of_held = [folder_bytes(self.tasks / task_id) for task_id in held]
        limit = min(self.max_bytes, used + shutil.disk_usage(self.folder).free)
        promised = used - sum(of_held) + sum(max(LEASE_BYTES, taken) for taken in of_held)
        return max(0, (limit - promised) // LEASE_BYTES)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`, while others write there; 0 where there is none."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a temporary name that was finished since
                total += (Path(parent) / name).lstat().st_size
    return total
