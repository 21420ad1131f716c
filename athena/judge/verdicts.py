"""The three answers that a gate can give, and whose fault is whose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from athena.errors import AthenaError
from athena.protocol import Verdict

MAX_REASON_CHARS = 500  # reasons quote hostile input


def passed(gate: str, **evidence: Any) -> Verdict:
    return Verdict(gate=gate, outcome="pass", evidence=evidence)


def failed(gate: str, reason: str, **evidence: Any) -> Verdict:
    return Verdict(gate=gate, outcome="fail", reason=reason[:MAX_REASON_CHARS], evidence=evidence)


def unknown(gate: str, reason: str) -> Verdict:
    return Verdict(gate=gate, outcome="none", reason=reason[:MAX_REASON_CHARS])


def guarded(gate: str, check: Callable[[], Verdict]) -> Verdict:
    """`check()`, or outcome none for whatever this machine or a service failed at.

    A gate turns a miner's faults into `failed` itself, where it knows that they are the miner's: what arrives here as
    an error is not.
    """
    try:
        return check()
    except AthenaError as error:
        return unknown(gate, f"{error.code}: {error.message}")
    except (OSError, MemoryError) as error:
        return unknown(gate, f"{type(error).__name__}: {error}")
