"""`athena refine`, `athena score` and `athena doctor`, on a small local crawl."""

import pytest
from typer.testing import CliRunner

from athena.cli import app
from athena.errors import BadInput
from athena.localnet.doctor import examine
from athena.localnet.ground import build_crawl, build_pack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    made = build_crawl(tmp_path_factory.mktemp("crawl"), seed=2, pages=40, warcs=2)
    return [made.root / path for path in made.warc_paths]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    build_pack(folder)
    return folder


def athena(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_a_dataset_is_refined_and_passes_the_gates_of_its_files_only(crawl, pack, tmp_path):
    dataset = tmp_path / "dataset"
    refined = athena("refine", crawl[0], "--out", dataset)
    assert refined.exit_code == 0, refined.output
    assert "documents" in refined.output and [p.name for p in tmp_path.iterdir()] == ["dataset"]

    scored = athena("score", dataset, "--warc", crawl[0], "--eval-pack", pack)
    assert scored.exit_code == 0, scored.output
    assert scored.output.count("pass") == 6 and "fail" not in scored.output

    other = athena("score", dataset, "--warc", crawl[1], "--eval-pack", pack)
    assert isinstance(other.exception, BadInput) and "not refined from these files" in str(other.exception)


def test_a_file_that_is_no_warc_is_refused_with_the_reason(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused = athena("refine", tmp_path / "notes.txt", "--out", tmp_path / "dataset")
    assert isinstance(refused.exception, BadInput) and "notes.txt" in str(refused.exception)


def test_the_doctor_says_what_is_lacking_and_how_to_mend_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    lacking = [finding for finding in examine("ws://127.0.0.1:9", "nobody") if not finding.ok]
    assert {"wallet", "chain"} <= {finding.what.split()[0] for finding in lacking}
    assert all(finding.remedy for finding in lacking)
