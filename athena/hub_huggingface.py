"""The shelf on the Hugging Face Hub, or any server that speaks its API, through huggingface_hub.

Uploads go the client's own way (Xet, else LFS). Downloads are plain HTTP ranges on the client's session rather than
Xet or `hf_hub_download`: what a stranger published is read here under a byte limit and a deadline, and a cut transfer
goes on at the byte where it stopped, also in another process.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    build_hf_headers,
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
    set_client_factory,
)
from huggingface_hub.utils._http import default_client_factory, parse_ratelimit_headers
from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from athena.errors import AthenaError, BadInput, Conflict, Misconfigured, NotFound, TooLarge, Unavailable
from athena.hub import (
    BRANCH,
    CorruptContent,
    Entry,
    Kind,
    Progress,
    check_name,
    check_reference,
    check_revision,
    check_tag,
    describe,
    disk_faults,
    files_to_publish,
    land,
    listing,
    unwatched,
)
from athena.protocol import Hex40

REQUEST_SECONDS = 30.0
"""Longest silence of the Hub within a request."""
MIN_BYTES_PER_SECOND = 100_000
"""A download slower than this is given up: a server that drips cannot hold a validator."""
MAX_LISTING_BYTES = 16 << 20
PUBLISH_ROUNDS = 8

Result = TypeVar("Result")


class HubAccess(BaseSettings):
    """What the environment says of the Hugging Face Hub. A token on disk is not used."""

    model_config = SettingsConfigDict(frozen=True)

    hf_token: SecretStr | None = None
    """Access token: to publish, and to read what is private."""
    hf_endpoint: str = "https://huggingface.co"
    """Address of the Hub where the hub's URL names none."""


class _Busy(Unavailable):
    """The service asks for patience: worth trying again here, while patience lasts."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message, remedy="try again later", retry_after_seconds=retry_after_seconds)


class _LargeFile(BaseModel):
    sha256: str
    size: int


class _Sibling(BaseModel):
    rfilename: str
    size: int | None = None
    blob_id: Annotated[str | None, Field(alias="blobId")] = None
    lfs: _LargeFile | None = None

    def row(self) -> dict[str, object]:
        if self.lfs is not None:  # the blob is then a pointer file's
            return {"path": self.rfilename, "bytes": self.lfs.size, "sha256": self.lfs.sha256}
        return {"path": self.rfilename, "bytes": self.size, "git_blob": self.blob_id}


class _Info(BaseModel):
    """What is read of the Hub's answer about a revision."""

    sha: Hex40
    siblings: list[_Sibling]


