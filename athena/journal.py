"""A model's journal as a file: one signed entry a line, each written to disk before anything is done by it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from athena.durable import flush
from athena.errors import BadInput, Conflict, NotFound, TooLarge
from athena.registry import MAX_ENTRIES, Action, Entry, Registry, SignedEntry, replay

JOURNAL = "journal.jsonl"
MAX_JOURNAL_BYTES = 8 * 2**20
Sign = Callable[[bytes], str]
Verify = Callable[[str, bytes, str], None]
"""Called with hotkey, message and signature; raises Unauthorized."""


@dataclass(frozen=True)
class Signer:
    """A hotkey and what signs with it."""

    hotkey: str
    sign: Sign


def parse_journal(content: bytes) -> list[SignedEntry]:
    """The entries of whole lines, unverified: what a kill left of a last line does not count.

    Raises TooLarge and BadInput.
    """
    if len(content) > MAX_JOURNAL_BYTES:
        raise TooLarge(f"a journal of {len(content)} bytes, over {MAX_JOURNAL_BYTES}")
    lines = content.split(b"\n")[:-1]
    if len(lines) > MAX_ENTRIES:
        raise TooLarge(f"a journal of {len(lines)} entries, over {MAX_ENTRIES}")
    try:
        return [SignedEntry.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise BadInput(f"not a journal: {error.errors()[0]['msg']}") from error


def read_journal(file: Path) -> list[SignedEntry]:
    """The entries of a journal's file, unverified. Raises NotFound, TooLarge, BadInput."""
    if not file.is_file():
        raise NotFound(f"no journal at {file}")
    with file.open("rb") as stream:
        return parse_journal(stream.read(MAX_JOURNAL_BYTES + 1))


class Journal:
    """The journal of `model` in `folder`. Several processes may write it; each entry is checked against all before."""

    def __init__(self, folder: Path, model: str, verify: Verify) -> None:
        self.file = folder / JOURNAL
        self.model = model
        self._verify = verify

    def entries(self) -> list[SignedEntry]:
        """All entries; none where nothing is written yet. Raises BadInput for a damaged file."""
        return read_journal(self.file) if self.file.exists() else []

    def registry(self) -> Registry:
        """What the journal comes to. Raises what `replay` raises."""
        return replay(self.model, self.entries(), self._verify)

    def append(self, signer: Signer, action: Action, version: str, release: str, **said: Any) -> Registry:
        """Signs and writes the next entry; the registry after it. `said`: what belongs to the action (see Entry).

        Raises BadInput and Conflict for what the registry refuses; nothing is written then.
        """
        with self._locked():
            registry = self.registry()
            try:
                entry = Entry(
                    model=self.model,
                    number=registry.length,
                    previous=registry.head,
                    at=datetime.now(UTC),
                    by=signer.hotkey,
                    action=action,
                    version=version,
                    release=release,
                    **said,
                )
            except ValidationError as error:
                raise BadInput(f"no entry can be made of this: {error.errors()[0]['msg']}") from error
            after = registry.after(entry)
            self._write(SignedEntry(entry=entry, signature=signer.sign(entry.canonical())))
        return after

    def adopt(self, entries: Sequence[SignedEntry]) -> None:
        """Goes on from `entries`, another copy of this journal, where that is the longer one.

        Raises Conflict where the two went different ways, and what `replay` raises.
        """
        replay(self.model, entries, self._verify)
        with self._locked():
            own = [signed.entry for signed in self.entries()]
            theirs = [signed.entry for signed in entries]
            if own[: len(theirs)] != theirs[: len(own)]:
                raise Conflict(
                    f"another journal of {self.model} is published", remedy="go on where its last entry was written"
                )
            for signed in entries[len(own) :]:
                self._write(signed)

    def _write(self, signed: SignedEntry) -> None:
        with self.file.open("r+b") as stream:
            content = stream.read()
            stream.truncate(content.rfind(b"\n") + 1)  # the rest is of a writer that was killed
            stream.seek(0, os.SEEK_END)
            stream.write(signed.canonical() + b"\n")
        flush(self.file)
        flush(self.file.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
