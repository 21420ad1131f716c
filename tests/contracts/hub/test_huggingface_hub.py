"""What only the Hugging Face adapter must hold: patience with a service, care with a token, the client's own paths."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub.utils import close_session

import athena.hub_huggingface
from athena.errors import Misconfigured, NotFound, Unavailable
from athena.hub import CorruptContent
from athena.hub_huggingface import HuggingFaceHub

from .huggingface_server import TOKEN, Blob, Fault, HubServer

NAME = "alice/task-7"
LIMIT = 10_000_000
BIG = random.Random(7).randbytes(300_000)
INFO = r"GET /api/datasets/.*/revision/"


@pytest.fixture
def hub(server: HubServer) -> HuggingFaceHub:
    return HuggingFaceHub(server.url, patience_seconds=3)


def seconds_of(action):
    started = time.monotonic()
    action()
    return time.monotonic() - started


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=1'}])
def test_the_pause_that_the_hub_asks_for_is_kept(hub, server, folder, headers):
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    server.faults.append(Fault(INFO, status=429, headers=headers))
    assert seconds_of(lambda: hub.sizes(NAME, revision)) >= 1.0


def test_a_pause_beyond_patience_is_unavailable_at_once(hub, server, folder):
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    server.faults.append(Fault(INFO, status=429, headers={"Retry-After": "3600"}))

    def ask():
        with pytest.raises(Unavailable):
            hub.sizes(NAME, revision)

    assert seconds_of(ask) < 10


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_hub_that_fails_a_few_times_is_asked_again(hub, server, folder, contents, tmp_path, status):
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    server.faults += [Fault(INFO, times=2, status=status), Fault("GET /.*/resolve/", times=2, status=status)]
    assert contents(hub.fetch(NAME, revision, tmp_path / "into", max_bytes=10)) == {"a.json": b"{}"}


@pytest.mark.parametrize("fault", [{"status": 503}, {"cut_at": 0}, {"replace": b"X"}])
def test_a_hub_that_keeps_failing_is_unavailable(server, folder, fault):
    hub = HuggingFaceHub(server.url, patience_seconds=0.5)
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    server.faults.append(Fault(INFO, times=1000, **fault))
    with pytest.raises(Unavailable):
        hub.sizes(NAME, revision)


def test_a_hub_that_does_not_exist_is_unavailable():
    with pytest.raises(Unavailable):
        HuggingFaceHub("http://127.0.0.1:9", patience_seconds=0.3).resolve(NAME, "main")


def test_silence_and_dripping_end_in_time(server, folder, tmp_path, monkeypatch):
    hub = HuggingFaceHub(server.url, patience_seconds=0.1)
    revision = hub.publish(folder({"data.parquet": BIG}), NAME, message="m")
    monkeypatch.setattr(athena.hub_huggingface, "REQUEST_SECONDS", 0.4)
    monkeypatch.setattr(athena.hub_huggingface, "MIN_BYTES_PER_SECOND", 10_000_000)
    close_session()  # the next one is made with the shorter limit
    for fault in (Fault(INFO, delay_seconds=30), Fault("GET /cdn/", drip_seconds=0.2)):
        server.faults = [fault]

        def ask():
            with pytest.raises(Unavailable):
                hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)

        assert seconds_of(ask) < 10
    close_session()


def test_a_cut_download_goes_on_at_the_byte_where_it_stopped(server, folder, contents, tmp_path):
    revision = HuggingFaceHub(server.url).publish(folder({"data.parquet": BIG}), NAME, message="m")
    server.faults += [Fault("GET /cdn/", cut_at=100_000), Fault("GET /cdn/", times=3, status=503)]
    with pytest.raises(Unavailable):
        HuggingFaceHub(server.url, patience_seconds=0).fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)
    server.faults.clear()
    into = HuggingFaceHub(server.url).fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)
    assert contents(into) == {"data.parquet": BIG}
    assert server.asked("GET /cdn/")[-1]["range"] == "bytes=100000-"


def test_a_long_download_may_be_cut_more_often_than_patience_lasts(server, folder, contents, tmp_path):
    revision = HuggingFaceHub(server.url).publish(folder({"data.parquet": BIG}), NAME, message="m")
    server.faults += [Fault("GET /cdn/", cut_at=50_000) for _ in range(4)]
    hub = HuggingFaceHub(server.url, patience_seconds=0)
    assert contents(hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)) == {"data.parquet": BIG}


def test_no_more_is_stored_than_the_listing_promised(hub, server, tmp_path):
    lie = Blob(b"x" * 100_000, "0" * 64, size=10)
    revision = server.repository(NAME).commit({"a.json": lie}, "a pointer that lies")
    with pytest.raises(CorruptContent):
        hub.fetch(NAME, revision, tmp_path / "into", max_bytes=10)
    assert all(path.stat().st_size <= 10 for path in tmp_path.rglob("into/**/*") if path.is_file())


def test_a_crafted_card_does_not_break_its_readers(hub, server, folder):
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    server.repository(NAME).card = {"ignore_metadata_errors": True}
    with pytest.raises(TypeError):  # what the client's own call makes of it
        huggingface_hub.HfApi(endpoint=server.url).dataset_info(NAME, revision=revision)
    assert hub.sizes(NAME, revision) == {"a.json": 2}


def test_a_commit_whose_answer_is_lost_is_not_repeated(hub, server, folder):
    server.faults.append(Fault("POST .*/commit/", cut_at=0))
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    assert hub.resolve(NAME, "main") == revision
    assert len(server.repository(NAME).commits) == 2  # the one that creates the repository, and ours


def test_the_token_reaches_the_hub_and_nothing_else(hub, server, folder, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    revision = hub.publish(folder({"data.parquet": BIG}), NAME, message="m")
    hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)
    assert all(headers["authorization"] == f"Bearer {TOKEN}" for headers in server.asked(INFO))
    assert server.asked("GET /cdn/")
    assert not any("authorization" in headers for headers in server.asked("GET /cdn/"))
    server.faults.append(Fault("GET /cdn/", times=1000, status=403))
    with pytest.raises(Unavailable) as caught:
        hub.fetch(NAME, revision, tmp_path / "other", max_bytes=LIMIT)
    assert "signature" not in str(caught.value)
    assert TOKEN not in caplog.text + repr(vars(hub)["_api"]) + str(caught.value)


def test_a_private_repository_needs_the_token_of_the_environment(hub, server, folder, tmp_path, monkeypatch):
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    server.repository(NAME).private = True
    assert hub.sizes(NAME, revision) == {"a.json": 2}
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    stranger = HuggingFaceHub(server.url)
    with pytest.raises(NotFound):
        stranger.sizes(NAME, revision)
    assert "authorization" not in server.requests[-1][1]
    with pytest.raises(Misconfigured, match="HF_TOKEN"):
        stranger.publish(folder({"a.json": b"{}"}), NAME, message="m")


def test_a_refused_token_is_our_own_fault_not_the_publishers(server, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "expired")
    with pytest.raises(Unavailable, match="HF_TOKEN"):
        HuggingFaceHub(server.url).publish(folder({"a.json": b"{}"}), NAME, message="m")


def test_the_unmodified_client_reads_what_we_publish_and_we_what_it_publishes(hub, server, folder, contents, tmp_path):
    files = {"data.parquet": BIG, "deep/a.json": b"{}"}
    revision = hub.publish(folder(files), NAME, message="m")
    snapshot = huggingface_hub.snapshot_download(
        NAME, repo_type="dataset", revision=revision, endpoint=server.url, cache_dir=tmp_path / "cache", token=TOKEN
    )
    fetched = contents(Path(snapshot))
    assert fetched.pop(".gitattributes")
    assert fetched == files
    assert server.asked("xet-write-token")
    assert server.asked("xet-read-token")
    assert not server.large

    api = huggingface_hub.HfApi(endpoint=server.url, token=TOKEN)
    theirs = api.upload_folder(
        repo_id=NAME, repo_type="dataset", folder_path=folder({"data.parquet": BIG[::-1]}), commit_message="theirs"
    )
    into = hub.fetch(NAME, theirs.oid, tmp_path / "into", max_bytes=LIMIT)
    assert contents(into) == files | {"data.parquet": BIG[::-1]}


@pytest.mark.parametrize("xet", [True, False])
def test_a_process_configured_by_its_environment_alone(server, folder, contents, tmp_path, xet):
    program = """
