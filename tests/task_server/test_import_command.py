"""`athena server import` as an operator meets it."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time

import pytest
from sqlmodel import select

from task_server.__main__ import main
from task_server.crawl import plan_shards
from task_server.store import open_store
from task_server.tables import CrawlRow, ShardRow

CRAWL = "CC-MAIN-2026-43"
LISTING = [f"crawl-data/{CRAWL}/segments/{i % 7}/warc/{i:05d}.warc.gz" for i in range(12_000)]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs `athena server import`: exit code, and the last line it printed."""
    monkeypatch.setenv("ATHENA_SERVER_STATE", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["task_server", "import", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, (captured.out or captured.err).strip().split("\n")[-1]

    return run


def test_the_command_imports_a_folder_and_repeats_itself(tmp_path, command):
    folder = tmp_path / "crawl" / "crawl-data" / CRAWL
    folder.mkdir(parents=True)
    (folder / "warc.paths.gz").write_bytes(gzip.compress("\n".join(LISTING[:12]).encode()))
    terms = ("--warcs-per-shard", "3", "--opened-block", "7", "--crawl-url", (tmp_path / "crawl").as_uri())
    code, line = command(CRAWL, *terms)
    assert code == 0 and "is open: 4 new tasks for 12 WARC files, drawn from block 7 on; 0 WARC files were" in line
    code, line = command(CRAWL, *terms)
    assert code == 0 and "0 new tasks for 0 WARC files" in line and "12 WARC files were there before" in line


@pytest.fixture
def remote(crawl_server):
    crawl_server.files[f"/crawl-data/{CRAWL}/warc.paths.gz"] = gzip.compress("\n".join(LISTING[:20]).encode())
    crawl_server.files["/collinfo.json"] = b'[{"id": "CC-MAIN-2026-43", "name": "October 2026 Index"}]'
    return crawl_server


def test_the_command_finds_the_latest_crawl(remote, command):
    code, line = command(
        "latest", f"--crawl-url={remote.url}", f"--collinfo-url={remote.url}/collinfo.json", "--opened-block=7"
    )
    assert code == 0 and line.startswith("CC-MAIN-2026-43 (October 2026 Index) is open: 6 new tasks for 20 WARC files")


def test_the_command_imports_a_list(tmp_path, command):
    names = [tmp_path / "warcs" / f"{i}.warc.gz" for i in range(5)]
    names[0].parent.mkdir()
    for name in names:
        name.touch()
    (tmp_path / "list.txt").write_text("\n".join(map(str, names)))
    code, line = command("LOCAL-mine", f"--list={tmp_path / 'list.txt'}", "--opened-block=7")
    assert code == 0 and "2 new tasks for 5 WARC files" in line
    names[0].unlink()
    assert command("LOCAL-mine", f"--list={tmp_path / 'list.txt'}", "--opened-block=7")[0] == 2


def test_the_command_refuses_with_an_exit_code(remote, command):
    assert command("../etc")[0] == 78
    assert command("latest", "--list=warcs.txt")[0] == 78
    assert command(CRAWL, "--warcs-per-shard=33")[0] == 78
    assert command("--help")[0] == 0
    assert command()[0] == 2
    remote.statuses = [403]
    assert command(CRAWL, f"--crawl-url={remote.url}", "--opened-block=7")[0] == 69
    assert command("CC-MAIN-2026-40", f"--crawl-url={remote.url}", "--opened-block=7")[0] == 1


def test_the_help_teaches_by_examples(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["task_server", "import", "--help"])
    with pytest.raises(SystemExit):
        main()
    text = capsys.readouterr().out
    assert "\n    athena server import latest --contact" in text and "--list" in text and "--lease-seconds" not in text


def test_a_command_that_was_killed_goes_on(tmp_path, sqlite_url, command):
    folder = tmp_path / "crawl" / "crawl-data" / CRAWL
    folder.mkdir(parents=True)
    (folder / "warc.paths.gz").write_bytes(gzip.compress("\n".join(LISTING).encode()))
    arguments = [CRAWL, f"--crawl-url={(tmp_path / 'crawl').as_uri()}", f"--database={sqlite_url}", "--opened-block=7"]
    arguments.append("--warcs-per-shard=1")
    store = open_store(sqlite_url)

    def shards() -> list[str]:
        with store.read() as session:
            return list(session.exec(select(ShardRow.id).order_by(ShardRow.sequence)))

    process = subprocess.Popen([sys.executable, "-m", "task_server", "import", *arguments])
    while not shards():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = shards()
    with store.read() as session:
        assert session.get_one(CrawlRow, CRAWL).state == "importing"
    code, line = command(*arguments)
    assert code == 0 and f"{CRAWL} is open: {len(LISTING) - len(before):,} new tasks" in line
    assert len(before) < len(LISTING) and shards() == [shard.id for shard in plan_shards(CRAWL, LISTING, 1)]
    store.close()
