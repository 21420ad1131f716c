"""The benchmark's comparison of texts notices one character, and its last line holds what the targets are about."""

import json
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLANTED = """
import dataclasses
from dataclasses import dataclass
from typing import ClassVar
from athena.refine.recipe import Page, Recipe, load_recipe

@dataclass(frozen=True)
class OneCharacter:
    name: ClassVar[str] = "one-character"
    def apply(self, page: Page) -> Page:
        planted = sum(map(ord, page.record.record_id)) % 3 == 0
        return dataclasses.replace(page, text=page.text[:-1] + "~") if planted else page

RECIPE = Recipe("planted", "1", (*load_recipe("fineweb-1").steps, OneCharacter()))
"""


@pytest.fixture
def few_pages(monkeypatch, test_data, tmp_path):
    """The benchmark's folder of data, with the first pages of each set alone."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import bench_refine

    for name in bench_refine.SETS:
        folder = tmp_path / "data" / "extraction" / name
        folder.mkdir(parents=True)
        whole = test_data / "extraction" / name
        first = islice(bench_refine.pages(whole / "pages.warc.gz"), 24)
        (folder / "pages.warc.gz").write_bytes(b"".join(records for _, records in first))
        (folder / "labels.json.gz").symlink_to(whole / "labels.json.gz")
    return tmp_path / "data"


@pytest.fixture
def planted(tmp_path):
    path = tmp_path / "planted.py"
    path.write_text(PLANTED)
    return path


def test_one_character_is_noticed(monkeypatch, site_crawl, planted):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import bench_refine
    import bench_refine_arms

    seconds = Counter()
    kept = {}
    for recipe in ("fineweb-1", str(planted)):
        refine, _ = bench_refine_arms.ours(recipe, seconds)
        kept[recipe] = {}
        for path in sorted(site_crawl.iterdir()):
            kept[recipe] |= {f"{path.name} {id_}": text for id_, text in refine(path).items()}
    plain, changed = kept.values()
    assert len(plain) > 5
    assert bench_refine.identical(plain, dict(plain))
    assert not bench_refine.identical(plain, changed)
    assert not bench_refine.identical({}, {})
    difference = bench_refine.different(plain, changed)
    assert difference["text"]
    assert len(difference["text"]) < len(plain)
    assert difference["only_ours"] == difference["only_canonical"] == []
    assert seconds["extraction"] > 0
    shares = bench_refine.shares(seconds, seconds.total())
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)


def test_data_that_is_not_there_is_named(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "bench_refine.py"), "--data", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 2
    assert "pages.warc.gz is not there; see --data" in run.stderr


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_planted_character_makes_the_benchmark_say_so(few_pages, planted):
    stock = ROOT / "build" / "stock"
    if not (stock / ".ready").exists():
        pytest.skip("the packages of the stock blocks are not there; run `make build/stock/.ready`")
    command = [sys.executable, str(ROOT / "scripts" / "bench_refine.py"), "--data", str(few_pages)]
    run = subprocess.run([*command, "--recipe", str(planted)], capture_output=True, text=True, check=True)
    *_, canonical, _, last = map(json.loads, run.stdout.splitlines())
    assert list(last) == ["mixed_ratio", "english_ratio", "identical", "peak_mib_per_worker"]
    assert last["identical"] is False
    found = canonical["canonical"]
    assert found["text"] and not found["only_ours"] and not found["only_canonical"], "nothing but the character differs"
