"""A copy of a server's event chain in a file, one canonical LedgerEvent a line: it is what rewriting is proven with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from athena.audit import START, verified, verify_chain
from athena.client import LedgerClient
from athena.errors import BadInput, Misconfigured, TooLarge
from athena.wire import EventHead, LedgerEvent

MAX_LINE_BYTES = 2**20


def saved(path: Path) -> Iterator[LedgerEvent]:
    """The events of a file; a last line that was cut off is left out.

    Raises BadInput, naming the line, for what is no event; Misconfigured where the file cannot be read.
    """
    with _usable(path), path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise TooLarge(f"line {number} of {path} is over {MAX_LINE_BYTES} bytes")
            try:
                yield LedgerEvent.model_validate_json(line)
            except ValidationError as error:
                if not line.endswith(b"\n"):
                    return
                raise BadInput(f"line {number} of {path} is no event of a task server") from error


def fetch(
    client: LedgerClient, path: Path, on_event: Callable[[int, int], None] = lambda _sequence, _total: None
) -> EventHead:
    """Brings the file up to the end of the server's chain; the end. Only what is newer is asked for.

    `on_event` gets (sequence, last sequence). Killed at any time, it goes on. Raises BadInput, naming the first bad
    sequence, where the server's chain is broken, does not end as it says, or is not what it was when the file was
    written.
    """
    _end_with_a_line(path)
    head = verify_chain(saved(path))
    told = client.event_head()
    events = client.events(max(0, head.sequence - 1))  # our last event once more: the server must still say the same
    if head != START:
        same = next(events, None)
        if same is None or (same.sequence, same.hash) != (head.sequence, head.hash):
            raise _rewritten(client, path, head)
    if told.sequence < head.sequence:
        raise BadInput(f"the server says that its event chain ends at {told.sequence}, and shows event {head.sequence}")
    with _usable(path), path.open("ab") as file:
        if head.sequence < told.sequence:
            for event in verified(events, head):
                file.write(event.canonical() + b"\n")
                head = EventHead(sequence=event.sequence, hash=event.hash)
                on_event(head.sequence, told.sequence)
                if head.sequence == told.sequence:
                    break
        file.flush()
        os.fsync(file.fileno())
    if head.sequence < told.sequence:
        raise BadInput(f"event {head.sequence + 1} is missing: the server says that its chain ends at {told.sequence}")
    if head != told:
        raise BadInput(f"event {head.sequence} is not the one that the server names as the end of its chain")
    return head


def _rewritten(client: LedgerClient, path: Path, head: EventHead) -> BadInput:
    """Where two chains part, their hashes differ from there on."""
    hashes = [event.hash for event in saved(path)]
    same, other = 0, head.sequence
    while other - same > 1:
        middle = (same + other) // 2
        told = next(client.events(middle - 1), None)
        if told is not None and told.hash == hashes[middle - 1]:
            same = middle
        else:
            other = middle
    return BadInput(
        f"the server rewrote its history from event {other} on: {path} holds {hashes[other - 1]}",
        remedy="keep the file: it is the proof",
    )


def _end_with_a_line(path: Path) -> None:
    """Makes an empty file where there is none; drops what a kill left of a line."""
    with _usable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - MAX_LINE_BYTES))
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise Misconfigured(f"{path} cannot be used: {why}", remedy="choose another file") from error