class HuggingFaceHub:
    """`hf://`. Failed requests are tried again with growing pauses until `patience_seconds` brought no progress."""

    scheme = "hf"

    def __init__(self, endpoint: str | None = None, kind: Kind = "dataset", *, patience_seconds: float = 60.0) -> None:
        access = HubAccess()
        self._endpoint = _checked_endpoint(endpoint or access.hf_endpoint)
        self._token = access.hf_token.get_secret_value() if access.hf_token else None
        self._kind = kind
        self._patience_seconds = patience_seconds
        _prepare_client()
        # token=False: without HF_TOKEN no token at all, rather than whatever a login left on this machine.
        self._api = HfApi(endpoint=self._endpoint, token=self._token or False, library_name="athena")

    def publish(self, folder: Path, name: str, *, message: str) -> str:
        """One commit on top of the newest revision: adds what differs, deletes what is gone.

        Raises Misconfigured without HF_TOKEN, and Conflict when others commit to the same name all the time.
        """
        check_name(name)
        if self._token is None:
            raise Misconfigured("publishing to the Hugging Face Hub needs a token", remedy="set HF_TOKEN")
        with disk_faults(f"publishing {folder}"):
            local = {path: describe(folder / path, path) for path in files_to_publish(folder)}
        doing = f"publishing {name}"
        self._ask(doing, lambda: self._api.create_repo(name, repo_type=self._kind, exist_ok=True))
        for _ in range(PUBLISH_ROUNDS):
            # The loop ends only when the newest revision is seen to hold exactly these files, so a commit whose answer
            # got lost, a rival's commit, or a rule of the repository that left a file out cannot pass unnoticed.
            head, entries = self._ask(doing, lambda: self._revision(name, BRANCH))
            remote = {entry.path: entry for entry in entries}
            changed = [e for path, e in local.items() if path not in remote or not e.same_content(remote[path])]
            gone = [path for path in remote if path not in local]
            if not changed and not gone:
                return head
            try:
                self._ask(doing, functools.partial(self._commit, name, head, folder, changed, gone, message))
            except Conflict:
                continue
        raise Conflict(f"{name} did not take these files in {PUBLISH_ROUNDS} commits", remedy="publish to another name")

    def sizes(self, name: str, revision: str) -> dict[str, int]:
        return {entry.path: entry.bytes for entry in self._entries(name, revision)}

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
        def download(entry: Entry, part: Path, here: Callable[[int], None]) -> None:
            url = hf_hub_url(name, entry.path, repo_type=self._kind, revision=revision, endpoint=self._endpoint)
            self._download(url, entry, part, here)

        entries = self._entries(name, revision)
        return land(entries, into, max_bytes=max_bytes, suffixes=suffixes, progress=progress, download=download)

    def tag(self, name: str, revision: str, tag: str) -> None:
        check_name(name)
        check_revision(revision)
        check_tag(tag)
        try:
            self._ask(
                f"tagging {name}",
                lambda: self._api.create_tag(name, tag=tag, revision=revision, repo_type=self._kind),
            )
        except Conflict as error:
            known = self.resolve(name, tag)
            if known != revision:
                remedy = "choose another tag: tags never move"
                raise Conflict(f"tag {tag} of {name} names {known}", remedy=remedy) from error

    def resolve(self, name: str, reference: str) -> str:
        check_name(name)
        check_reference(reference)
        revision, _ = self._ask(f"resolving {reference} of {name}", lambda: self._revision(name, reference))
        return revision

    def _entries(self, name: str, revision: str) -> tuple[Entry, ...]:
        check_name(name)
        check_revision(revision)
        sha, entries = self._ask(f"listing {name}", lambda: self._revision(name, revision))
        if sha != revision:
            raise CorruptContent(f"asked for {name} at {revision}, the hub answered with {sha}")
        return entries

    def _revision(self, name: str, reference: str) -> tuple[str, tuple[Entry, ...]]:
        """One request: the revision that `reference` names, and its files.

        `HfApi.repo_info` would parse the repository's card too, and a card that its publisher crafted makes it raise.
        """
        url = f"{self._endpoint}/api/{self._kind}s/{name}/revision/{reference}"
        content = bytearray()
        with get_session().stream("GET", url, params={"blobs": "true"}, headers=self._headers()) as response:
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_LISTING_BYTES:
                    raise TooLarge(f"the listing of {name} is over {MAX_LISTING_BYTES} bytes")
        try:
            info = _Info.model_validate_json(bytes(content))
        except ValidationError as error:
            raise Unavailable(f"{self._endpoint} listed {name} in an unknown form") from error
        return info.sha, listing(file.row() for file in info.siblings)

    def _commit(self, name: str, head: str, folder: Path, changed: list[Entry], gone: list[str], message: str) -> None:
        additions = [CommitOperationAdd(entry.path, str(folder / entry.path)) for entry in changed]
        deletions = [CommitOperationDelete(path) for path in gone]
        self._api.create_commit(
            name,
            [*additions, *deletions],
            commit_message=message,
            repo_type=self._kind,
            revision=BRANCH,
            parent_commit=head,
        )

    def _download(self, url: str, entry: Entry, part: Path, here: Callable[[int], None]) -> None:
        deadline = time.monotonic() + REQUEST_SECONDS + entry.bytes / MIN_BYTES_PER_SECOND
        part.touch()
        while True:
            before = part.stat().st_size
            try:
                return self._ask(f"downloading {entry.path}", lambda: self._stream(url, entry, part, deadline, here))
            except _Busy:
                # Patience is measured from the last progress, not from the start of a long download.
                if part.stat().st_size <= before:
                    raise

    def _stream(self, url: str, entry: Entry, part: Path, deadline: float, here: Callable[[int], None]) -> None:
        """Appends to `part` until it has the entry's size; tells `here` how much it is. Never writes more."""
        have = part.stat().st_size
        if have == entry.bytes:
            return
        headers = self._headers()
        if have:
            headers["Range"] = f"bytes={have}-"
        with get_session().stream("GET", url, headers=headers) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:
                have = 0
            with part.open("ab" if have else "wb") as file:
                for chunk in response.iter_raw():  # as it arrives: what came before a cut is kept
                    have += len(chunk)
                    if have > entry.bytes:
                        raise CorruptContent(f"{entry.path} is longer than the {entry.bytes} bytes that the hub lists")
                    file.write(chunk)
                    here(have)
                    if time.monotonic() > deadline:
                        raise Unavailable(f"{entry.path} comes at under {MIN_BYTES_PER_SECOND} bytes/s")
        if have < entry.bytes:
            raise _Busy(f"{entry.path} was cut short at {have} of {entry.bytes} bytes")

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = build_hf_headers(token=self._token or False, library_name="athena")
        return headers | {"Accept-Encoding": "identity"}  # nothing to inflate: bytes counted are bytes received

    def _ask(self, doing: str, request: Callable[[], Result]) -> Result:
        """`request()` with the client's errors as ours, again while the service is busy and patience lasts."""

        def attempt() -> Result:
            with _translated(f"{doing} at {self._endpoint}"):
                return request()

        retrying = Retrying(
            retry=retry_if_exception_type(_Busy),
            stop=stop_before_delay(self._patience_seconds),
            wait=_pause,
            reraise=True,
        )
        return retrying(attempt)


