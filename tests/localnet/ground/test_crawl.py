import hashlib
import json
import os
import subprocess
import sys
import zlib
from importlib.metadata import PackageNotFoundError, version

import pytest
from warcio.archiveiterator import ArchiveIterator

from athena.crawl import open_crawl
from athena.errors import Misconfigured
from athena.events import EventLog, read_events
from athena.localnet.ground import build_crawl
from athena.localnet.sources import CRAWLED

# Over the records, not over the gzip members: how bytes are squeezed depends on the zlib that Python came with.
TINY_SHA256 = "7cf89595034cce9e44aa1332f6c7c30c462721c2408ffa13758f1a052769258d"
INSTALLED_SHA256 = "4a759d20b15177885cc944825aa343987ef54c21ab5d0a63367701ccb8c30bba"
INSTALLED_VERSIONS = "9c4138f4f4f0072242cdbc7b79f19071dee22dc5170f3723b79b8d339d5c4b51"


def records_sha256(crawl):
    digest = hashlib.sha256()
    for path in crawl.warc_paths:
        pending = (crawl.root / path).read_bytes()
        while pending:
            inflater = zlib.decompressobj(wbits=31)
            digest.update(inflater.decompress(pending))
            pending = inflater.unused_data
    return digest.hexdigest()


def versions_sha256():
    """The packages whose text ends up in the crawl; a build for other hardware ("+cpu") carries the same text."""
    lines = []
    for package in sorted({*CRAWLED, "spacy"}):
        try:
            lines.append(f"{package}=={version(package).partition('+')[0]}")
        except PackageNotFoundError:
            lines.append(f"{package} absent")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def tiny(tiny_prose, tmp_path_factory):
    return build_crawl(tmp_path_factory.mktemp("tiny"), seed=1, pages=50, warcs=2, prose=tiny_prose)


def test_the_bytes_of_a_crawl_of_fixed_prose_are_pinned(tiny):
    assert records_sha256(tiny) == TINY_SHA256


def test_the_bytes_of_a_crawl_of_installed_prose_are_pinned(tmp_path):
    crawl = build_crawl(tmp_path, seed=1, pages=50, warcs=1)
    found = (versions_sha256(), records_sha256(crawl))
    assert found == (INSTALLED_VERSIONS, INSTALLED_SHA256), (
        f"same versions, other bytes: {found}"
        if found[0] == INSTALLED_VERSIONS
        else f"requirements.lock changed, or is not what is installed; if it changed, pin {found}"
    )


def test_another_process_builds_the_same_files(tiny, tiny_prose, tmp_path):
    script = (
        "import sys; from pathlib import Path; from athena.localnet.prose import Section; "
        "from athena.localnet.ground import build_crawl; import json; "
        "prose = tuple(Section(p, t, tuple(q)) for p, t, q in json.load(sys.stdin)); "
        "build_crawl(Path(sys.argv[1]), seed=1, pages=50, warcs=2, prose=prose)"
    )
    prose = json.dumps([(section.package, section.title, section.paragraphs) for section in tiny_prose])
    environment = {**os.environ, "PYTHONHASHSEED": "99", "TZ": "Pacific/Auckland", "LC_ALL": "C"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], input=prose, text=True, env=environment, check=True, timeout=120
    )
    for path in tiny.warc_paths:
        assert (tmp_path / path).read_bytes() == (tiny.root / path).read_bytes()


def test_reads_as_any_other_crawl(tiny):
    crawl = open_crawl(tiny.root.as_uri())
    assert tuple(crawl.warc_paths(tiny.crawl_id)) == tiny.warc_paths
    urls = []
    for path in tiny.warc_paths:
        with crawl.open(path) as stream:
            iterator = ArchiveIterator(stream, check_digests="raise")
            for record in iterator:
                record.content_stream().read()
                if record.rec_type == "response":
                    urls.append(record.rec_headers["WARC-Target-URI"])
                    offset, length = iterator.get_record_offset(), iterator.get_record_length()
                    single = crawl.read_range(path, offset, length)
                    assert zlib.decompress(single, wbits=31).startswith(b"WARC/1.0\r\nWARC-Record-ID")
    assert sorted(urls) == sorted(tiny.kinds)


def test_the_truth_lies_beside_the_listing(tiny):
    truth = json.loads((tiny.root / f"crawl-data/{tiny.crawl_id}/truth.json").read_bytes())
    assert truth == tiny.kinds and tiny.count("oversized") == 1


def test_nothing_of_this_machine_or_moment_is_in_the_records(tiny):
    for path in tiny.warc_paths:
        with (tiny.root / path).open("rb") as stream:
            for record in ArchiveIterator(stream):
                assert record.rec_headers["WARC-Date"].startswith("2026-10-05T")
                if record.rec_type == "response":
                    assert record.http_headers["Date"].startswith("Mon, 05 Oct 2026")
                    assert record.http_headers["Server"] == "nginx"


def test_a_full_crawl_has_500_html_pages_of_which_the_canonical_recipe_keeps_most_articles(tmp_path):
    from athena.refine.recipe import Rejected, load_recipe
    from athena.refine.records import read_records

    events = EventLog(tmp_path / "events.jsonl")
    crawl = build_crawl(tmp_path, events=events)
    assert len(crawl.kinds) - crawl.count("non-html") >= 500
    (event,) = read_events(tmp_path / "events.jsonl")
    assert event["event"] == "crawl.built" and event["pages"]["article"] == crawl.count("article")
    recipe, kept, junk, articles, tokens = load_recipe("fineweb-1"), 0, 0, 0, 0
    with open_crawl(tmp_path.as_uri()).open(crawl.warc_paths[0]) as stream:
        for number, record in enumerate(read_records(stream, crawl.warc_paths[0])):
            if number % 4:
                continue  # a quarter will do
            result, kind = recipe.process(record), crawl.kinds[record.url]
            articles += kind == "article"
            if not isinstance(result, Rejected):
                kept += kind == "article"
                junk += kind in ("spam", "non-english")
                tokens += result.row["token_count"]
    assert kept >= 0.6 * articles and articles > 20 and junk == 0
    assert tokens > 80_000 / 4


def test_refuses_more_files_than_pages(tmp_path, tiny_prose):
    with pytest.raises(Misconfigured):
        build_crawl(tmp_path, pages=3, warcs=4, prose=tiny_prose)
