"""A page, a domain or a miner's work is found in every release and dataset that holds it, and nothing else is read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from athena import release_lineage
from athena.cli import app
from athena.errors import BadInput
from athena.optout import LeftOut, host_of
from athena.protocol import FileEntry, Manifest, RecipeRef
from athena.release import cut_release
from athena.release_lineage import Sought, find_documents, host_key, write_lineage
from athena.release_search import places_below

URLS = (
    "http://example.org/",
    "https://EXAMPLE.org/b?c#d",
    "https://www.example.org/a",
    "https://a.b.example.org:8080/",
    "https://notexample.org/example.org",
    "https://example.org.evil.net/",
    "https://example.com/",
    "http://192.0.2.1/",
    "http://[2001:db8::1]/",
    "http://[broken/",
    "urn:x",
    "",
)
MINERS = ("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")


def documents_of(urls):
    return pa.table(
        {
            "hotkey": [MINERS[i % 2] for i in range(len(urls))],
            "task_id": ["a" * 32] * len(urls),
            "dataset": [f"file:org/{i % 3}@{'b' * 40}#{'c' * 64}" for i in range(len(urls))],
            "warc_path": [f"crawl/{i % 2}.warc.gz" for i in range(len(urls))],
            "warc_offset": pa.array(range(len(urls)), pa.int64()),
            "warc_length": pa.array([10] * len(urls), pa.int64()),
            "record_id": [f"<urn:uuid:{i}>" for i in range(len(urls))],
            "url": urls,
            "tokens": pa.array(range(1, len(urls) + 1), pa.int64()),
        }
    )


@pytest.fixture
def lineage_of(tmp_path):
    def make(urls, **options):
        pq.write_table(documents_of(urls), tmp_path / "documents.parquet")
        write_lineage(tmp_path / "documents.parquet", tmp_path / "lineage.parquet", **options)
        return tmp_path / "lineage.parquet"

    return make


def found(lineage, **sought):
    return sorted(row["url"] for table in find_documents(lineage, Sought(**sought)) for row in table.to_pylist())


@pytest.mark.parametrize(
    "domain", ["example.org", "www.example.org", "org", "EXAMPLE.org.", "192.0.2.1", "nowhere.org"]
)
def test_a_domain_is_found_exactly_where_an_opt_out_would_leave_it_out(lineage_of, domain):
    covered = LeftOut(frozenset({domain.lower().rstrip(".")}))
    assert found(lineage_of(list(URLS)), domain=domain) == sorted(url for url in URLS if covered.covers(url))


def test_a_page_and_a_miner_are_found(lineage_of):
    lineage = lineage_of(list(URLS))
    for url in URLS:
        assert found(lineage, url=url) == [url]
    assert found(lineage, url="https://example.org/other") == []
    assert found(lineage, hotkey=MINERS[0]) == sorted(URLS[::2])
    assert found(lineage, hotkey=MINERS[1], domain="example.org") == sorted(["https://EXAMPLE.org/b?c#d", URLS[3]])


def test_rows_are_the_same_however_little_memory_there_is(lineage_of):
    urls = [f"https://site{7919 * i % 101}.org/{i % 13}" for i in range(3000)]
    whole = pq.read_table(lineage_of(urls))
    assert pq.read_table(lineage_of(urls, rows_in_memory=256)).equals(whole)
    assert sorted(whole["record_id"].to_pylist()) == sorted(documents_of(urls)["record_id"].to_pylist())
    hosts = whole["host"].to_pylist()
    assert hosts == sorted(hosts) == [host_key(host_of(url)) for url in whole["url"].to_pylist()]


def test_only_row_groups_that_can_hold_it_are_read(lineage_of, monkeypatch):
    monkeypatch.setattr(release_lineage, "ROWS_PER_GROUP", 100)
    lineage = lineage_of([f"https://site{i:04}.org/" for i in range(2000)])
    read = []
    whole = pq.ParquetFile.read_row_group

    def counting(self, group, *arguments, **options):
        read.append(group)
        return whole(self, group, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    assert len(found(lineage, domain="site0815.org")) == 1
    assert len(read) <= 2
    with pytest.raises(BadInput, match="cannot be read"):
        (lineage.parent / "broken.parquet").write_bytes(b"PAR1")
        found(lineage.parent / "broken.parquet", domain="x.org")


@pytest.fixture
def trainers_folder(trained, signer, tmp_path):
    """A release, and a dataset of a miner whose pages are not all in it."""
    cut_release(trained, name="athena", version="0.1.0", signer=signer, into=tmp_path / "releases" / "athena" / "0.1.0")
    shelf = tmp_path / "run-0.1.0" / "datasets" / "one"
    shelf.mkdir(parents=True)
    urls = ["https://www.example.org/only-here", "https://example.com/"]
    table = documents_of(urls).rename_columns(
        ["hotkey", "task_id", "dataset", "warc_path", "warc_offset", "warc_length", "record_id", "url", "token_count"]
    )
    pq.write_table(table, shelf / "data.parquet")
    manifest = Manifest(
        task_id="a" * 32, hotkey=MINERS[0], rule_version="1", records=2, rows=2, rejected={}, tokens=3, root="d" * 64,
        recipe=RecipeRef(name="fineweb-1", version="1", hash="e" * 64),
        files=(FileEntry(path="data.parquet", bytes=1, sha256="f" * 64, rows=2),),
    )  # fmt: skip
    (shelf / "manifest.json").write_bytes(manifest.canonical())
    return tmp_path


def test_every_release_and_dataset_of_a_trainer_is_searched(trainers_folder):
    kinds = [place.kind for place in places_below([trainers_folder])]
    assert sorted(kinds) == ["dataset", "release"]
    done = CliRunner().invoke(app, ["lineage", str(trainers_folder), "--domain", "example.org", "--limit", "1"])
    assert done.exit_code == 0
    assert "release athena 0.1.0" in done.stdout and "15 documents" in done.stdout and "14 more" in done.stdout
    assert f"dataset {'d' * 64}" in done.stdout and "https://www.example.org/only-here" in done.stdout
    done = CliRunner().invoke(app, ["lineage", str(trainers_folder), "--domain", "example.org", "--json"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 16 and {row["kind"] for row in rows} == {"release", "dataset"}
    assert all(row["warc_path"] and row["tokens"] for row in rows)


def test_what_is_nowhere_ends_with_one_and_nothing_asked_is_refused(trainers_folder):
    done = CliRunner().invoke(app, ["lineage", str(trainers_folder), "--domain", "nowhere.net"])
    assert (done.exit_code, done.stdout) == (1, "")
    done = CliRunner().invoke(app, ["lineage", str(trainers_folder)])
    assert isinstance(done.exception, BadInput)
