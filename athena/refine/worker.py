"""The processes that refine: one server that loads recipes, and the workers that it forks, one record at a time each.

Started by `athena.refine.pool`, which calls `main` in a fresh interpreter. Workers share the server's models in memory,
and a new one is there within milliseconds. The server has one thread and reads no page, so forking it is safe.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pickle
import resource
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from athena.errors import AthenaError, Conflict, Misconfigured
from athena.optout import LeftOut
from athena.refine.recipe import Document, Recipe, Rejected
from athena.refine.records import Record

log = logging.getLogger("athena.refine.worker")

OPTED_OUT = "opted-out"
CRASHED, MEMORY, TIMEOUT = NO_VERDICT = "none.crashed", "none.memory", "none.timeout"
_ERROR_CHARS = 400
_SENTENCES = (
    "The old lighthouse stands on a narrow rock at the end of the bay, where the ferry from the island arrives.",
    "Every evening the keeper climbed ninety steps with a can of oil, and cleaned the great lens before dark.",
    "His daughter wrote down the weather, the names of passing ships, and what the fishermen had told her that day.",
    "When the lamp became electric, the family moved into the village and opened a small shop near the harbour.",
    "Her notebooks are kept in the town library, and historians still use them to date the storms of that century.",
    "Visitors may walk out to the rock at low tide, but they have to be back within two hours.",
)
PLAIN_PAGE = Record(
    "", 0, 1, "", "http://example.org/lighthouse", "", "", "utf-8",
    f"<!doctype html><html lang=en><title>A lighthouse</title><p>{' '.join(_SENTENCES)}</html>".encode(),
)  # fmt: skip
"""A page that the canonical recipe keeps: it goes through all steps, so that all models are loaded."""


@dataclass(frozen=True)
class FailSafe:
    """What one record may cost. A worker over a limit ends; its record is tried once more, then marked `none.*`.

    `seconds` are wall clock: far above what any page of at most MAX_RECORD_BYTES was seen to take, so that they never
    decide about a row on a machine that works. `memory_bytes` bound the worker's private memory (RLIMIT_DATA) where
    the kernel counts it, as Linux does: with the files that it maps a worker stays under 1 GiB.
    """

    seconds: float = 60.0
    memory_bytes: int = 896 << 20


WITHIN_A_GIB = FailSafe()


@dataclass(frozen=True)
class Load:
    """Asks the server for a recipe. The answer is None, or the error."""

    pickled: bytes
    recipe_hash: str


@dataclass(frozen=True)
class Fork:
    """Asks the server for a worker on the connection that follows. The answer is its process id."""

    recipe: Load
    left_out: LeftOut
    fail_safe: FailSafe


@dataclass(frozen=True)
class Reap:
    """Asks how a worker that has hung up ended. The answer is its exit code, a signal's being negative."""

    pid: int


def serve(control: Connection) -> None:
    """Answers requests until the other side is gone."""
    recipes: dict[Load, Recipe] = {}
    with contextlib.suppress(EOFError):
        while True:
            request = control.recv()
            if isinstance(request, Load):
                control.send(_load(request, recipes))
            elif isinstance(request, Fork):
                control.send(_fork(request, control, recipes[request.recipe]))
            elif isinstance(request, Reap):
                control.send(_reap(request.pid))


def _reap(pid: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # forked by an earlier server, which was killed
        return 1


def _load(request: Load, recipes: dict[Load, Recipe]) -> AthenaError | None:
    """Takes a recipe in and runs it once, so that what it loads when first used is there before the first fork."""
    if request in recipes:
        return None
    try:
        recipe = pickle.loads(request.pickled)
        if recipe.hash != request.recipe_hash:
            return Conflict("the recipe changed while it was loaded", remedy="start again")
        recipe.process(PLAIN_PAGE)
    except AthenaError as error:
        return error
    except Exception as error:  # a recipe is anybody's code, and its fault must reach its author
        log.exception("the recipe cannot be used")
        return Misconfigured(f"the recipe fails on a plain page: {_named(error)}", remedy="mend the recipe")
    recipes[request] = recipe
    gc.freeze()  # a collection in a worker would touch, and so copy, all that it shares with the server
    return None


def _fork(request: Fork, control: Connection, recipe: Recipe) -> int:
    handle = recv_handle(control)
    pid = os.fork()
    if pid:
        os.close(handle)
        return pid
    code = 1
    try:
        control.close()
        _work(Connection(handle), recipe, request.left_out, request.fail_safe)
        code = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):  # nobody waits for the rest
        code = 0
    finally:
        os._exit(code)


def _work(records: Connection, recipe: Recipe, left_out: LeftOut, fail_safe: FailSafe) -> None:
    """Answers each list of records with one result per record, in order, until the other side is gone.

    The kernel ends the process when a record takes too long, also inside library code and without a parent.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = fail_safe.memory_bytes if hard == resource.RLIM_INFINITY else min(fail_safe.memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    while True:
        for record in records.recv():
            signal.setitimer(signal.ITIMER_REAL, fail_safe.seconds)
            result = Rejected(OPTED_OUT) if left_out.covers(record.url) else _process(recipe, record)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            records.send(result)
            if isinstance(result, Rejected) and result.reason == MEMORY:
                return


def _process(recipe: Recipe, record: Record) -> Document | Rejected:
    try:
        return recipe.process(record)
    except MemoryError:
        return Rejected(MEMORY)
    except Exception as error:  # noqa: BLE001  no page ends the work: it is counted, and the report shows the error
        return Rejected(CRASHED, excerpt=_named(error))


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_ERROR_CHARS]


def main(file_descriptor: int) -> None:
    """The whole of the server's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of the terminal: the parent decides
    serve(Connection(file_descriptor))
