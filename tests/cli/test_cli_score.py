"""`athena score verify` on sheets of a file, and the form of `athena score` itself."""

import json

import pytest

from athena.chain.wallets import hotkey_of, open_wallet, sign
from athena.protocol import Basis, ScoreSheet, Shard, SignedSheet, Task, Verdict

MINER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
EVIL = "\x1b[2J[bold]x[/bold]"


@pytest.fixture(scope="module")
def wallet(tmp_path_factory):
    return open_wallet("validator", path=tmp_path_factory.mktemp("wallets"), create=True)


@pytest.fixture
def make(wallet):
    """A signed sheet of a failed dataset, changed after it was signed where asked to."""

    def make(number=0, forged=None, **changes):
        shard = Shard(crawl="CC-MAIN-2026-43", warc_paths=("a.warc.gz",))
        task = Task(shard=shard, rule_version="1", opened_block=number)
        basis = Basis(
            shard=shard, opened_block=number, deadline_block=100, median_blocks=20, block_hash="0x" + "ab" * 32,
            reference_hash="0x" + "cd" * 32,
        )  # fmt: skip
        sheet = ScoreSheet(
            task_id=task.id, hotkey=MINER, validator=hotkey_of(wallet), rule_version="1", eval_pack="1" * 64,
            dataset={"location": "file:a/b", "revision": "2" * 40, "root": "3" * 64}, issued_block=0, commit_block=20,
            seed_block=30, outcome="fail", gates=(Verdict(gate="form", outcome="fail", reason=EVIL),), time_factor=1.0,
            basis=basis,
        ).model_copy(update=changes)  # fmt: skip
        signed = SignedSheet(sheet=sheet, signature=sign(wallet, sheet.canonical()))
        return signed if forged is None else signed.model_copy(update={"sheet": sheet.model_copy(update=forged)})

    return make


@pytest.fixture
def write(tmp_path):
    def write(*sheets):
        file = tmp_path / "sheets.jsonl"
        file.write_bytes(b"".join(signed.canonical() + b"\n" for signed in sheets))
        return str(file)

    return write


def test_sheets_that_hold(athena, make, write):
    code, out, _ = athena("score", "verify", write(make(1), make(2)))
    assert code == 0 and out.count("holds: task") == 2
    code, out, _ = athena("score", "verify", write(make(1)))
    assert code == 0 and out.count("holds: task") == 1


def test_a_sheet_that_was_changed_after_it_was_signed(athena, make, write):
    code, out, err = athena("score", "verify", write(make(1), make(2, forged={"units": 1.0})))
    assert code == 1 and "signature" in out and out.count("holds") == 1
    assert "1 of these" in err


def test_a_validator_that_signs_what_does_not_follow(athena, make, write):
    code, out, _ = athena("score", "verify", write(make(units=1.0)))
    assert code == 1 and "units: stated 1, found 0" in out


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]\n[2]\n", b"\xff\xfe"], ids=["empty", "object", "lists", "bytes"])
def test_what_is_no_sheet(athena, tmp_path, content):
    file = tmp_path / "file"
    file.write_bytes(content)
    code, _, err = athena("score", "verify", str(file))
    assert code == 2 and "no signed score sheet" in err


def test_judging_again_takes_crawl_and_pack(athena, make, write):
    code, _, err = athena("score", "verify", write(make()), "--crawl-url", "file:///nowhere")
    assert code == 2 and "--eval-pack" in err


def test_a_dataset_comes_first(athena):
    code, _, err = athena("score", "no-such-folder", "--warc", __file__)
    assert code == 2 and "no folder and no reference" in err
    assert athena("score", "dataset", "no-such-folder", "--warc", __file__)[0] == 2
    code, out, _ = athena("score", "--help")
    assert code == 0 and "verify" in out and "dataset" in out


def test_a_validators_state_is_shown(athena, tmp_path, make):
    from athena.judge.queue import QUEUE_FILE, CaseQueue

    assert athena("validator", "status", "--state", str(tmp_path / "none"))[0] == 1
    signed = make()
    with CaseQueue(tmp_path / QUEUE_FILE) as queue:
        queue.enqueue("a", hotkey=MINER, task_id="t", commit_block=1, payload="", due_at=0.0)
        queue.settle("a", signed, now=0.0)
        queue.note("last_read_block", 75)
    code, out, _ = athena("validator", "status", "--state", str(tmp_path), "--json")
    found = json.loads(out)
    assert code == 0 and (found["failed"], found["last_read_block"], found["weighed_block"]) == (1, 75, None)
    assert found["overfitting"] == []
    out = athena("validator", "status", "--state", str(tmp_path))[1]
    assert "last read block" in out and "overfitting" not in out


def test_a_validators_state_tells_who_overfits(athena, tmp_path):
    from athena.judge.queue import QUEUE_FILE, CaseQueue

    with CaseQueue(tmp_path / QUEUE_FILE) as queue:
        for number in range(8):
            queue.keep_gain(
                str(number), pack="a" * 64, rule_version="1", hotkey=MINER, public=0.02 + number / 1e5, sealed=0.0
            )
    code, out, _ = athena("validator", "status", "--state", str(tmp_path), "--json")
    assert code == 0 and [entry["hotkey"] for entry in json.loads(out)["overfitting"]] == [MINER]
    out = athena("validator", "status", "--state", str(tmp_path))[1]
    assert f"{MINER} gains 0.0200 bits per byte more on its public half" in out and "to be retired" in out
