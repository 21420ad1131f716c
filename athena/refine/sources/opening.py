"""Where records come from: what a person types → sources, and a row's record again from its source and range."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from athena.crawl import local_warc_path
from athena.crawl_http import Manners
from athena.errors import BadInput, NotFound, Unavailable
from athena.refine.records import Record, parse_record, read_texts
from athena.refine.sources.files import FileSource, Form, LocalFile, form_of
from athena.refine.sources.warc import NOT_A_WARC, WarcSource, web_source

UNKNOWN_KIND = "unknown-kind"
NOT_A_FILE = "not-a-file"
_COLUMN = "#column="
_MAX_RANGE_BYTES = 64 << 20


class Source(Protocol):
    """Where records come from. Sources are values: they can be sent to another process, and hold nothing open.

    `name` is what rows carry as warc_path: the path of a WARC file, else a URI with the revision of the content. The
    same name means the same records in the same order.
    """

    @property
    def name(self) -> str: ...

    def records(self, rejected: Counter[str]) -> Iterator[Record]:
        """Every record, in a fixed order, by rising offset. What yields none is counted in `rejected` by reason.

        A broken or hostile file is counted, never raised. Raises Unavailable where the file cannot be read now.
        """
        ...


@dataclass(frozen=True)
class UnusableFile:
    """A file of a folder that no text can be read from: it yields nothing, and counts as one `reason`."""

    name: str
    reason: str

    def records(self, rejected: Counter[str]) -> Iterator[Record]:
        rejected[self.reason] += 1
        return iter(())


def open_sources(inputs: Sequence[str], *, manners: Manners | None = None) -> list[Source]:
    """The sources that a person names, in the order given; content that is named twice counts once.

    Each input is a file, a folder (all files below it in sorted order, save hidden ones), the https address of a WARC
    or WET file, or `hf://datasets/ORG/NAME[@REVISION][/path]`. `#column=NAME` behind a table, or a folder or dataset
    of tables, names the column of text. Local files are read once to name them by their content. `manners` govern
    requests to web servers.

    Raises NotFound where there is no such file or dataset, BadInput for what no text can be read from, Unavailable.
    """
    sources: dict[str, Source] = {}
    for typed in inputs:
        found = list(_sources_of(typed, manners))
        if not found:
            raise BadInput(f"{typed} holds no files")
        for source in found:
            sources.setdefault(source.name, source)
    return list(sources.values())


def read_again(path: Path, name: str, offset: int, length: int) -> Record:
    """The record that a row names by `name`, offset and length, from the local file `path` that it came from.

    Raises BadInput if the file has other content than the name says, or no record there; Unavailable.
    """
    location, _, column = name.partition(_COLUMN)
    if not location.startswith("file:"):
        if local_warc_path(path) != location:
            raise BadInput(f"{path} is not the file {location}")
        return parse_record(_range(path, offset, length), location, offset)
    shown = unquote(location.removeprefix("file:").partition("?")[0])
    place, form = LocalFile.at(path, shown), form_of(shown)
    if place.name != location:
        raise BadInput(f"{path} is not the file {location}")
    if form.kind == "wet":
        found = iter(read_texts(io.BytesIO(_range(path, offset, length)), name))
        record = next((dataclasses.replace(record, offset=offset) for record in found), None)
    else:
        record = next(FileSource(place, form, unquote(column) or None).records(Counter(), start=offset), None)
    if record is None or (record.offset, record.length) != (offset, length):
        raise BadInput(f"{path} has no record at {offset} with {length} bytes")
    return record


def _sources_of(typed: str, manners: Manners | None) -> Iterable[Source]:
    location, _, column = typed.partition(_COLUMN)
    if location.startswith("hf://"):
        from athena.refine.sources.hub import hub_sources  # a run on local files starts without the hub's client

        return hub_sources(location, unquote(column) or None)
    if location.startswith(("https://", "http://")):
        return [web_source(location, manners)]
    path = Path(location)
    if path.is_dir():
        return _below(path, unquote(column) or None)
    if path.is_file():
        return [_local(path, path.name, form_of(path.name), unquote(column) or None)]
    raise NotFound(f"no file or folder {location}", remedy="give a file, a folder, or an https:// or hf:// address")


def _below(folder: Path, column: str | None) -> Iterator[Source]:
    top = folder.resolve()
    paths = sorted(top.rglob("*"), key=lambda path: path.relative_to(top).as_posix())
    for path in paths:
        relative = path.relative_to(top)
        if path.is_dir() or any(part.startswith(".") for part in relative.parts):
            continue
        shown = f"{top.name}/{relative.as_posix()}"
        if path.is_symlink() or not path.is_file():  # a link may lead out of the folder
            yield UnusableFile(f"file:{quote(shown)}", NOT_A_FILE)
            continue
        try:
            form = form_of(path.name)
        except BadInput:
            yield UnusableFile(f"file:{quote(shown)}", UNKNOWN_KIND)
            continue
        try:
            yield _local(path, shown, form, column)
        except BadInput:
            yield UnusableFile(f"file:{quote(shown)}", NOT_A_WARC)


def _local(path: Path, shown: str, form: Form, column: str | None) -> Source:
    """Raises BadInput for a WARC file that is none."""
    if form.kind == "warc":
        try:
            return WarcSource(LocalFile(path, local_warc_path(path)))
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    place = LocalFile.at(path, shown)
    return WarcSource(place, is_wet=True) if form.kind == "wet" else FileSource(place, form, column)


def _range(path: Path, offset: int, length: int) -> bytes:
    if not 0 < length <= _MAX_RANGE_BYTES or offset < 0:
        raise BadInput(f"no byte range: offset {offset}, length {length}")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)
