"""What every adapter of the hub promises: the same tests for all of them."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from athena.errors import AthenaError, BadInput, Conflict, NotFound, TooLarge
from athena.hub import CorruptContent

# huggingface_hub's upload of an LFS file, when Xet is off.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")

NAME = "alice/task-7"
LIMIT = 10_000_000
BIG = random.Random(7).randbytes(300_000)
FILES = {
    "data.parquet": BIG,
    "manifest.json": b'{"rows": 3}\n',
    "README.md": b"# A dataset\n",
    "deep/er/empty.json": b"",
    "deep/more.parquet": b"PAR1 small",
}


def test_what_was_published_is_fetched_byte_for_byte(hub, folder, contents, tmp_path):
    revision = hub.publish(folder(FILES), NAME, message="first")
    assert len(revision) == 40
    assert int(revision, 16) >= 0
    told = []
    into = hub.fetch(
        NAME, revision, tmp_path / "into", max_bytes=LIMIT, progress=lambda here, total: told.append((here, total))
    )
    assert into == tmp_path / "into"
    assert contents(into) == FILES
    total = sum(map(len, FILES.values()))
    assert told == sorted(told) and told[-1] == (total, total)


def test_publishing_the_same_bytes_again_changes_nothing(hub, folder, contents, tmp_path):
    first = hub.publish(folder(FILES), NAME, message="first")
    again = hub.publish(folder(FILES), NAME, message="again")
    assert again == first == hub.resolve(NAME, "main")


def test_a_revision_pins_its_content(hub, folder, contents, tmp_path):
    first = hub.publish(folder(FILES), NAME, message="first")
    changed = {"data.parquet": b"other", "manifest.json": FILES["manifest.json"], "new.md": b"new"}
    second = hub.publish(folder(changed), NAME, message="second")
    assert first != second == hub.resolve(NAME, "main")
    assert contents(hub.fetch(NAME, first, tmp_path / "first", max_bytes=LIMIT)) == FILES
    assert contents(hub.fetch(NAME, second, tmp_path / "second", max_bytes=LIMIT)) == changed


def test_content_can_come_back(hub, folder, contents, tmp_path):
    hub.publish(folder(FILES), NAME, message="a")
    hub.publish(folder({"x.json": b"{}"}), NAME, message="b")
    back = hub.publish(folder(FILES), NAME, message="a again")
    assert contents(hub.fetch(NAME, back, tmp_path / "into", max_bytes=LIMIT)) == FILES


def test_sizes_are_known_before_any_download(hub, folder):
    revision = hub.publish(folder(FILES), NAME, message="m")
    assert hub.sizes(NAME, revision) == {path: len(content) for path, content in FILES.items()}


def test_too_much_is_refused_before_any_download(world, folder, tmp_path):
    revision = world.hub.publish(folder(FILES), NAME, message="m")
    world.fail(BIG)
    with pytest.raises(TooLarge):
        world.hub.fetch(NAME, revision, tmp_path / "into", max_bytes=sum(map(len, FILES.values())) - 1)
    assert not (tmp_path / "into").exists()


def test_only_the_asked_suffixes_are_downloaded(world, folder, contents, tmp_path):
    revision = world.hub.publish(folder(FILES), NAME, message="m")
    world.fail(BIG)  # a download of the parquet files would raise
    into = world.hub.fetch(NAME, revision, tmp_path / "into", max_bytes=1000, suffixes=(".json", ".md"))
    assert contents(into) == {path: FILES[path] for path in FILES if path.endswith((".json", ".md"))}
    world.mend()
    world.hub.fetch(NAME, revision, into, max_bytes=LIMIT)
    assert contents(into) == FILES


def test_fetching_into_a_folder_with_other_files_is_refused(hub, folder, tmp_path):
    revision = hub.publish(folder(FILES), NAME, message="m")
    into = folder({"stranger.parquet": b"?"})
    with pytest.raises(BadInput, match=r"stranger\.parquet"):
        hub.fetch(NAME, revision, into, max_bytes=LIMIT)


@pytest.mark.parametrize(
    "path",
    ["../out.json", "a/../../out.json", "/etc/out.json", "a//b.json", "./a.json", "a\nb.json", "é.json", "C:\\a"],
)
def test_paths_that_could_leave_the_folder_are_refused(world, path, tmp_path):
    revision = world.plant(NAME, ["good.json", path])
    with pytest.raises(BadInput):
        world.hub.sizes(NAME, revision)
    with pytest.raises(BadInput):
        world.hub.fetch(NAME, revision, tmp_path / "below" / "into", max_bytes=LIMIT)
    assert not list(tmp_path.rglob("out.json"))
    assert not (tmp_path / "below").exists()


@pytest.mark.parametrize("paths", [["a", "a/b.json"], ["x/" + "y" * 201], [f"{i}.json" for i in range(4097)]])
def test_listings_that_no_folder_can_hold_are_refused(world, paths):
    revision = world.plant(NAME, paths)
    with pytest.raises(BadInput):
        world.hub.sizes(NAME, revision)


def test_hidden_files_are_neither_published_nor_fetched(world, folder, contents, tmp_path):
    revision = world.hub.publish(folder({"a.json": b"{}", ".env": b"SECRET", ".git/config": b"?"}), NAME, message="m")
    assert world.hub.sizes(NAME, revision) == {"a.json": 2}
    planted = world.plant("bob/hidden", [".gitattributes", ".incomplete/x.json", "a.json"])
    into = world.hub.fetch("bob/hidden", planted, tmp_path / "into", max_bytes=LIMIT)
    assert list(contents(into)) == ["a.json"]


def test_what_is_missing_is_not_found(hub, folder, tmp_path):
    revision = hub.publish(folder(FILES), NAME, message="m")
    for name, reference in ((NAME, "f" * 40), ("alice/absent", revision)):
        with pytest.raises(NotFound):
            hub.sizes(name, reference)
        with pytest.raises(NotFound):
            hub.fetch(name, reference, tmp_path / "into", max_bytes=LIMIT)
        with pytest.raises(NotFound):
            hub.tag(name, reference, "v1")
    for name, reference in ((NAME, "absent"), ("alice/absent", "main")):
        with pytest.raises(NotFound):
            hub.resolve(name, reference)
    with pytest.raises(NotFound):
        hub.publish(tmp_path / "absent", NAME, message="m")


def test_a_tag_names_a_revision_for_ever(hub, folder):
    first = hub.publish(folder(FILES), NAME, message="m")
    second = hub.publish(folder({"a.json": b"{}"}), NAME, message="m")
    hub.tag(NAME, first, "v0.1.0")
    hub.tag(NAME, first, "v0.1.0")
    assert hub.resolve(NAME, "v0.1.0") == first
    with pytest.raises(Conflict):
        hub.tag(NAME, second, "v0.1.0")
    assert hub.resolve(NAME, "v0.1.0") == first


def test_malformed_arguments_are_refused(hub, folder):
    revision = hub.publish(folder(FILES), NAME, message="m")
    for name in ("", "alice", "alice/", "/x", "a/b/c", "../x", "alice/..", "alice/x--y", "al ice/x", "a/" + "x" * 96):
        with pytest.raises(BadInput):
            hub.publish(folder(FILES), name, message="m")
        with pytest.raises(BadInput):
            hub.sizes(name, revision)
    for wrong in ("main", revision[:7], revision.upper() + "G", "../" + revision[3:]):
        with pytest.raises(BadInput):
            hub.sizes(NAME, wrong)
    for tag in ("main", revision, "", "a/b", "..", "-v", "v 1"):
        with pytest.raises(BadInput):
            hub.tag(NAME, revision, tag)
    with pytest.raises(BadInput):
        hub.publish(folder({".only": b"hidden"}), NAME, message="m")


def test_a_link_is_not_followed_when_publishing(hub, folder, tmp_path):
    (tmp_path / "key").write_text("secret")
    linked = folder(FILES)
    (linked / "key.json").symlink_to(tmp_path / "key")
    with pytest.raises(BadInput, match=r"key\.json"):
        hub.publish(linked, NAME, message="m")


def test_an_interrupted_fetch_goes_on_and_shows_no_half_file(world, folder, contents, tmp_path):
    revision = world.hub.publish(folder(FILES), NAME, message="m")
    world.fail(BIG)
    into = tmp_path / "into"
    with pytest.raises(AthenaError):
        world.hub.fetch(NAME, revision, into, max_bytes=LIMIT)
    landed = {path: content for path, content in contents(into).items() if not path.startswith(".incomplete/")}
    assert landed.items() <= FILES.items()
    assert "manifest.json" not in landed  # it lands last
    assert "data.parquet" not in landed
    world.mend()
    assert contents(world.hub.fetch(NAME, revision, into, max_bytes=LIMIT)) == FILES


@pytest.mark.parametrize("path", ["a.json", "data.parquet"])
def test_corrupt_content_is_detected_and_never_lands(world, folder, contents, tmp_path, path):
    content = b'{"some": "content of a plain file"}' if path == "a.json" else BIG
    revision = world.hub.publish(folder({path: content}), NAME, message="m")
    world.corrupt(content)
    with pytest.raises(CorruptContent):
        world.hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)
    assert contents(tmp_path / "into") == {}
    world.mend()
    assert contents(world.hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)) == {path: content}


def test_a_fetched_file_that_changed_is_fetched_again(hub, folder, contents, tmp_path):
    revision = hub.publish(folder(FILES), NAME, message="m")
    into = hub.fetch(NAME, revision, tmp_path / "into", max_bytes=LIMIT)
    (into / "data.parquet").write_bytes(b"edited")
    assert contents(hub.fetch(NAME, revision, into, max_bytes=LIMIT)) == FILES


def test_concurrent_publishers_never_mix(hub, folder, contents, tmp_path):
    folders = [folder({f"{i}.json": b"%d" % i, "data.parquet": b"PAR1 of %d" % i}) for i in range(4)]
    with ThreadPoolExecutor(len(folders)) as pool:
        revisions = list(pool.map(lambda source: hub.publish(source, NAME, message="m"), folders))
    assert len(set(revisions)) == len(folders)
    assert hub.resolve(NAME, "main") in revisions
    for i, revision in enumerate(revisions):
        into = hub.fetch(NAME, revision, tmp_path / f"into-{i}", max_bytes=LIMIT)
        assert contents(into) == contents(folders[i])
