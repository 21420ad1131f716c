"""Datasets on the Hugging Face Hub, read file by file where they lie, at a fixed commit."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import quote

import httpx2
import yaml  # type: ignore[import-untyped]
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import HfHubHTTPError
from pydantic import BaseModel, ValidationError

from athena.errors import BadInput, NotFound, Unavailable
from athena.hub import check_name, open_hub
from athena.hub_huggingface import HubAccess
from athena.refine.sources.files import FileSource, form_of
from athena.refine.sources.warc import WarcSource

MAX_FILES = 100_000
_SPELLING = re.compile(r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(@(?P<reference>[^/@]+))?(/(?P<path>[^?#]*))?")
_REVISION = re.compile(r"[0-9a-f]{40}")
_BLOCK_BYTES = 4 << 20
_MAX_BLOCKS = 32  # of Parquet, a row group is gone through twice, and column by column
_MAX_CARD_BYTES = 1 << 20
_CARD = re.compile(rb"\A---\r?\n(.*?)\n---", re.DOTALL)


@dataclass(frozen=True)
class HubFile:
    """A file of a dataset: `hf://datasets/ORG/NAME@<40 hex>/path`. Read by byte ranges, nothing is kept on disk."""

    dataset: str
    revision: str
    path: str
    endpoint: str

    @property
    def name(self) -> str:
        return f"hf://datasets/{self.dataset}@{self.revision}/{quote(self.path)}"

    def open(self) -> BinaryIO:
        with _translated(self.name):
            files = _file_system(self.endpoint)
            stream = files.open(
                f"datasets/{self.dataset}/{self.path}", "rb", revision=self.revision, block_size=_BLOCK_BYTES,
                cache_type="blockcache", cache_options={"maxblocks": _MAX_BLOCKS},
            )  # fmt: skip
        return cast(BinaryIO, io.BufferedReader(_HubStream(stream, self.name), buffer_size=256 << 10))


class _HubStream(io.RawIOBase):
    """The client's stream with Athena's errors."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # Buffer is typed from 3.12 on
        with _translated(self._name):
            chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def hub_sources(location: str, column: str | None) -> Iterator[FileSource | WarcSource]:
    """The data files of `hf://datasets/ORG/NAME[@REVISION][/path]` in the order of their paths.

    `path` is a file, a folder, or a configuration that the dataset's card names. A revision that is a branch or tag is
    resolved once: sources name the commit. Files of other kinds (cards, licences) are passed over. The environment's
    HF_ENDPOINT and HF_TOKEN hold.

    Raises BadInput for another form, or where no file can be read from; NotFound; Unavailable.
    """
    match = _SPELLING.fullmatch(location)
    if match is None:
        raise BadInput(f"not a dataset: {location[:200]}", remedy="use hf://datasets/ORG/NAME[@REVISION][/path]")
    dataset, path = check_name(match["name"]), (match["path"] or "").strip("/")
    endpoint = HubAccess().hf_endpoint.rstrip("/")
    reference = match["reference"] or "main"
    resolved = reference if _REVISION.fullmatch(reference) else open_hub("hf://").resolve(dataset, reference)
    found = False
    for file in _data_files(dataset, resolved, path, endpoint):
        found = True
        form = form_of(file)
        place = HubFile(dataset, resolved, file, endpoint)
        if form.kind in ("warc", "wet"):
            yield WarcSource(place, is_wet=form.kind == "wet")
        else:
            yield FileSource(place, form, column)
    if not found:
        raise BadInput(f"{location[:200]} holds no file that text is read from", remedy="name a folder with data files")


def _data_files(dataset: str, revision: str, path: str, endpoint: str) -> list[str]:
    top, files = f"datasets/{dataset}@{revision}", _file_system(endpoint)
    with _translated(f"hf://{top}/{path}"):
        try:
            entries = set(files.find(f"{top}/{path}".rstrip("/")))
        except FileNotFoundError:
            entries = set()
        if not entries and path:
            entries = {entry for pattern in _patterns(files, top, path) for entry in files.glob(f"{top}/{pattern}")}
    if len(entries) > MAX_FILES:
        raise BadInput(f"{dataset} has over {MAX_FILES} files", remedy="name one of its folders")
    if not entries:
        raise NotFound(f"no {path or 'files'} in {dataset} at {revision}")
    return [file for file in sorted(entry.removeprefix(f"{top}/") for entry in entries) if _is_data(file)]


def _patterns(files: HfFileSystem, top: str, config: str) -> list[str]:
    """Paths of the data files of a configuration, as the dataset's card lists them; none where it does not."""
    with files.open(f"{top}/README.md", "rb") as stream:
        card = _CARD.match(stream.read(_MAX_CARD_BYTES))
    try:
        head = yaml.safe_load(card[1]) if card else None
        configs = _Card.model_validate(head or {}).configs
    except (yaml.YAMLError, ValidationError, RecursionError) as error:
        raise BadInput(f"hf://{top} has a malformed card", remedy="name a folder of the dataset") from error
    return [pattern for entry in configs if entry.config_name == config for pattern in entry.patterns()]


class _DataFiles(BaseModel):
    path: str | list[str]


class _Config(BaseModel):
    """A configuration in the YAML head of a dataset's card."""

    config_name: str
    data_dir: str = ""
    data_files: str | list[str | _DataFiles] | None = None

    def patterns(self) -> list[str]:
        listed = [self.data_files] if isinstance(self.data_files, str) else self.data_files or ["**"]
        paths = [entry.path if isinstance(entry, _DataFiles) else entry for entry in listed]
        flat = [path for paths_of_split in paths for path in _several(paths_of_split)]
        return [f"{self.data_dir}/{path}".strip("/") for path in flat]


class _Card(BaseModel):
    configs: list[_Config] = []


def _several(path: str | list[str]) -> list[str]:
    return [path] if isinstance(path, str) else path


def _is_data(file: str) -> bool:
    if file.rpartition("/")[2].lower() in ("readme.md", "license.txt", "license.md", "dataset_infos.json"):
        return False
    try:
        form_of(file)
    except BadInput:
        return False
    return True


def _file_system(endpoint: str) -> HfFileSystem:
    """fsspec keeps one per endpoint and token. Without HF_TOKEN there is none: no login on this machine is used."""
    token = HubAccess().hf_token
    return HfFileSystem(endpoint=endpoint, token=token.get_secret_value() if token else False)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """The client's errors as Athena's. Messages carry no URL: those of downloads are signed, and would grant access."""
    try:
        yield
    except FileNotFoundError as error:  # the client's errors of what does not exist derive from it
        raise NotFound(f"{name} does not exist", remedy="private ones need a token in HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise Unavailable(f"{name}: HTTP {status}", remedy="try again later, or check HF_TOKEN") from error
    except (httpx2.HTTPError, OSError) as error:
        raise Unavailable(f"{name}: {type(error).__name__}", remedy="try again later") from error
