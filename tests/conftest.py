"""What holds for every test: no network but loopback, and no skip that is not on the list with its reason."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")
LOOPBACK = {"127.0.0.1", "::1", "localhost", "", None}

ONE_PROCESS = tuple(
    f"tests/{folder}/" for folder in ("attacks", "chain/devnode", "contracts/hub", "evaluations", "localnet", "release")
)
"""Their files share something that is made once a process, for many processor seconds: a world with judged sets, a
node, the prose of all installed packages, a trained model."""
ANYWHERE = ("tests/attacks/test_agreement.py", "tests/attacks/test_network.py")
"""Of those folders, but long, and next to nothing is shared with the rest."""

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="athena-hf-")  # before any import of huggingface_hub


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def guarded(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOOPBACK and not str(name).startswith("127."):
            raise OSError(f"tests reach loopback only, not {name}")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)


COMMON_WORDS = (  # of English
    "the of and to in is that was he for on are with as his they at be this from have or by one had not but what all "
    "were when we there can an your which their said if do will each about how up out them then she many some these"
)


@pytest.fixture(scope="session")
def plain_warc() -> Callable[[Iterable[int], int], bytes]:
    """A function: a WARC file of the pages with these numbers, each of so many words that no other page has.

    Common words stand between them, by which the text passes for English.
    """

    common = COMMON_WORDS.split()

    def member(number: int, num_words: int) -> bytes:
        between = (common[(7 * number + 13 * i) % len(common)] for i in range(num_words))
        words = " ".join(f"page{number}word{i} {word}" for i, word in enumerate(between))
        http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><p>{words}</p></body></html>".encode()
        head = (
            "WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\n"
            f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012}>\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
            f"WARC-Target-URI: http://example.org/{number}\r\nContent-Length: {len(http)}\r\n\r\n"
        )
        return gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0)

    return lambda numbers, num_words: b"".join(member(number, num_words) for number in numbers)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real pages, texts and WARC files: the folder in ATHENA_TEST_DATA, or shared/data beside the checkout."""
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("ATHENA_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set ATHENA_TEST_DATA")
    return folder


class ByFileOrFolder(LoadFileScheduling):
    """Tests of one file run in one process, those of a folder in ONE_PROCESS too."""

    def _split_scope(self, nodeid: str) -> str:
        folders = () if nodeid.startswith(ANYWHERE) else ONE_PROCESS
        return next((folder for folder in folders if nodeid.startswith(folder)), super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return ByFileOrFolder(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests with the longest time limits come first: no core waits at the end for the last of them."""

    def limit(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return marker.args[0] if marker is not None else 0.0

    items.sort(key=limit, reverse=True)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    allowed = [line for line in ALLOWED_SKIPS.read_text().splitlines() if line and not line.startswith("#")]
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(entry in reason for entry in allowed):
            reporter.write_line(f"skip not on {ALLOWED_SKIPS.name}: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
