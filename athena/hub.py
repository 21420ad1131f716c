"""The shelf: publish a folder under a name, fetch it again at a revision. On one machine or on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self
from urllib.parse import unquote

from pydantic import Field, ValidationError, model_validator

from athena.durable import finish
from athena.errors import BadInput, Misconfigured, NotFound, TooLarge, Unavailable
from athena.protocol import Hex40, Hex64, Noun, RelativePath

Kind = Literal["dataset", "model"]
BRANCH = "main"
INCOMPLETE = ".incomplete"
MAX_FILES = 4096
CHUNK_BYTES = 1 << 20
READ_LAST = ("manifest.json", "release.json")  # their existence is the proof of the rest, so they land last

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_REVISION = re.compile(r"[0-9a-f]{40}")


Progress = Callable[[int, int], None]
"""Told of bytes that are here and bytes that there will be."""


def unwatched(_here: int, _all: int) -> None:
    """A Progress that nobody looks at."""


class Hub(Protocol):
    """Folders of files under `org/name`, each version pinned by a revision.

    Every adapter promises:
    - a revision names its bytes for ever: a later publish never changes what an earlier revision fetches;
    - publishing the same bytes again gives a revision with those bytes, and adds none to the history;
    - a publish is all or nothing, also when its process is killed, and concurrent ones never mix;
    - whatever lies under its final name after a fetch has the hash that the revision names;
    - what is hidden (a path segment that starts with a dot) is neither published nor fetched.

    Names, references and revisions of a wrong form raise BadInput. Faults of a service, the network or this machine's
    disk raise Unavailable, after retries; nothing waits without a limit.
    """

    scheme: str
    """The prefix of `protocol.Location`: hf or file."""

    def publish(self, folder: Path, name: str, *, message: str) -> str:
        """Makes the files of `folder` the newest version of `name`, created if need be; its 40-hex revision."""
        ...

    def sizes(self, name: str, revision: str) -> dict[str, int]:
        """Bytes of each file by its path; nothing is downloaded. Raises NotFound, and TooLarge over MAX_FILES."""
        ...

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
        """Puts the files whose paths end in one of `suffixes` (all, when empty) into `into`, and returns it.

        Raises TooLarge before any download when they exceed `max_bytes` together, NotFound, BadInput for paths that
        would leave the folder, CorruptContent. After an interruption the same call goes on where it stopped; one
        caller per folder at a time. Nothing that is fetched is ever executed or unpacked.
        """
        ...

    def tag(self, name: str, revision: str, tag: str) -> None:
        """Gives the revision a lasting name. Raises Conflict when the tag already names another one."""
        ...

    def resolve(self, name: str, reference: str) -> str:
        """The revision that a tag, or the branch `main`, names. Raises NotFound."""
        ...


class CorruptContent(Unavailable):
    """A hub delivered bytes that do not have the hash it promised: its fault, not the publisher's."""

    code = "corrupt-content"


def open_hub(url: str, *, kind: Kind = "dataset") -> Hub:
    """`hf://` (Hugging Face Hub), `hf://https://endpoint` (one that speaks its API) or `file:///folder`.

    `kind` keeps datasets and models apart, as the Hugging Face Hub does. Raises Misconfigured.
    """
    scheme, _, rest = url.partition("://")
    # The adapters build on this module, and a node with file:// starts without huggingface_hub.
    if scheme == "hf":
        from athena.hub_huggingface import HuggingFaceHub

        return HuggingFaceHub(rest or None, kind)
    if scheme == "file" and rest.startswith("/"):
        from athena.hub_folder import FolderHub

        return FolderHub(Path(unquote(rest)), kind)
    raise Misconfigured(f"not a hub: {url}", remedy="use hf://, hf://https://endpoint or file:///absolute/folder")


class Entry(Noun):
    """One file of a revision. Its sha256 is known unless a git-backed hub keeps it as a plain blob (small text)."""

    path: RelativePath
    bytes: Annotated[int, Field(ge=0)]
    sha256: Hex64 | None = None
    git_blob: Hex40 | None = None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.sha256 is None and self.git_blob is None:
            raise ValueError("the hub names no hash for the file")
        if any(len(segment) > 200 for segment in self.path.split("/")):
            raise ValueError("a path segment is longer than 200 characters")
        return self

    @property
    def hidden(self) -> bool:
        return any(segment.startswith(".") for segment in self.path.split("/"))

    @property
    def content_id(self) -> str:
        return self.sha256 or self.git_blob or ""

    def same_content(self, other: Entry) -> bool:
        if self.bytes != other.bytes:
            return False
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self.git_blob is not None and self.git_blob == other.git_blob


def check_name(name: str) -> str:
    """`org/name` as the Hugging Face Hub allows it, so that a name that is good here is good there too."""
    if len(name) > 96 or not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".", "-")):
        raise BadInput(f"not a repository name: {name[:100]!r}", remedy="use org/name: letters, digits, '.', '_', '-'")
    return name


