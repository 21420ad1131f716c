"""`athena score verify` on the data: the same commitment judged again, without trusting whoever judged it first."""

import io

import pytest
from rich.console import Console

from athena.chain.client import Head
from athena.crawl import open_crawl
from athena.errors import BadInput, NotFound, TooLarge, Unavailable
from athena.evalpack import EvalDocument, write_pack
from athena.events import EventLog
from athena.hub import open_hub
from athena.judge.assess import Bench, assess
from athena.judge.evidence import Case, Rival
from athena.judge.rules import rules_of
from athena.localnet import recheck
from athena.localnet.recheck import Data, judged_again, read_sheets, unlike_chain
from athena.protocol import Commitment, DatasetRef, Shard, SignedSheet, Task, Verdict

HOTKEYS = ("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty")
TASK = Task(shard=Shard(crawl="LOCAL-1", warc_paths=("a.warc.gz",)), rule_version="demo-1", opened_block=1)


@pytest.fixture
def data(tmp_path):
    documents = (EvalDocument(id=str(number), domain="web", text=f"text {number}") for number in range(3))
    write_pack(tmp_path / "pack", "p", documents)
    (tmp_path / "crawl").mkdir()
    return Data((tmp_path / "hub").as_uri(), (tmp_path / "crawl").as_uri(), tmp_path / "pack")


@pytest.fixture
def publish(data, tmp_path):
    """A dataset that no reader takes, as committed to."""

    def publish(number):
        folder = tmp_path / f"set-{number}"
        folder.mkdir()
        for name in ("manifest.json", "data.parquet"):
            (folder / name).write_bytes(b"{%d}" % number)
        name = f"miner/set-{number}"
        revision = open_hub(data.hub).publish(folder, name, message="m")
        ref = DatasetRef(location=f"file:{name}", revision=revision, root=f"{number:064x}")
        return Commitment(dataset=ref, task_id=TASK.id, hotkey=HOTKEYS[number % 2])

    return publish


@pytest.fixture
def judged(data, publish, tmp_path):
    """The sheet of a dataset that was held against an earlier one."""
    earlier, later = publish(1), publish(2)
    bench = Bench(
        hub=open_hub(data.hub), crawl=open_crawl(data.crawl_url), pack=recheck.load_pack(data.eval_pack),
        rules=rules_of("demo-1"), validator=HOTKEYS[0], workdir=tmp_path / "work", events=EventLog(None), workers=None,
    )  # fmt: skip
    case = Case(
        task=TASK, commitment=later, issued_block=1, deadline_block=90, commit_block=20, seed_block=30,
        block_hash="0x" + "ab" * 32, reference_hash="0x" + "cd" * 32,
        rivals=(Rival(tmp_path, earlier.hotkey, 10, TASK.id, earlier),),
    )  # fmt: skip
    sheet = assess(case, bench)
    assert (sheet.outcome, sheet.gates[0].gate) == ("fail", "form")
    return sheet


def again(sheet, data):
    out = io.StringIO()
    found = judged_again(sheet, data, Console(file=out, width=300))
    return [difference.what for difference in found], out.getvalue()


def test_an_honest_verdict_is_found_again(judged, data):
    assert again(judged, data) == ([], "")


def test_a_bought_verdict_shows(judged, data):
    bought = judged.model_copy(update={"outcome": "pass", "gates": (Verdict(gate="form", outcome="pass"),)})
    told, _ = again(bought, data)
    assert {"outcome", "gate form"} <= set(told)


def test_an_earlier_dataset_that_is_gone_is_told(judged, data):
    (ref,) = judged.basis.rivals
    gone = ref.commitment.dataset.model_copy(update={"revision": "0" * 40})
    lost = ref.model_copy(update={"commitment": ref.commitment.model_copy(update={"dataset": gone})})
    basis = judged.basis.model_copy(update={"rivals": (lost,), "num_rivals": 7})
    told, said = again(judged.model_copy(update={"basis": basis}), data)
    assert told == [] and "not held against file:miner/set-1" in said and "1 of 7" in said


def test_another_pack_judges_nothing(judged, data, tmp_path):
    write_pack(tmp_path / "other", "p", [EvalDocument(id="1", domain="web", text="other")])
    with pytest.raises(BadInput, match="pack"):
        again(judged, Data(data.hub, data.crawl_url, tmp_path / "other"))


def test_a_fault_of_this_machine_is_no_difference(judged, data, monkeypatch):
    class Away:
        scheme = "file"

        def __getattr__(self, name):
            def fail(*args, **kwargs):
                raise Unavailable("503")

            return fail

    monkeypatch.setattr(recheck, "open_hub", lambda url: Away())
    with pytest.raises(Unavailable, match="form"):
        again(judged, data)


def test_draws_from_another_block_show(judged, monkeypatch):
    class FakeChain:
        def __init__(self, network, netuid):
            pass

        def head(self, number):
            return Head(number, "0x" + {30: "ab", 31: "ef"}[number] * 32)

        def close(self):
            pass

    monkeypatch.setattr(recheck, "Chain", FakeChain)
    assert unlike_chain(judged, "finney") == []
    (told,) = unlike_chain(judged.model_copy(update={"seed_block": 31}), "finney")
    assert told.what == "hash of block 31" and told.found == "0x" + "ef" * 32


def test_files_of_sheets(judged, tmp_path, monkeypatch):
    signed = SignedSheet(sheet=judged, signature="0" * 128)
    one, two, half = (tmp_path / name for name in ("one", "two", "half"))
    one.write_text(signed.model_dump_json(indent=1))
    two.write_bytes(signed.canonical() + b"\n\n" + signed.canonical())
    half.write_bytes(signed.canonical() + b"\n" + signed.canonical()[:-5])
    assert list(read_sheets(one)) == [signed] and list(read_sheets(two)) == [signed] * 2
    with pytest.raises(BadInput, match="line 2"):
        list(read_sheets(half))
    with pytest.raises(NotFound):
        list(read_sheets(tmp_path / "none"))
    monkeypatch.setattr(recheck, "MAX_SHEET_FILE_BYTES", 10)
    with pytest.raises(TooLarge):
        list(read_sheets(one))