import sys
from pathlib import Path
from athena.hub import open_hub
hub = open_hub("hf://")
revision = hub.publish(Path(sys.argv[1]), "alice/task-7", message="m")
hub.fetch("alice/task-7", revision, Path(sys.argv[2]), max_bytes=1_000_000)
"""
    environment = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "0",
    }
    arguments = [str(folder({"data.parquet": BIG})), str(tmp_path / "into")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "into") == {"data.parquet": BIG}
    assert bool(server.asked("xet-write-token")) == xet
    assert bool(server.large) != xet


@pytest.fixture(params=["xet", "lfs"])
def store(request, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return request.param


MANY = {f"part-{i:02}.parquet": random.Random(i).randbytes(20_000) for i in range(12)} | {"manifest.json": b"{}"}


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")  # the client's, of LFS
def test_many_files_are_one_commit_and_few_requests(hub, server, folder, store):
    """The Hub allows 128 commits an hour in a repository, and 1,000 requests in 5 minutes."""
    revision = hub.publish(folder(MANY), NAME, message="m")
    assert hub.sizes(NAME, revision) == {path: len(content) for path, content in MANY.items()}
    assert len(server.asked("POST .*/commit/")) == 1
    assert len(server.asked(" /api/")) <= 8


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")  # the client's, of LFS
def test_the_pause_that_the_hub_asks_for_before_a_commit_is_kept_and_nothing_is_sent_twice(hub, server, folder, store):
    server.faults.append(Fault("POST .*/commit/", status=429, headers={"Retry-After": "1"}))
    assert seconds_of(lambda: hub.publish(folder(MANY), NAME, message="m")) >= 1.0
    assert len(server.asked("POST .*/commit/")) == 2
    assert len(server.asked("PUT /lfs/")) == (len(MANY) - 1 if store == "lfs" else 0)


def test_a_quota_spent_for_an_hour_is_told_to_the_caller(hub, server, folder):
    server.faults.append(Fault("POST .*/commit/", status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(Unavailable) as caught:
        hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    assert caught.value.retry_after_seconds == 3600


PUBLISH = """
import sys
from pathlib import Path
from athena.hub import open_hub
open_hub("hf://" + sys.argv[1]).publish(Path(sys.argv[2]), "alice/task-7", message="m")
"""


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")  # the client's, of LFS
def test_a_publish_that_was_killed_before_its_commit_goes_on_without_sending_content_again(
    hub, server, folder, contents, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    source = folder(MANY)
    server.faults.append(Fault("POST .*/commit/", delay_seconds=3, status=503))
    arguments = [sys.executable, "-c", PUBLISH, server.url, str(source)]
    process = subprocess.Popen(arguments, env={**os.environ, "HF_HUB_DISABLE_XET": "1"})
    until = time.monotonic() + 60
    while not server.asked("POST .*/commit/"):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait(10)
    server.faults.clear()
    assert len(server.repository(NAME).commits) == 1  # the one that creates the repository
    sent = len(server.asked("PUT /lfs/"))
    revision = hub.publish(source, NAME, message="m")
    assert sent == len(server.asked("PUT /lfs/")) == len(MANY) - 1
    assert contents(hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)) == MANY
