"""The shelf on one machine: a folder with content-addressed objects, hash-named revisions and renamed references.

    objects/ab/ab12…                              content, named by its sha256
    datasets/org/name/revisions/<40 hex>.json     files with their sha256, parent, message; named by its own sha256
    datasets/org/name/refs/main, refs/<tag>       a revision each

A revision's name covers its listing, and the listing covers the content, so a fetch can tell any corruption. Nothing is
ever changed in place, and reading needs no lock, no listing of the root, and no right to write.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from athena.durable import finish, write_file
from athena.errors import BadInput, Conflict, NotFound, TooLarge, Unavailable
from athena.hub import (
    BRANCH,
    CHUNK_BYTES,
    MAX_FILES,
    CorruptContent,
    Entry,
    Kind,
    Progress,
    check_name,
    check_reference,
    check_revision,
    check_tag,
    disk_faults,
    files_to_publish,
    land,
    listing,
    unwatched,
)
from athena.protocol import Hex40, Noun

MAX_REVISION_BYTES = MAX_FILES * 1024  # a path of at most 300 characters, a hash and punctuation for each file


class _Revision(Noun):
    files: tuple[Entry, ...]
    parent: Hex40 | None
    message: str = Field(min_length=1, max_length=10_000)

    @property
    def id(self) -> str:
        return self.digest()[:40]


class FolderHub:
    """`file:///root`. Several processes may use one root; a publish or tag holds its repository's lock."""

    scheme = "file"

    def __init__(self, root: Path, kind: Kind = "dataset", *, patience_seconds: float = 60.0) -> None:
        self._root = root
        self._kind = kind
        self._patience_seconds = patience_seconds

    def publish(self, folder: Path, name: str, *, message: str) -> str:
        repo = self._repo(name)
        with disk_faults(f"publishing {folder} as {name}"), _locked(repo, self._patience_seconds):
            paths = files_to_publish(folder)
            incoming = repo / "incoming"
            shutil.rmtree(incoming, ignore_errors=True)  # we hold the lock: what lies there is of a killed publish
            incoming.mkdir()
            files = tuple(self._store(folder / path, path, incoming / "object") for path in paths)
            head = self._reference(repo, BRANCH)
            if head is not None and self._read(name, head).files == files:
                return head
            try:
                revision = _Revision(files=files, parent=head, message=message)
            except ValidationError as error:
                raise BadInput("the message of a publish has 1 to 10,000 characters") from error
            write_file(repo / "revisions" / f"{revision.id}.json", revision.canonical())
            write_file(repo / "refs" / BRANCH, revision.id.encode())
            return revision.id

    def sizes(self, name: str, revision: str) -> dict[str, int]:
        return {entry.path: entry.bytes for entry in self._read(name, revision).files}

    def fetch(
        self,
        name: str,
        revision: str,
        into: Path,
        *,
        max_bytes: int,
        suffixes: tuple[str, ...] = (),
        progress: Progress = unwatched,
    ) -> Path:
        files = self._read(name, revision).files
        return land(files, into, max_bytes=max_bytes, suffixes=suffixes, progress=progress, download=self._copy)

    def tag(self, name: str, revision: str, tag: str) -> None:
        check_tag(tag)
        self._read(name, revision)
        repo = self._repo(name)
        with disk_faults(f"tagging {name}"), _locked(repo, self._patience_seconds):
            known = self._reference(repo, tag)
            if known not in (None, revision):
                raise Conflict(f"tag {tag} of {name} names {known}", remedy="choose another tag: tags never move")
            write_file(repo / "refs" / tag, revision.encode())

    def resolve(self, name: str, reference: str) -> str:
        revision = self._reference(self._repo(name), check_reference(reference))
        if revision is None:
            raise NotFound(f"{name} has no tag or branch {reference}")
        return revision

    def _repo(self, name: str) -> Path:
        return self._root / f"{self._kind}s" / check_name(name)

    def _object(self, entry: Entry) -> Path:
        return self._root / "objects" / entry.content_id[:2] / entry.content_id

    def _store(self, source: Path, path: str, staged: Path) -> Entry:
        """Copies a file into the store, hashing what is copied. Overwrites, so publishing again heals an object."""
        sha256, size = hashlib.sha256(), 0
        with source.open("rb") as reader, staged.open("wb") as writer:
            while chunk := reader.read(CHUNK_BYTES):
                sha256.update(chunk)
                size += writer.write(chunk)
        entry = Entry(path=path, bytes=size, sha256=sha256.hexdigest())
        target = self._object(entry)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o444)
        finish(staged, target)
        return entry

    def _copy(self, entry: Entry, part: Path, here: Callable[[int], None]) -> None:
        # A copy, not a hard link: a consumer that edits its file must not reach into the store.
        try:
            shutil.copyfile(self._object(entry), part)
        except FileNotFoundError as error:
            raise NotFound(f"the content of {entry.path} is gone from the hub") from error
        here(entry.bytes)

    def _read(self, name: str, revision: str) -> _Revision:
        path = self._repo(name) / "revisions" / f"{check_revision(revision)}.json"
        with disk_faults(f"reading {name}"):
            try:
                with path.open("rb") as file:
                    content = file.read(MAX_REVISION_BYTES + 1)
            except FileNotFoundError as error:
                raise NotFound(f"{name} has no revision {revision}") from error
        if len(content) > MAX_REVISION_BYTES:
            raise TooLarge(f"revision {revision} of {name} is listed in over {MAX_REVISION_BYTES} bytes")
        if hashlib.sha256(content).hexdigest()[:40] != revision:
            raise CorruptContent(f"the listing of {name} at {revision} does not have its promised hash")
        try:
            parsed = _Revision.model_validate_json(content)
        except ValidationError as error:
            raise BadInput(f"revision {revision} of {name} is malformed: {error.errors()[0]['msg']}") from error
        return parsed.model_copy(update={"files": listing(entry.model_dump() for entry in parsed.files)})

    def _reference(self, repo: Path, reference: str) -> str | None:
        with disk_faults(f"reading {repo}"):
            try:
                return check_revision((repo / "refs" / reference).read_bytes()[:64].decode(errors="replace"))
            except FileNotFoundError:
                return None


@contextmanager
def _locked(repo: Path, patience_seconds: float) -> Iterator[None]:
    """The repository's lock; the system drops it with the process, so a killed holder blocks nobody."""
    repo.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_seconds
    with (repo / "lock").open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(f"another process holds {repo} for over {patience_seconds:.0f} s") from error
                time.sleep(0.02)
        yield
