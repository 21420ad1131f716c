"""A sheet as people see it: nothing that a stranger wrote does anything, and the numbers are the sheet's."""

import re

import pytest
from rich.console import Console

from athena.judge import score
from athena.judge.proxy.measured import CurvePoint, Measured
from athena.judge.rules import rules_of
from athena.localnet.sheet_report import print_report, write_page
from athena.protocol import Arm, Basis, DatasetRef, ScoreSheet, Shard, Verdict

RULES = rules_of("1")
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
EVIL = "</bdi><script src=//evil.example></script>[bold]x[/bold]\x1b[2J\u202e"


def arm(name, number, bits):
    return Arm(name=name, seed=f"{number:064x}", tokens=1, bits_per_byte={"law": bits, "news": bits + 0.1})


@pytest.fixture
def sheet():
    arms = tuple(
        arm(name, number, bits + 0.001 * number)
        for name, bits in (("canonical", 1.0), ("miner", 0.99), ("canary-raw", 1.1), ("canary-shuffled", 1.5))
        for number in range(3)
    )
    basis = Basis(
        shard=Shard(crawl="LOCAL-1", warc_paths=("a.warc.gz",)), opened_block=1, deadline_block=9, median_blocks=None,
        block_hash="0x" + "ab" * 32, reference_hash="0x" + "ab" * 32,
    )  # fmt: skip
    return ScoreSheet(
        task_id="0" * 32, hotkey=HOTKEY, validator=HOTKEY, rule_version="1", eval_pack="1" * 64,
        dataset=DatasetRef(location="file:a/b", revision="2" * 40, root="3" * 64), issued_block=1, commit_block=2,
        seed_block=3, outcome="pass", arms=arms, yield_ratio=0.9, time_factor=1.0, units=0.9, basis=basis,
        gates=(Verdict(gate="provenance", outcome="pass", evidence={"exact": 0.75, "first": EVIL, "list": [1, None]}),),
        effect=score.effect_of_arms(arms, {"law": 0.002, "news": 0.002}, RULES.pay),
    )  # fmt: skip


@pytest.fixture
def measured(sheet):
    """Every arm with a curve from 3 above what it ends at; the runs on shuffled words left none."""
    return [
        Measured(
            arm=arm, document_bits={}, document_bytes={},
            curve=() if arm.name == "canary-shuffled" else tuple(
                CurvePoint(tokens=100 * number, bits_per_byte=arm.bits_per_byte["news"] - 0.001 + 4 - number)
                for number in (1, 2, 3, 4)
            ),
        )
        for arm in sheet.arms
    ]  # fmt: skip


def test_the_page_shows_the_numbers_and_is_the_same_twice(sheet, tmp_path):
    for name in "ab":
        write_page(tmp_path / name, sheet, RULES)
    page = (tmp_path / "a").read_text("utf-8")
    assert (tmp_path / "b").read_text("utf-8") == page
    assert f"{sheet.effect.mean:+.4f}" in page and f"{sheet.effect.low:+.4f}" in page and "0.900 units" in page
    assert page.count("<polyline") == 3 and page.count('class="dot"') == 2 + len(sheet.arms)
    for x in map(float, re.findall(r'(?:x|width)="([\d.-]+)"', page)):
        assert 0 <= x <= 100


def test_the_page_draws_how_canonical_and_miner_models_learnt(sheet, measured, tmp_path):
    for name in "ab":
        write_page(tmp_path / name, sheet, RULES, measured)
    page = (tmp_path / "a").read_text("utf-8")
    assert (tmp_path / "b").read_text("utf-8") == page
    assert page.count('<polyline class="run"') == 6, "three runs of each; canaries and what left no curve are not drawn"
    groups = re.findall(r'<g class="(canonical|miner)">(.*?)</g>', page, re.DOTALL)
    assert [name for name, _ in groups] == ["canonical", "miner"]
    assert [group.count("<circle") for _, group in groups] == [4, 0], "told apart by their marks too"
    assert [group.count("<path") for _, group in groups] == [0, 4]
    assert "stroke-dasharray" in page and "400 tokens" in page and "canonical text: 3 runs, 4.1000 to 1.1000" in page
    for points in re.findall(r'points="([^"]+)"', page):
        for x, y in (map(float, point.split(",")) for point in points.split()):
            assert 0 <= x <= 100 and 0 <= y <= 40


def test_runs_that_left_no_curve_are_drawn_nowhere(sheet, measured, tmp_path):
    write_page(tmp_path / "page", sheet, RULES, [m.model_copy(update={"curve": ()}) for m in measured])
    assert 'id="learnt"' not in (tmp_path / "page").read_text("utf-8")


def test_nothing_in_the_page_loads_or_runs(sheet, measured, tmp_path):
    write_page(tmp_path / "page", sheet, RULES, measured)
    page = (tmp_path / "page").read_text("utf-8")
    assert "<script" not in page and "\x1b" not in page and "\u202e" not in page
    assert not re.search(r"<[^>]*\s(?:src|href)=", page) and "default-src 'none'" in page


@pytest.mark.parametrize("outcome", ["fail", "none"])
def test_a_dataset_that_was_not_compared_has_a_page_too(sheet, tmp_path, outcome):
    verdict = Verdict(gate="form", outcome=outcome, reason=EVIL)
    bare = sheet.model_copy(update={"outcome": outcome, "gates": (verdict,), "arms": (), "effect": None, "units": 0.0})
    write_page(tmp_path / "page", bare, RULES)
    page = (tmp_path / "page").read_text("utf-8")
    assert {"fail": "Failed", "none": "No verdict"}[outcome] in page and "<polyline" not in page


def test_the_terminal_shows_them_too_and_obeys_nobody(sheet, measured, capsys):
    print_report(sheet, RULES, Console(width=200), measured)
    out = capsys.readouterr().out
    assert re.search(r"canonical +█▆▃▁ +4.1000 +1.1000", out) and re.search(r"miner +█▆▃▁ +4.0900 +1.0900", out)
    assert "[bold]x[/bold]" in out and "\x1b" not in out
    assert f"{sheet.effect.mean:+.4f} [{sheet.effect.low:+.4f}, {sheet.effect.high:+.4f}]" in out
    assert "canary-shuffled" in out and "law" in out and "after 30 tasks" in out
