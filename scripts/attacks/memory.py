"""What is found out once for all networks over one crawl, whatever their block hashes draw."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from athena.durable import write_file
from athena.judge import score
from athena.judge.assess import Bench
from athena.judge.proxy.arms import Job, ProxyWorkers
from athena.judge.proxy.measured import Measured
from athena.judge.public_work import PublicWork
from athena.protocol import Arm

_WORKS = TypeAdapter(dict[str, PublicWork])


class RememberingWorkers(ProxyWorkers):
    """Finds the results of earlier networks in `memory`: of the same text, as the same number of seed.

    Of canonical words in drawn order any order is as good as another, so the canary of the first network is all
    networks'. Good where all networks measure on the same documents: of a pack all of which is drawn.
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
        unshuffled = next((job.documents for job in jobs if job.name == score.CANONICAL), None)
        for job in jobs:
            text = unshuffled if job.name == score.SHUFFLED and unshuffled is not None else job.documents
            decided_by = f"{job.name} {text.name} {job.budget_tokens} {job.rules}"
            numbers[decided_by] += 1
            name = hashlib.sha256(f"{decided_by} {numbers[decided_by]}".encode()).hexdigest()
            places.append(self._memory / name)
        return places


@dataclass(frozen=True)
class RememberingBench(Bench):
    """Finds what public recipes make of a record in `memory`, a folder with a file for each WARC file."""

    memory: Path = field(kw_only=True)

    def public_work(self, path: str, places: Sequence[tuple[int, int]]) -> list[PublicWork | None]:
        file = self.memory / f"{hashlib.sha256(path.encode()).hexdigest()}.json"
        known = _WORKS.validate_json(file.read_bytes()) if file.exists() else {}
        new = [place for place in places if _key(place) not in known]
        if new:
            found = zip(new, super().public_work(path, new), strict=True)
            known |= {_key(place): work for place, work in found if work is not None}
            write_file(file, _WORKS.dump_json(known))
        return [known.get(_key(place)) for place in places]


def _key(place: tuple[int, int]) -> str:
    return f"{place[0]}+{place[1]}"
