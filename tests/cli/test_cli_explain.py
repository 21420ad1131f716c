"""`athena explain` against a small server on loopback."""

import json

import pytest

from athena.protocol import Effect, ScoreSheet, SignedSheet, Verdict

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
VALIDATORS = ("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y")
EVIL = "\x1b[2J[bold]x[/bold]"


def sheet(validator: str, task: int, *verdicts: Verdict, rules: str = "1") -> SignedSheet:
    passed = all(verdict.outcome == "pass" for verdict in verdicts)
    found = ScoreSheet(
        task_id=f"{task:032x}", hotkey=HOTKEY, dataset={"location": "hf:a/b", "revision": "a" * 40, "root": "b" * 64},
        validator=validator, rule_version=rules, eval_pack="b" * 64, issued_block=1, commit_block=2, seed_block=task,
        outcome="pass" if passed else "fail", gates=verdicts, units=1.0 if passed else 0.0, yield_ratio=0.5,
        time_factor=1.0, effect=Effect(mean=0.0, low=-0.1, high=0.1, by_domain={"web": 0.0}) if passed else None,
    )  # fmt: skip
    return SignedSheet(sheet=found, signature="c" * 128)


@pytest.fixture(autouse=True)
def _judged(server) -> None:
    bad = Verdict(gate="provenance", outcome="fail", reason=f"row 3 is not in its page {EVIL}")
    server.lists = {
        "sheets": [sheet(VALIDATORS[0], 1), sheet(VALIDATORS[0], 2, bad), sheet(VALIDATORS[1], 1),
                   sheet(VALIDATORS[1], 9, rules="demo-1")]
    }  # fmt: skip


def test_each_validators_view_is_told(athena):
    code, out, _ = athena("explain", HOTKEY)
    assert code == 0
    assert out.index(VALIDATORS[0]) < out.index("row 3 is not in its page") < out.index(VALIDATORS[1])
    assert "1 of 2 tasks failed" in out and "50% of the unique tokens" in out
    assert "W = M · Σ a·u" in out
    assert "\x1b" not in out and "[bold]" in out


def test_as_json(athena):
    code, out, _ = athena("explain", HOTKEY, "--json", "--limit", "1")
    first, second = map(json.loads, out.splitlines())
    assert code == 0
    assert (first["validator"], second["validator"]) == VALIDATORS
    assert [task["stopped_by"] for task in first["tasks"]] == ["provenance"]
    assert second["pay"]["multiplier"] == 1 and second["pay"]["weight"] == second["pay"]["units"] > 0
    assert "\x1b" not in out


def test_another_rule_version_is_another_story(athena):
    code, out, _ = athena("explain", HOTKEY, "--rules", "demo-1", "--json")
    assert code == 0
    assert [json.loads(line)["validator"] for line in out.splitlines()] == [VALIDATORS[1]]


def test_who_was_never_judged_is_told_so(athena, server):
    server.lists["sheets"] = []
    code, _, err = athena("explain", HOTKEY)
    assert code != 0
    assert "no validator has judged" in err
    assert athena("explain", HOTKEY, "--rules", "7")[0] != 0