_growing_pause = wait_random_exponential(multiplier=0.25, max=15)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, _Busy) else 0.0
    return max(asked, _growing_pause(state))


def _checked_endpoint(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise Misconfigured(f"not a safe endpoint: {endpoint}", remedy="use https: the token travels to it")
    return endpoint.rstrip("/")


@functools.cache
def _prepare_client() -> None:
    """Once per process: the client's session waits forever by default, and its bars would draw over our output."""

    def with_limits() -> httpx2.Client:
        client: httpx2.Client = default_client_factory()
        client.timeout = httpx2.Timeout(REQUEST_SECONDS, connect=10.0)
        return client

    set_client_factory(with_limits)
    disable_progress_bars()


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """The client's errors as Athena's. Messages carry no URL: those of downloads are signed, and would grant access."""
    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError, DisabledRepoError) as error:
        raise NotFound(f"{doing}: {type(error).__name__}", remedy="private ones need a token in HF_TOKEN") from error
    except HfHubHTTPError as error:
        raise _of_answer(doing, error) from error
    except RuntimeError as error:  # hf_xet's own, or the client's wrapper of what went wrong in an upload thread
        cause = error.__cause__
        raise _of_answer(doing, cause) if isinstance(cause, HfHubHTTPError) else _Busy(f"{doing}: {error}") from error
    except (httpx2.HTTPError, OSError) as error:  # transport; hf_xet raises kinds of OSError
        raise _Busy(f"{doing}: {type(error).__name__}") from error
    except json.JSONDecodeError as error:
        raise _Busy(f"{doing}: the answer is not JSON") from error
    except (ValueError, httpx2.InvalidURL) as error:
        raise BadInput(f"{doing}: {error}") from error


def _of_answer(doing: str, error: HfHubHTTPError) -> AthenaError:
    status = error.response.status_code
    message = f"{doing}: HTTP {status}"
    if status in (408, 429) or status >= 500:
        return _Busy(message, _retry_after_seconds(error.response))
    if status in (401, 403):
        return Unavailable(message, remedy="check that HF_TOKEN is valid and has the needed access")
    if status == 404:
        return NotFound(message)
    if status in (409, 412):
        return Conflict(message)
    return BadInput(f"{message}: {(error.server_message or '')[:200]}")


def _retry_after_seconds(response: httpx2.Response) -> float:
    """Seconds that the service asks to wait: Retry-After, or the Hub's own RateLimit header; 0 when it says nothing."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isdigit():
        return float(asked)
    limit = parse_ratelimit_headers(response.headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else 0.0
