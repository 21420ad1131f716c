"""What only the folder adapter must hold: several processes on one root, kills at any moment, a read-only root."""

from __future__ import annotations

import fcntl
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from athena.errors import BadInput, Conflict, Unavailable
from athena.hub import CorruptContent
from athena.hub_folder import FolderHub

NAME = "alice/task-7"
LIMIT = 100_000_000
PUBLISHER = """
import sys
from pathlib import Path
from athena.hub_folder import FolderHub
root, name, times, *folders = sys.argv[1:]
hub = FolderHub(Path(root))
for i in range(int(times)):
    print(hub.publish(Path(folders[i % len(folders)]), name, message=f"round {i}"), flush=True)
"""


def publisher(root: Path, times: int, *folders: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUBLISHER, str(root), NAME, str(times), *map(str, folders)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_publisher_killed_at_any_moment_leaves_the_old_state_or_the_new(folder, contents, tmp_path):
    source = random.Random(11)
    folders = [folder({f"{i}.parquet": source.randbytes(400_000) for i in range(3)}) for _ in range(2)]
    hub = FolderHub(tmp_path / "root")
    staged = tmp_path / "root/datasets" / NAME / "incoming/object"
    told: list[str] = []
    for round_number in range(4):
        with publisher(tmp_path / "root", 10_000, *folders) as process:
            if round_number:  # the first one dies within the very first publish
                told.append(process.stdout.readline().strip())
            while not staged.exists():
                time.sleep(0.0005)
            time.sleep(source.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
            told += process.stdout.read().split()
        if not told:
            continue
        for revision in {hub.resolve(NAME, "main"), told[0], told[-1]}:
            into = hub.fetch(NAME, revision, tmp_path / f"{round_number}-{revision}", max_bytes=LIMIT)
            assert contents(into) in [contents(published) for published in folders]
    assert told
    after = hub.publish(folders[1], NAME, message="what a kill left behind is in nobody's way")
    assert contents(hub.fetch(NAME, after, tmp_path / "after", max_bytes=LIMIT)) == contents(folders[1])


def test_processes_that_publish_at_once_make_one_line_of_history(folder, contents, tmp_path):
    folders = [folder({"a.json": b"%d" % i}) for i in range(3)]
    processes = [publisher(tmp_path / "root", 5, source, folder({"b.json": b"b"})) for source in folders]
    revisions = set("".join(process.communicate(timeout=60)[0] for process in processes).split())
    hub = FolderHub(tmp_path / "root")
    line, revision = [], hub.resolve(NAME, "main")
    while revision:
        line.append(revision)
        listing = tmp_path / "root/datasets" / NAME / "revisions" / f"{revision}.json"
        revision = json.loads(listing.read_bytes())["parent"]
    assert set(line) == revisions
    assert len(set(line)) == len(line)


def test_a_holder_of_the_lock_is_waited_for_but_not_for_ever(folder, tmp_path):
    hub = FolderHub(tmp_path, patience_seconds=0.1)
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    with (tmp_path / "datasets" / NAME / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable):
            hub.publish(folder({"b.json": b"{}"}), NAME, message="m")
    assert hub.resolve(NAME, "main") == revision


def test_reading_writes_nothing_and_lists_nothing(folder, contents, tmp_path):
    hub = FolderHub(tmp_path / "root")
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    repo = tmp_path / "root/datasets" / NAME
    walk = [repo, *repo.parents[:3]]
    before = contents(tmp_path / "root")
    for place in walk:
        place.chmod(0o111)  # search, neither list nor write; root is not bound by it, so the bytes are compared too
    assert contents(hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)) == {"a.json": b"{}"}
    assert hub.resolve(NAME, "main") == revision
    for place in walk:
        place.chmod(0o755)
    assert contents(tmp_path / "root") == before


def test_a_fetched_file_can_be_edited_without_reaching_the_store(folder, contents, tmp_path):
    hub = FolderHub(tmp_path / "root")
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    (hub.fetch(NAME, revision, tmp_path / "one", max_bytes=LIMIT) / "a.json").write_bytes(b"[]")
    assert contents(hub.fetch(NAME, revision, tmp_path / "two", max_bytes=LIMIT)) == {"a.json": b"{}"}


def test_publishing_again_heals_a_corrupt_object(folder, contents, tmp_path):
    hub = FolderHub(tmp_path / "root")
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    (stored,) = (path for path in (tmp_path / "root/objects").rglob("*") if path.is_file())
    stored.chmod(0o644)
    stored.write_bytes(b"XX")
    assert hub.publish(folder({"a.json": b"{}"}), NAME, message="m") == revision
    assert contents(hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)) == {"a.json": b"{}"}


def test_an_edited_listing_is_detected(folder, tmp_path):
    hub = FolderHub(tmp_path)
    revision = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    listing = tmp_path / "datasets" / NAME / "revisions" / f"{revision}.json"
    listing.write_bytes(listing.read_bytes().replace(b"a.json", b"b.json"))
    with pytest.raises(CorruptContent):
        hub.sizes(NAME, revision)


@pytest.mark.parametrize("message", ["", "x" * 10_001])
def test_a_publish_says_what_it_is_in_bounds(folder, tmp_path, message):
    with pytest.raises(BadInput):
        FolderHub(tmp_path).publish(folder({"a.json": b"{}"}), NAME, message=message)


class Shelf(RuleBasedStateMachine):
    """Any order of publishes and tags over two names: a revision's bytes and a tag's revision never change."""

    root: Path

    def __init__(self) -> None:
        super().__init__()
        self.count = len(list(self.root.iterdir()))
        self.hub = FolderHub(self.root / f"shelf-{self.count}")
        self.published: dict[tuple[str, str], bytes] = {}
        self.newest: dict[str, str] = {}
        self.tags: dict[tuple[str, str], str] = {}

    @rule(name=st.sampled_from(["a/x", "b/x"]), content=st.binary(max_size=2))
    def publish(self, name, content):
        folder = self.root / "source"
        folder.mkdir(exist_ok=True)
        (folder / "data.parquet").write_bytes(content)
        revision = self.hub.publish(folder, name, message="m")
        newest = self.newest.get(name)
        assert (revision == newest) == (newest is not None and self.published[name, newest] == content)
        assert self.published.setdefault((name, revision), content) == content
        self.newest[name] = revision

    @precondition(lambda self: self.published)
    @rule(data=st.data(), tag=st.sampled_from(["v1", "v2"]))
    def tag(self, data, tag):
        name, revision = data.draw(st.sampled_from(sorted(self.published)))
        if self.tags.setdefault((name, tag), revision) == revision:
            self.hub.tag(name, revision, tag)
        else:
            with pytest.raises(Conflict):
                self.hub.tag(name, revision, tag)

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def fetch(self, data):
        name, revision = data.draw(st.sampled_from(sorted(self.published)))
        into = self.root / f"into-{self.count}-{name.replace('/', '-')}-{revision}"
        self.hub.fetch(name, revision, into, max_bytes=2)
        assert (into / "data.parquet").read_bytes() == self.published[name, revision]

    @invariant()
    def references_hold(self):
        for name, revision in self.newest.items():
            assert self.hub.resolve(name, "main") == revision
        for (name, tag), revision in self.tags.items():
            assert self.hub.resolve(name, tag) == revision


def test_any_order_of_calls_keeps_every_revision(tmp_path):
    from hypothesis.stateful import run_state_machine_as_test

    class ShelfHere(Shelf):
        root = tmp_path

    run_state_machine_as_test(
        ShelfHere,
        settings=settings(
            max_examples=15,
            stateful_step_count=12,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
