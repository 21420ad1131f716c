"""Both adapters of the hub, one of them on Xet and on LFS, each with the means to make its store misbehave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import huggingface_hub.constants
import pytest

from athena.hub import Hub
from athena.hub_folder import FolderHub
from athena.hub_huggingface import HuggingFaceHub

from .huggingface_server import TOKEN, Blob, Fault, HubServer


class World(Protocol):
    hub: Hub

    def corrupt(self, content: bytes) -> None:
        """From now on the store delivers other bytes, of the same length, for this content."""

    def fail(self, content: bytes) -> None:
        """From now on the store does not deliver the whole of this content."""

    def mend(self) -> None:
        """Undoes corrupt and fail."""

    def plant(self, name: str, paths: list[str], content: bytes = b"planted") -> str:
        """A hostile repository: a revision whose listing has these paths, never seen by a publish."""


class FolderWorld:
    def __init__(self, root: Path) -> None:
        self.hub = FolderHub(root, patience_seconds=5)
        self._root = root
        self._moved: list[tuple[Path, bytes]] = []

    def _object(self, content: bytes) -> Path:
        sha256 = hashlib.sha256(content).hexdigest()
        return self._root / "objects" / sha256[:2] / sha256

    def corrupt(self, content: bytes) -> None:
        self._moved.append((self._object(content), content))
        self._object(content).chmod(0o644)
        self._object(content).write_bytes(b"X" * len(content))

    def fail(self, content: bytes) -> None:
        self._moved.append((self._object(content), content))
        self._object(content).unlink()

    def mend(self) -> None:
        for path, content in self._moved:
            path.write_bytes(content)

    def plant(self, name: str, paths: list[str], content: bytes = b"planted") -> str:
        self._object(content).parent.mkdir(parents=True, exist_ok=True)
        self._object(content).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        files = [{"bytes": len(content), "git_blob": None, "path": path, "sha256": sha256} for path in paths]
        listing = json.dumps({"files": files, "message": "m", "parent": None}, separators=(",", ":")).encode()
        revision = hashlib.sha256(listing).hexdigest()[:40]
        path = self._root / "datasets" / name / "revisions" / f"{revision}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(listing)
        return revision


class HuggingFaceWorld:
    def __init__(self, server: HubServer) -> None:
        self.hub = HuggingFaceHub(server.url, patience_seconds=0.5)
        self._server = server

    def _downloads(self, content: bytes) -> str:
        """Of large files the content's own address at the CDN; small ones are named a.json in the tests that ask."""
        return rf"GET /(cdn/{hashlib.sha256(content).hexdigest()}|.*/resolve/[^/]+/a\.json)"

    def corrupt(self, content: bytes) -> None:
        self._server.faults.append(Fault(self._downloads(content), times=1000, replace=b"X"))

    def fail(self, content: bytes) -> None:
        self._server.faults.append(Fault(self._downloads(content), times=1, cut_at=len(content) // 2))
        self._server.faults.append(Fault(self._downloads(content), times=1000, status=503))

    def mend(self) -> None:
        self._server.faults.clear()

    def plant(self, name: str, paths: list[str], content: bytes = b"planted") -> str:
        blob = Blob(content, hashlib.sha256(content).hexdigest(), len(content))
        return self._server.repository(name).commit(dict.fromkeys(paths, blob), "hostile")


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    server = HubServer(tmp_path_factory.mktemp("hub-server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(running_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The loopback Hub, empty again, and its token in the environment."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    running_server.forget()
    return running_server


@pytest.fixture(params=["file", "hf-xet", "hf-lfs"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    if request.param == "file":
        return FolderWorld(tmp_path / "root")
    # What the environment variable of this name sets when the client is imported; one test runs a process with it.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", request.param == "hf-lfs")
    return HuggingFaceWorld(request.getfixturevalue("server"))


@pytest.fixture
def hub(world: World) -> Hub:
    return world.hub


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder({"data.parquet": b"…"})` is a new folder with these files."""
    count = iter(range(1000))

    def make(files: dict[str, bytes]) -> Path:
        made = tmp_path / f"folder-{next(count)}"
        for path, content in files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(content)
        return made

    return make


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, hidden ones too, by its path."""

    def read(top: Path) -> dict[str, bytes]:
        return {p.relative_to(top).as_posix(): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}

    return read
