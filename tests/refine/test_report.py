"""The report shows what strangers wrote without running it, its numbers add up, and it needs nothing but itself."""

import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise

import pyarrow as pa
import pytest

from athena.errors import BadInput
from athena.protocol import FileEntry, Manifest
from athena.refine.flow import Example, Flow
from athena.refine.manifest import ROW_SCHEMA
from athena.refine.recipe import load_recipe
from athena.refine.report import stages, write_report

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
HOSTILE = (
    "</pre></figure><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>",
    "'\"><svg onload=alert(1)>{{ 7 * 7 }}{% raw %}",
    "<style>@import url(http://evil.example/x.css)</style><base href=http://evil.example/>",
    "--><!-- ]]> &lt;script&gt; \x00\x1b[31m \u202egnp.exe \ud800 end",
)
COUNTS = {
    "not-html": 40, "opted-out": 1, "none.timeout": 2, "url.domain": 3, "language-guess": 20, "extraction.empty": 4,
    "gopher-quality.gopher_short_doc": 10, "gopher-quality.gopher_below_alpha_threshold": 2,
    "c4-quality.curly_bracket": 5, "duplicate": 3,
}  # fmt: skip
VOID = {"meta", "br", "rect"}


class Outline(HTMLParser):
    """Tags with attributes, in order; fails on a tag that is closed in the wrong place."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def rows(count, **columns):
    defaults = {
        "text": "t", "url": "https://a.example/x", "date": "2026-01-01T00:00:00Z", "language": "en",
        "language_score": 0.9, "token_count": 100, "warc_path": "w", "warc_offset": 0, "warc_length": 1,
        "record_id": "r", "payload_digest": "d", "minhash": None,
    }  # fmt: skip
    return [{**defaults, **{name: values[i % len(values)] for name, values in columns.items()}} for i in range(count)]


@pytest.fixture
def made(tmp_path):
    """Writes a report and returns it as text; changes are to the manifest."""

    def make(found, flow, name="report.html", **changes):
        table = pa.Table.from_pylist(found, schema=ROW_SCHEMA)
        recipe = load_recipe("fineweb-1")
        manifest = Manifest(**{
            "task_id": "0" * 32, "hotkey": HOTKEY, "rule_version": "1", "recipe": recipe.ref,
            "files": (FileEntry(path="data.parquet", bytes=1234, sha256="1" * 64, rows=len(found)),),
            "records": len(found) + sum(flow.counts.values()), "rows": len(found), "rejected": flow.counts,
            "tokens": sum(row["token_count"] for row in found), "root": "2" * 64, **changes,
        })  # fmt: skip
        write_report(tmp_path / name, manifest=manifest, recipe=recipe, table=table, flow=flow)
        return (tmp_path / name).read_bytes().decode("utf-8")

    return make


def test_numbers_add_up_from_all_records_to_those_kept():
    found = stages(load_recipe("fineweb-1"), COUNTS, 100)
    assert [(stage.name, stage.entering, stage.dropped) for stage in found] == [
        ("reading", 100, 41), ("no verdict", 59, 2), ("url", 57, 3), ("language-guess", 54, 20), ("extraction", 34, 4),
        ("language", 30, 0), ("gopher-repetition", 30, 0), ("gopher-quality", 30, 12), ("c4-quality", 18, 5),
        ("fineweb-quality", 13, 0), ("minhash", 13, 0), ("pii", 13, 0), ("near-duplicates and empty texts", 13, 3),
    ]  # fmt: skip
    assert all(after.entering == before.leaving for before, after in pairwise(found))
    assert found[-1].leaving == 100 - sum(COUNTS.values())
    assert "threshold 0.65" in found[5].settings


def test_reasons_of_steps_inside_a_step_belong_to_the_outer_one():
    outer = next(step for step in load_recipe("union-1").steps if hasattr(step, "branches"))
    found = stages(load_recipe("union-1"), {"gopher-quality.gopher_short_doc": 7}, 10)
    assert [stage.name for stage in found if stage.dropped] == [outer.name]


def test_the_page_says_what_happened(made):
    page = made(
        rows(
            10,
            language=["en", "en", "de"],
            token_count=[90, 700],
            url=["https://a.example/1", "http://b.example/2", "x:"],
        ),
        Flow(
            COUNTS,
            {
                "url.domain": (Example("http://bad.example/casino", ""),),
                "language-guess": (Example("http://de.example/", "Der alte Fischer"),),
            },
        ),
    )
    text = " ".join(" ".join(Outline(page).texts).split())
    for said in (
        "10 of 100 records kept", "3,950 tokens", "recipe fineweb-1", "language-guess, 20 dropped", "Der alte Fischer",
        "http://bad.example/casino", "64 to 127", "512 to 1,023", "a.example", "(no host)", "data.parquet, 1,234 bytes",
        load_recipe("fineweb-1").hash, "2" * 64,
    ):  # fmt: skip
        assert said in text, said


@pytest.mark.parametrize("excerpt", HOSTILE, ids=["script", "template", "style", "characters"])
def test_what_strangers_wrote_stays_text(made, excerpt):
    harmless = Flow({"url.domain": 1}, {"url.domain": (Example("http://a.example/", "A text."),)})
    hostile = Flow({"url.domain": 1}, {"url.domain": (Example(excerpt, excerpt),)})
    shape = [tag for tag, _ in Outline(made(rows(1), harmless)).tags]
    page = made(rows(1, language=[excerpt.encode("utf-8", "replace").decode()]), hostile)
    assert [tag for tag, _ in Outline(page).tags] == shape
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_a_long_text_is_cut(made):
    page = made(
        rows(1), Flow({"url.domain": 1}, {"url.domain": (Example("http://a.example/" + "a" * 9999, "b" * 9999),)})
    )
    assert "a" * 601 not in page and "b" * 601 not in page and "b" * 500 in page


def test_the_page_needs_nothing_and_runs_nothing(made):
    examples = {"url.domain": (Example("javascript:alert(1)", "see http://evil.example/"),)}
    page = made(rows(3), Flow({"url.domain": 1}, examples))
    outline = Outline(page)
    assert not {"script", "link", "img", "iframe", "object", "form"} & {tag for tag, _ in outline.tags}
    policy = next(a["content"] for tag, a in outline.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    for tag, attributes in outline.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")], tag
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in page and "@import" not in page


def test_charts_and_tables_can_be_heard(made):
    outline = Outline(made(rows(3), Flow({"url.domain": 1}, {})))
    assert ("html", {"lang": "en"}) in outline.tags
    assert all(a["role"] == "img" and a["aria-label"] for tag, a in outline.tags if tag == "svg")
    assert all(a.get("scope") in ("row", "col") for tag, a in outline.tags if tag == "th")
    headings = [tag for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert headings == ["h1", "h2", "h2", "h2", "h2"]


def test_many_hosts_are_the_largest_and_all_others(made):
    page = made(rows(50, url=[f"https://h{i}.example/" for i in range(30)]), Flow({}, {}))
    assert "10 others" in page
    assert page.count(".example</bdi>") == 20


def test_a_dataset_of_nothing_has_a_report(made):
    page = made([], Flow({"not-html": 3}, {}))
    assert "0 of 3 records kept" in page and "No documents." in page and "No examples." in page
    assert "0 of 0 records kept" in made([], Flow({}, {}))


def test_the_same_dataset_gives_the_same_bytes(made):
    found, examples = rows(9, url=["https://b.example/", "https://a.example/"]), {"url.domain": (Example("u", "e"),)}
    turned = Flow(dict(reversed(COUNTS.items())), examples)
    assert made(found, Flow(COUNTS, examples)) == made(found, turned, name="again.html")


def test_a_report_of_other_rows_or_another_recipe_is_refused(made):
    with pytest.raises(BadInput, match="flow or the rows"):
        made(rows(2), Flow({"url.domain": 1}, {}), rejected={"url.domain": 2})
    with pytest.raises(BadInput, match="flow or the rows"):
        made(rows(2), Flow({}, {}), rows=3)
    with pytest.raises(BadInput, match="strict-1"):
        made(rows(2), Flow({}, {}), recipe=load_recipe("strict-1").ref)


def test_settings_of_steps_are_shown(made):
    page = made(rows(1), Flow({}, {}))
    for step in load_recipe("fineweb-1").steps:
        assert all(field.name in page for field in dataclasses.fields(step))
