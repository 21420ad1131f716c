"""`athena refine`, `athena score` and `athena doctor`, on a small local crawl."""

import pytest
from typer.testing import CliRunner

from athena.cli import app
from athena.errors import BadInput
from athena.evalpack import EvalDocument, write_pack
from athena.hub import open_hub
from athena.judge.assess import GATES
from athena.localnet.doctor import examine
from athena.localnet.ground import build_crawl
from athena.protocol import Manifest, ScoreSheet
from athena.refine import run
from athena.refine.manifest import Limits, load_dataset

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    made = build_crawl(tmp_path_factory.mktemp("crawl"), seed=2, pages=40, warcs=2)
    return [made.root / path for path in made.warc_paths]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    texts = {"letters": "Dear sister, the snow has come early.", "rules": "No ball is played twice by one side."}
    write_pack(folder, "small", [EvalDocument(id=name, domain=name, text=text) for name, text in texts.items()])
    return folder


def athena(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def refined(crawl, tmp_path_factory):
    """The folder of a dataset, and what was said when it was made."""
    out = tmp_path_factory.mktemp("refined") / "dataset"
    made = athena("refine", crawl[0], "--out", out)
    assert made.exit_code == 0, made.output
    return out, made.output


def test_a_dataset_is_refined_and_passes_the_gates_of_its_files_only(crawl, pack, refined, tmp_path):
    dataset, said = refined
    assert "documents" in said
    assert sorted(path.name for path in dataset.parent.iterdir()) == ["dataset", "dataset.report.html"]

    page = tmp_path / "report.html"
    scored = athena("score", dataset, "--warc", crawl[0], "--eval-pack", pack, "--html", page)
    assert scored.exit_code == 0, scored.output
    verdicts = [line.split()[:2] for line in scored.output.splitlines()[1:]]
    assert verdicts == [[gate, "pass"] for gate in ("form", *(name for name, _ in GATES))]
    assert all(gate in page.read_text("utf-8") for gate, _ in GATES)

    other = athena("score", dataset, "--warc", crawl[1], "--eval-pack", pack)
    assert isinstance(other.exception, BadInput) and "not refined from these files" in str(other.exception)


def test_a_published_dataset_is_judged_by_its_reference(crawl, pack, refined, tmp_path):
    """This one is broken, so that the first gate ends it."""
    (tmp_path / "broken").mkdir()
    manifest = (refined[0] / "manifest.json").read_bytes()
    (tmp_path / "broken" / "manifest.json").write_bytes(manifest)
    (tmp_path / "broken" / "data.parquet").write_bytes(b"no table")
    hub, root = (tmp_path / "hub").as_uri(), Manifest.model_validate_json(manifest).root
    revision = open_hub(hub).publish(tmp_path / "broken", "org/set", message="m")
    rest = ("--hub", hub, "--warc", crawl[0], "--eval-pack", pack)

    scored = athena("score", f"file:org/set@{revision}#{root}", *rest, "--json")
    assert scored.exit_code == 0, scored.output
    sheet = ScoreSheet.model_validate_json(scored.stdout)
    assert (sheet.outcome, sheet.gates[0].gate) == ("fail", "form") and "size" in sheet.gates[0].reason
    assert sheet.dataset.root == root and sheet.basis.shard.crawl == "LOCAL-files"

    other = athena("score", f"file:org/set@{revision}#{'0' * 64}", *rest)
    assert isinstance(other.exception, BadInput) and "another root" in str(other.exception)
    nowhere = athena("score", f"file:org/set@{revision}#{root}", "--hub", hub)
    assert isinstance(nowhere.exception, BadInput) and "--warc" in nowhere.exception.remedy
    assert isinstance(athena("score", "no-such-folder", "--warc", crawl[0]).exception, BadInput)


def test_a_file_that_no_text_is_read_from_is_refused_with_the_reason(tmp_path):
    (tmp_path / "notes.bin").write_text("hello")
    refused = athena("refine", tmp_path / "notes.bin", "--out", tmp_path / "dataset")
    assert isinstance(refused.exception, BadInput) and "notes.bin" in str(refused.exception)


def test_pages_and_plain_texts_make_one_dataset_and_the_second_time_there_is_nothing_to_do(crawl, tmp_path):
    (tmp_path / "notes.txt").write_text("A short note.")
    dataset = tmp_path / "dataset"
    inputs = ["refine", crawl[0], tmp_path / "notes.txt", "--recipe", "unfiltered-1", "--out", dataset]
    refined = athena(*inputs, "--workers", 2)
    assert refined.exit_code == 0, refined.output
    table = load_dataset(dataset, limits=Limits()).table
    assert "A short note." in table["text"].to_pylist() and len(set(table["warc_path"].to_pylist())) == 2
    again = athena(*inputs, "--workers", 1)
    assert again.exit_code == 0 and "nothing to do" in again.output
    assert refined.output.splitlines()[-1] == again.output.splitlines()[-1]


def test_an_interrupted_refinement_says_what_it_goes_on_after(crawl, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    inputs = ["refine", *crawl, "--out", tmp_path / "dataset"]
    monkeypatch.setattr(run, "assemble", interrupted)
    assert athena(*inputs).exit_code == 130
    monkeypatch.undo()
    refined = athena(*inputs)
    assert refined.exit_code == 0 and "goes on after" in refined.output and "of 2 files" in refined.output


def test_the_doctor_says_what_is_lacking_and_how_to_mend_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    lacking = [finding for finding in examine("ws://127.0.0.1:9", "nobody") if not finding.ok]
    assert {"wallet", "chain"} <= {finding.what.split()[0] for finding in lacking}
    assert all(finding.remedy for finding in lacking)
