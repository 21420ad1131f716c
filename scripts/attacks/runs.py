"""Networks played in processes of their own. What one found outlives an interruption; one that dies takes no other."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from pydantic import TypeAdapter

from athena.durable import write_file
from scripts.attacks.play import HONEST, IDLE, Played, play, without
from scripts.attacks.table import ATTACKS
from scripts.attacks.world import World, build_world

LIMIT_SECONDS = 900
"""Of one network, which takes half a minute on a core of its own. A process that takes longer is killed."""
SCRIPTS = {attack.name: attack for attack in (IDLE, HONEST, *ATTACKS)}

_ROOT = Path(__file__).parents[2]
_CODE = ("athena", "task_server", "scripts/attacks")
_CODE_HASH = re.compile("[0-9a-f]{16}")
_PLAYED = TypeAdapter(Played)


@dataclass(frozen=True)
class Run:
    """One network to play: what is done in the slot, in the world of a seed, on a validator that may lack a gate."""

    attack: str
    seed: int
    rounds: int
    removed_gate: str | None = None

    @property
    def file_name(self) -> str:
        return f"{hashlib.sha256(repr(self).encode()).hexdigest()}.json"


@dataclass(frozen=True)
class Died:
    """A network that came to no end, and why."""

    reason: str


Result = Played | Died


class Runs:
    """Plays networks, `jobs` side by side. Results lie in `folder`, under the hash of all code that plays: other code
    begins anew."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._folder = folder / _code_hash()
        for other in folder.glob("*"):
            if _CODE_HASH.fullmatch(other.name) and other != self._folder:
                shutil.rmtree(other)
        scratch = self._folder / "scratch"  # of networks that were interrupted
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        os.environ["TMPDIR"] = str(scratch)
        os.environ["BITTENSOR_RUNTIME_CACHE_DIR"] = str(self._folder / "runtime-cache")
        self._threads = ThreadPoolExecutor(jobs)
        self._pools: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(jobs):
            self._pools.put(_new_pool())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._pools.empty():
            self._pools.get().shutdown()

    def build(self, seed: int) -> Future[Died | None]:
        """Makes the world of a seed."""
        return self._threads.submit(self._build, seed)

    def start(self, run: Run) -> Future[Result]:
        """Takes what an earlier call found, or plays; in the order of the calls."""
        return self._threads.submit(self._play, run)

    def forget(self) -> None:
        """Removes all results."""
        shutil.rmtree(self._folder)

    def _build(self, seed: int) -> Died | None:
        pool = self._pools.get()
        made = pool.submit(_make_world, self._folder, seed)
        return self._give_back(pool, made.exception())

    def _play(self, run: Run) -> Result:
        file = self._folder / "played" / run.file_name
        if file.exists():
            return _PLAYED.validate_json(file.read_bytes())
        pool = self._pools.get()
        playing = pool.submit(_play_here, self._folder, run)
        died = self._give_back(pool, playing.exception())
        if died is not None:
            return died
        played = playing.result()
        if "none" in played.honest_outcomes:
            return Died("the validator could not judge the honest miners")
        write_file(file, _PLAYED.dump_json(played))
        return played

    def _give_back(self, pool: ProcessPoolExecutor, error: BaseException | None) -> Died | None:
        """Leaves the pool to the next run, or a new one where its process is gone."""
        if isinstance(error, BrokenProcessPool):
            pool.shutdown()
            pool = _new_pool()
        self._pools.put(pool)
        return None if error is None else Died(f"{type(error).__name__}: {error}")


def _new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A killed parent tells its processes nothing: they would wait for work for ever."""

    def wait() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _make_world(folder: Path, seed: int) -> None:
    build_world(folder / str(seed), seed)


@lru_cache
def _world(folder: Path, seed: int) -> World:
    return World(folder / str(seed), seed)


def _play_here(folder: Path, run: Run) -> Played:
    """`play` for another process, which cannot be handed functions. The alarm ends this process."""
    signal.alarm(LIMIT_SECONDS)
    gates = {} if run.removed_gate is None else {"gates": without(run.removed_gate)}
    played = play(_world(folder, run.seed), SCRIPTS[run.attack], rounds=run.rounds, **gates)
    signal.alarm(0)
    return played


def _code_hash() -> str:
    digest = hashlib.sha256()
    for file in sorted(file for part in _CODE for file in (_ROOT / part).rglob("*.py")):
        digest.update(f"{file.relative_to(_ROOT)} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