def check_revision(revision: str) -> str:
    if not _REVISION.fullmatch(revision):
        raise BadInput(f"not a revision: {revision[:100]!r}", remedy="give all 40 hex digits; resolve() finds them")
    return revision


def check_reference(reference: str) -> str:
    if not _REFERENCE.fullmatch(reference) or ".." in reference or reference.endswith((".lock", ".")):
        raise BadInput(f"not a tag or branch: {reference[:100]!r}")
    return reference


def check_tag(tag: str) -> str:
    if tag == BRANCH or _REVISION.fullmatch(tag):
        raise BadInput(f"{tag} cannot be a tag: it would hide a branch or a revision")
    return check_reference(tag)


def listing(rows: Iterable[dict[str, object]]) -> tuple[Entry, ...]:
    """The visible files of a revision, by path, from what a hub says about it. Raises BadInput and TooLarge."""
    entries: dict[str, Entry] = {}
    for row in rows:
        if len(entries) == MAX_FILES:
            raise TooLarge(f"the revision has over {MAX_FILES} files")
        try:
            entry = Entry.model_validate(row)
        except ValidationError as error:
            raise BadInput(f"refused file {str(row.get('path'))[:100]!r}: {error.errors()[0]['msg']}") from error
        if entry.path in entries:
            raise BadInput(f"the revision names {entry.path} twice")
        entries[entry.path] = entry
    for path in entries:
        if any(str(parent) in entries for parent in Path(path).parents):
            raise BadInput(f"{path} lies below a file of the same revision")
    return tuple(entries[path] for path in sorted(entries) if not entries[path].hidden)


def files_to_publish(folder: Path) -> list[str]:
    """Relative paths of the visible files of `folder`, sorted. Raises NotFound, BadInput and TooLarge.

    A symbolic link is refused rather than followed: it could publish what lies outside.
    """
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}")
    paths = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(segment.startswith(".") for segment in relative.parts):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BadInput(f"{path} is neither a file nor a folder", remedy="copy it into place")
        if path.is_file():
            paths.append(relative.as_posix())
    if not paths:
        raise BadInput(f"no files in {folder}")
    return [entry.path for entry in listing({"path": path, "bytes": 0, "sha256": "0" * 64} for path in paths)]


def describe(path: Path, name: str) -> Entry:
    """Size and both hashes of a file, read once."""
    size = path.stat().st_size
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\x00" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha256.update(chunk)
            blob.update(chunk)
    return Entry(path=name, bytes=size, sha256=sha256.hexdigest(), git_blob=blob.hexdigest())


def land(
    entries: Sequence[Entry],
    into: Path,
    *,
    max_bytes: int,
    suffixes: tuple[str, ...],
    progress: Progress,
    download: Callable[[Entry, Path, Callable[[int], None]], None],
) -> Path:
    """The fetch that all adapters share: choose, check sizes, download, verify, rename into place.

    `download(entry, part, here)` writes the content to `part`, or goes on with what already lies there, and tells
    `here` how many bytes do.
    """
    wanted = [entry for entry in entries if not suffixes or entry.path.endswith(suffixes)]
    total = sum(entry.bytes for entry in wanted)
    if total > max_bytes:
        raise TooLarge(f"the revision has {total} bytes, over the limit of {max_bytes}")
    with disk_faults(f"fetching into {into}"):
        _refuse_strangers(into, {entry.path for entry in entries})
        parts = into / INCOMPLETE
        parts.mkdir(parents=True, exist_ok=True)
        in_order = sorted(wanted, key=lambda entry: (entry.path in READ_LAST, entry.path))
        before = itertools.accumulate((entry.bytes for entry in in_order), initial=0)
        for entry, landed in zip(in_order, before, strict=False):
            final = into / entry.path
            if final.is_file() and describe(final, entry.path).same_content(entry):
                continue
            part = parts / entry.content_id
            download(entry, part, partial(_with_earlier, progress, landed, total))
            if not describe(part, entry.path).same_content(entry):
                part.unlink()
                raise CorruptContent(f"{entry.path} does not have its promised hash", remedy="try again later")
            final.parent.mkdir(parents=True, exist_ok=True)
            finish(part, final)
        shutil.rmtree(parts)
    return into


def _with_earlier(progress: Progress, landed: int, total: int, here: int) -> None:
    progress(landed + here, total)


def _refuse_strangers(into: Path, known: set[str]) -> None:
    for path in into.rglob("*"):
        relative = path.relative_to(into)
        if relative.parts[0] != INCOMPLETE and not path.is_dir() and relative.as_posix() not in known:
            raise BadInput(f"{path} is not of this revision", remedy="fetch into an empty folder")


@contextmanager
def disk_faults(doing: str) -> Iterator[None]:
    """A full or failing disk of this machine is nobody else's fault: Unavailable."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{doing}: {error}", remedy="check the disk's space and permissions") from error
