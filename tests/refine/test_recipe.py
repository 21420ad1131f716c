import random
import socket
import subprocess
import sys
from io import BytesIO

import pytest

from athena.errors import BadInput, Misconfigured, NotFound
from athena.protocol import ROW_FIELDS
from athena.refine.recipe import Document, Recipe, Rejected, load_recipe
from athena.refine.records import parse_record, read_records, visible_text
from athena.refine.steps.extraction import Extraction
from athena.refine.steps.filters import C4Quality, Language


@pytest.fixture
def records(site_crawl):
    return [
        record
        for name in ("a.warc.gz", "b.warc.gz", "c.warc.gz")
        for record in read_records(BytesIO((site_crawl / name).read_bytes()), name)
    ]


def outcome(result):
    return result.reason if isinstance(result, Rejected) else result.row


@pytest.mark.parametrize("name", ["fineweb-1", "strict-1", "unfiltered-1"])
def test_a_row_depends_on_its_record_alone(name, records):
    recipe = load_recipe(name)
    forward = {r.url: outcome(recipe.process(r)) for r in records}
    shuffled = random.Random(1).sample(records, len(records))
    assert {r.url: outcome(recipe.process(r)) for r in shuffled} == forward


def test_rows_are_rederived_from_byte_ranges(site_crawl, records):
    recipe = load_recipe("fineweb-1")
    kept = [d for d in map(recipe.process, records) if isinstance(d, Document)]
    assert len(kept) >= 8
    for document in kept:
        row = document.row
        raw = (site_crawl / row["warc_path"]).read_bytes()
        piece = raw[row["warc_offset"] : row["warc_offset"] + row["warc_length"]]
        again = recipe.process(parse_record(piece, row["warc_path"], row["warc_offset"]))
        assert again.row == row
        assert (again.minhash == document.minhash).all()


def test_rows_have_the_fields_of_the_protocol(records):
    row = load_recipe("fineweb-1").process(records[0]).row
    assert tuple(row) == ROW_FIELDS
    assert row["token_count"] > 100
    assert row["language"] == "en"


def test_fineweb_keeps_main_text_and_rejects_with_reasons(records):
    results = {r.url: load_recipe("fineweb-1").process(r) for r in records}
    text = results["http://site1.example/page/0"].row["text"]
    assert "Section 3" not in text
    assert "All rights reserved" not in text
    assert results["http://site3.example/de"] == Rejected("language-guess")
    assert isinstance(results["http://site3.example/thin"], Rejected)
    assert "jane.doe" not in results["http://site2.example/mail"].row["text"]


def test_unfiltered_is_the_visible_text(records):
    for record in records:
        document = load_recipe("unfiltered-1").process(record)
        assert document.row["text"] == visible_text(record)
        assert document.minhash is None


def test_real_rows_are_found_in_the_visible_text(test_data):
    """5-word shingles of a row's lines, in the page's words: what provenance checks rest on."""
    import re

    found = []
    for name in ("ukwa-govuk1", "dolma-sample-0001", "resiliparse-warcfile", "pywb-iana"):
        with (test_data / "warc" / f"{name}.warc.gz").open("rb") as file:
            for record in read_records(file, name):
                document = load_recipe("fineweb-1").process(record)
                if isinstance(document, Document):
                    words = re.findall(r"\w+", visible_text(record).lower())
                    seen = {tuple(words[i : i + 5]) for i in range(len(words))}
                    lines = [re.findall(r"\w+", line.lower()) for line in document.row["text"].split("\n")]
                    shingles = [tuple(line[i : i + 5]) for line in lines for i in range(len(line) - 4)]
                    found.append(sum(s in seen for s in shingles) / max(1, len(shingles)))
    assert len(found) > 20
    assert min(found) > 0.8


def test_the_hash_covers_every_threshold_and_name():
    steps = (Extraction(), Language(), C4Quality())
    hashes = {
        Recipe("a", "1", steps).hash,
        Recipe("b", "1", steps).hash,
        Recipe("a", "2", steps).hash,
        Recipe("a", "1", steps[:2]).hash,
        Recipe("a", "1", (Extraction(), C4Quality(), Language())).hash,
        Recipe("a", "1", (Extraction(), Language(threshold=0.66), C4Quality())).hash,
        load_recipe("fineweb-1").hash,
        load_recipe("strict-1").hash,
    }
    assert len(hashes) == 8
    assert Recipe("a", "1", steps).hash in hashes


def test_a_miners_own_file_is_a_recipe(tmp_path, records):
    source = """
from dataclasses import dataclass
from typing import ClassVar
from athena.refine.recipe import Page, Recipe, Rejected
from athena.refine.steps.extraction import Extraction
from athena.refine.steps.filters import Language

@dataclass(frozen=True)
class Mentions:
    name: ClassVar[str] = "mentions"
    word: str = "river"
    def apply(self, page: Page) -> Page | Rejected:
        return page if self.word in page.text else Rejected(self.name)

RECIPE = Recipe("rivers", "1", (Extraction(), Language(), Mentions()))
"""
    path = tmp_path / "rivers.py"
    path.write_text(source)
    recipe = load_recipe(str(path))
    results = [recipe.process(r) for r in records]
    assert any(isinstance(d, Document) and "river" in d.row["text"] for d in results)
    path.write_text(source + "# a change that no threshold shows\n")
    assert load_recipe(str(path)).hash != recipe.hash


def test_what_is_no_recipe_is_named(tmp_path):
    for spec in ("fineweb-9", "../fineweb-1", str(tmp_path / "none.py")):
        with pytest.raises(NotFound):
            load_recipe(spec)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(BadInput, match="RECIPE"):
        load_recipe(str(tmp_path / "empty.py"))

    class Plain:
        name = "plain"

    with pytest.raises(Misconfigured, match="dataclass"):
        Recipe("a", "1", (Plain(),)).hash  # noqa: B018


def test_no_recipe_resolves_a_host_name(monkeypatch, records):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a recipe asked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("fineweb-1", "strict-1", "unfiltered-1"):
        for record in records:
            load_recipe(name).process(record)


def test_a_miner_starts_and_works_without_torch():
    code = """
import sys
import athena.refine.run
from athena.refine.recipe import load_recipe
from athena.refine.text.words import words_of
load_recipe("fineweb-1").hash
words_of("en").word_tokenize("It isn't there.")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
