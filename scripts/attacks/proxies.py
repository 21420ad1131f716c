"""Proxy runs that are made once for all networks over one crawl, whatever their block hashes draw."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from athena.durable import write_file
from athena.judge.proxy.arms import Job, ProxyWorkers
from athena.judge.proxy.measured import Measured
from athena.protocol import Arm


class RememberingWorkers(ProxyWorkers):
    """Finds the results of earlier networks in `memory`: of the same text, as the same number of seed.

    Good where all networks measure on the same documents: of a pack all of which is drawn.
    """

    def __init__(self, memory: Path, parallel: int = 1) -> None:
        super().__init__(parallel)
        self._memory = memory

    def run(self, jobs: Sequence[Job], finished: Callable[[Arm], None]) -> list[Measured]:
        kept = self._places(jobs)
        for job, place in zip(jobs, kept, strict=True):
            if place.exists() and not job.result.exists():
                seed, result = place.read_bytes().split(b"\n", 1)
                write_file(job.result, result.replace(seed, job.seed.encode()))
        measured = super().run(jobs, finished)
        for job, place in zip(jobs, kept, strict=True):
            if not place.exists():
                write_file(place, job.seed.encode() + b"\n" + job.result.read_bytes())
        return measured

    def _places(self, jobs: Sequence[Job]) -> list[Path]:
        numbers: Counter[str] = Counter()
        places = []
        for job in jobs:
            decided_by = f"{job.name} {job.documents.name} {job.budget_tokens} {job.rules}"
            numbers[decided_by] += 1
            name = hashlib.sha256(f"{decided_by} {numbers[decided_by]}".encode()).hexdigest()
            places.append(self._memory / name)
        return places
