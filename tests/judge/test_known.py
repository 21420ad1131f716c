"""Filters of known releases miss no document, take few strange ones for known, and come from files nobody trusts."""

import dataclasses
import hashlib
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from athena import cli_judge
from athena.errors import BadInput, NotFound, TooLarge, Unavailable
from athena.judge import known_build
from athena.judge.gates import known
from athena.judge.known import MAX_FILTER_BYTES, KnownInfo, KnownRelease, items_of, open_known, put, size_of
from athena.judge.known_build import KnownPlan, build_known
from athena.refine.sources.opening import open_sources

HALVINGS = 4
BUILD = ("known-release", "build")


def text(seed, num_words=300):
    dice = random.Random(seed)
    return " ".join(f"word{dice.randrange(5000)}" for _ in range(num_words))


def release(items, false_positives=0.01):
    size, hashes = size_of(len(items), false_positives)
    bits = np.zeros(size // 8, dtype=np.uint8)
    put(bits, items, hashes)
    info = KnownInfo(
        name="r", revision="1", documents=1, items=len(items), halvings=HALVINGS, bits=size, hashes=hashes,
        sha256=hashlib.sha256(bits).hexdigest(),
    )  # fmt: skip
    return KnownRelease(info, bits)


def random_items(seed, count):
    return np.frombuffer(random.Random(seed).randbytes(8 * count), dtype=np.uint64)


@given(seed=st.integers(), count=st.integers(1, 300), false_positives=st.sampled_from([0.5, 0.1, 1e-2, 1e-6]))
@settings(max_examples=50)
def test_what_was_put_in_is_always_held(seed, count, false_positives):
    items = random_items(seed, count)
    assert release(items, false_positives).holds(items).all()


@pytest.mark.parametrize("false_positives", [0.1, 0.01, 0.001])
def test_strangers_are_held_as_seldom_as_promised(false_positives):
    filled = release(random_items(1, 30_000), false_positives)
    share = filled.holds(random_items(2, 100_000)).mean()
    assert 0.7 * false_positives < share < 1.3 * false_positives
    assert filled.info.bits < 1.45 * 30_000 * -np.log2(false_positives) + 128


def of_texts(*texts):
    return release(np.concatenate([items_of(found, HALVINGS) for found in texts]))


def test_a_document_is_known_whatever_its_case_and_spacing():
    assert of_texts(text(1), text(2)).knows(text(1).upper().replace(" ", "\n\n"))
    assert of_texts("a short one").knows("A short one!")
    assert not of_texts("a short one").knows("another short one")
    assert not of_texts(text(1)).knows("")


@pytest.mark.parametrize("seed", range(20))
def test_a_trimmed_document_is_known_and_a_strange_one_is_not(seed):
    filled = of_texts(*(text(number) for number in range(20)))
    words = text(seed).split(" ")
    assert filled.knows(" ".join(words[20:-40]))
    assert filled.knows(f"{text(100 + seed, 20)} {text(seed)} {text(200 + seed, 20)}")
    assert not filled.knows(text(1000 + seed))
    assert not filled.knows(f"{text(seed, 60)} {text(1000 + seed)}")


def test_filters_that_exist_stay_readable():
    """Their items are what these functions gave when they were made: another hash would find nothing any more."""
    items = items_of("The quick brown fox jumps over the lazy dog, and then it jumps over the other lazy dog.", 0)
    assert [f"{int(item):016x}" for item in items[:2]] == ["b95db9c0d3850978", "6f84ad9d2b40b6d6"]
    assert len(items) == 1 + 18 - 12


@pytest.fixture
def files(tmp_path):
    """Two files of texts: JSON Lines and Parquet."""
    folder = tmp_path / "release"
    folder.mkdir()
    lines = [json.dumps({"text": text(number)}) for number in range(30)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    pq.write_table(pa.table({"text": [text(number) for number in range(30, 60)]}), folder / "b.parquet")
    return folder


def build(folder, out, **changes):
    return build_known(open_sources([str(folder)]), KnownPlan("a release", **changes), out, lambda done, total: None)


def test_a_release_is_known_by_its_files(files, tmp_path):
    info, rejected = build(files, tmp_path / "r.known")
    opened = open_known(tmp_path / "r.known")
    assert opened.info == info and info.documents == 60 and not rejected
    assert all(opened.knows(text(number)) for number in range(60))
    assert sum(opened.knows(text(number)) for number in range(1000, 1200)) <= 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.known", "release"]


def test_the_same_files_make_the_same_bytes(files, tmp_path):
    build(files, tmp_path / "first")
    build(files, tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_build_goes_on_behind_the_last_whole_source(files, tmp_path):
    first, second = open_sources([str(files)])

    class Away:
        name = second.name

        def records(self, rejected):
            yield from list(second.records(rejected))[:7]
            raise Unavailable("503")

    class Once:
        name = first.name

        def records(self, rejected):
            raise AssertionError("read again")

    plan, out = KnownPlan("a release"), tmp_path / "r.known"
    with pytest.raises(Unavailable):
        build_known([first, Away()], plan, out, lambda done, total: None)
    assert not out.exists()
    build_known([Once(), second], plan, out, lambda done, total: None)
    build(files, tmp_path / "whole")
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


def test_pages_are_no_release(tmp_path):
    (tmp_path / "page.html").write_text("<p>A page.</p>")
    with pytest.raises(BadInput, match="no text"):
        build(tmp_path / "page.html", tmp_path / "r.known")


def test_a_filter_over_the_limit_is_refused(files, tmp_path, monkeypatch):
    monkeypatch.setattr(known_build, "MAX_FILTER_BYTES", 100)
    with pytest.raises(TooLarge, match="over 100"):
        build(files, tmp_path / "r.known")


def with_header(**changes):
    def change(content):
        header, _, bits = content.partition(b"\n")
        return json.dumps({**json.loads(header), **changes}).encode() + b"\n" + bits

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"{" * (1 << 17) + content,
        lambda content: b"\x80\x04." + content,
        with_header(bits=8 * MAX_FILTER_BYTES),
        with_header(bits=8 * MAX_FILTER_BYTES + 64),
        with_header(bits=65),
        with_header(hashes=0),
        with_header(hashes=10**6),
        with_header(halvings=-1),
        with_header(items="1"),
        with_header(extra=1),
        with_header(format="athena-known-release/2"),
    ],
    ids=[
        "empty", "cut", "longer", "flipped", "no-line", "pickle", "many-bits", "too-many-bits", "odd-bits", "no-hashes",
        "many-hashes", "negative", "text", "extra", "other-format",
    ],
)  # fmt: skip
def test_a_file_that_is_no_filter_is_refused(files, tmp_path, change):
    path = tmp_path / "r.known"
    build(files, path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BadInput):
        open_known(path)


def test_a_filter_that_is_not_there(tmp_path):
    with pytest.raises(NotFound):
        open_known(tmp_path / "absent")
    with pytest.raises(BadInput, match="regular"):
        open_known(tmp_path)


@pytest.fixture
def judge(make_evidence):
    def judge(texts, canonical, *filters):
        return known.check(dataclasses.replace(make_evidence(texts, canonical=canonical), known=filters))

    return judge


def test_rows_of_a_known_release_fail_unless_canonical_work_finds_them_too(judge):
    mine, filled = [text(number) for number in range(10)], of_texts(*(text(number) for number in range(8)))
    others = [text(number) for number in range(100, 110)]
    verdict = judge(mine, [*mine[:2], *others], filled)
    assert verdict.outcome == "fail" and verdict.evidence["share"] == 0.8
    assert judge(mine, mine, filled).outcome == "pass"
    assert judge([*mine[:5], *others], others, filled).outcome == "pass"
    assert judge(mine, others, of_texts(*others), filled).outcome == "fail"


def test_nothing_is_known_without_a_filter_nor_of_an_empty_set(judge):
    assert judge([text(1)], []).outcome == "pass"
    assert judge([], [], of_texts(text(1))).outcome == "pass"


def test_the_command_makes_a_filter(files, tmp_path):
    out = tmp_path / "r.known"
    done = CliRunner().invoke(cli_judge.app, [*BUILD, str(files), "--out", str(out), "--one-in", "4"])
    assert done.exit_code == 0, done.output
    assert open_known(out).info.name == "release" and open_known(out).info.halvings == 2
    assert CliRunner().invoke(cli_judge.app, [*BUILD, str(files), "--out", str(out), "--one-in", "3"]).exit_code
    assert CliRunner().invoke(cli_judge.app, [*BUILD, "--help"]).exit_code == 0
