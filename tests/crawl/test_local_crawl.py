import gzip

import pytest

from athena.crawl import local_crawl, open_crawl
from athena.errors import BadInput


def warc(*, gzipped):
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"<p>page</p>" * 20000
    records = [
        b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n%b\r\n\r\n" % (len(page), page) for _ in range(3)
    ]
    return b"".join(map(gzip.compress, records) if gzipped else records)


def given(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def test_lays_out_files_as_a_crawl(tmp_path):
    plain, packed = warc(gzipped=False), warc(gzipped=True)
    files = given(tmp_path / "in", **{"odd näme.warc": plain, "b": packed})
    laid_out = local_crawl(files, tmp_path / "root", "LOCAL-files")
    crawl = open_crawl(f"file://{tmp_path / 'root'}")
    paths = list(crawl.warc_paths(laid_out.crawl_id))
    assert tuple(paths) == laid_out.warc_paths and list(laid_out.sources.values()) == files and not laid_out.refused
    assert [path.endswith(".warc.gz") for path in paths] == [False, True]
    with crawl.open(paths[0]) as stream:
        assert stream.read() == plain
    assert crawl.read_range(paths[1], 0, 10) == packed[:10]


def test_the_same_content_gets_the_same_path_whatever_its_name(tmp_path):
    content = warc(gzipped=True)
    one = local_crawl(given(tmp_path / "x", a=content, b=content), tmp_path / "one")
    two = local_crawl(given(tmp_path / "y", c=content), tmp_path / "two")
    assert list(one.sources) == list(two.sources) and len(one.sources) == 1
    assert list(local_crawl(given(tmp_path / "y", c=content), tmp_path / "two").sources) == list(two.sources)


def test_refuses_each_bad_file_with_a_reason_and_goes_on(tmp_path):
    bad = {
        "arc": b"filedesc://x.arc 0.0.0.0 20200101000000 text/plain 76\n",
        "arc.gz": gzip.compress(b"filedesc://x.arc 0.0.0.0 20200101000000 text/plain 76\n"),
        "cdx": b" CDX N b a m s k r M S V g\n",
        "empty": b"",
        "broken": b"\x1f\x8b\x08garbage that does not inflate",
        "zst": b"\x28\xb5\x2f\xfd0000",
        "one-member": gzip.compress(warc(gzipped=False)),
    }
    files = [*given(tmp_path / "in", **bad), tmp_path / "absent", tmp_path / "in"]
    (good,) = given(tmp_path / "in", good=warc(gzipped=True))
    laid_out = local_crawl([*files, good], tmp_path / "root")
    assert list(laid_out.sources.values()) == [good]
    reasons = {path.name: reason for path, reason in laid_out.refused}
    assert set(reasons) == {file.name for file in files}
    expected = {
        "arc": "ARC", "arc.gz": "ARC", "cdx": "does not begin", "empty": "empty", "broken": "broken gzip",
        "zst": "zstandard", "one-member": "one gzip stream", "absent": "No such file", "in": "Is a directory",
    }  # fmt: skip
    for name, words in expected.items():
        assert words in reasons[name]


def test_a_truncated_warc_is_taken(tmp_path):
    """Its whole records are still good; the refinery copes with the tail."""
    files = given(tmp_path / "in", cut=warc(gzipped=True)[:-100], short=warc(gzipped=True)[:150])
    assert len(local_crawl(files, tmp_path / "root").sources) == 2


def test_nothing_usable_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="empty"):
        local_crawl(given(tmp_path / "in", a=b""), tmp_path / "root")
    with pytest.raises(BadInput):
        local_crawl([], tmp_path / "root")
    with pytest.raises(BadInput, match="crawl id"):
        local_crawl(given(tmp_path / "in", a=warc(gzipped=True)), tmp_path / "root", "../x")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "root" / "a.warc.gz").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match="leads out"):
        open_crawl(f"file://{tmp_path / 'root'}").open("a.warc.gz")
