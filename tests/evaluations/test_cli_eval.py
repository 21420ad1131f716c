import json

import pytest
from typer.testing import CliRunner

from athena.cli import app
from athena.errors import BadInput, NotFound
from athena.evaluation import Evaluation, read_evaluation


@pytest.fixture(scope="module")
def folder(model_folder):
    return model_folder(0)


@pytest.fixture
def run(pack_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def athena_eval(model, *arguments):
        command = ["eval", str(model), "--pack", str(pack_folder), "--per-domain", "2", *arguments]
        return CliRunner().invoke(app, command, env={"COLUMNS": "200"}, catch_exceptions=True)

    return athena_eval


def test_a_folder_is_measured_shown_and_written(run, folder, tmp_path):
    result = run(folder, "--suite", "cloze", "--suite", "standard")
    assert result.exit_code == 0, result.output
    assert "bits_per_byte/prose" in result.stdout and "cloze/accuracy" in result.stdout
    assert "standard did not run" in result.stderr
    evaluation = read_evaluation(tmp_path / "evaluation")
    assert list(evaluation.suites) == ["cloze", "standard"] and evaluation.model is not None
    assert "cloze" in (tmp_path / "evaluation" / "report.html").read_text()


def test_the_same_command_goes_on_and_another_model_begins_anew(run, folder, model_folder, tmp_path):
    assert run(folder, "--only-ruler", "--out", "out").exit_code == 0
    file = tmp_path / "out" / "evaluation.json"
    first = read_evaluation(file)
    assert not first.suites
    marked = first.model_copy(update={"seed": "marked"})  # what is there is not measured again
    file.write_bytes(marked.canonical())
    result = run(folder, "--suite", "cloze", "--out", "out", "--json")
    shown = Evaluation.model_validate(json.loads(result.stdout))
    assert shown == read_evaluation(file)
    assert shown.seed == "marked" and list(shown.suites) == ["cloze"]
    assert run(model_folder(1), "--only-ruler", "--out", "out").exit_code == 0
    assert read_evaluation(file).seed == first.seed and read_evaluation(file).model != first.model


def test_against_another_it_exits_with_1_unless_it_is_better(run, folder, model_folder, tmp_path):
    assert run(folder, "--only-ruler", "--out", "old").exit_code == 0
    result = run(folder, "--only-ruler", "--out", "new", "--against", "old")
    assert result.exit_code == 1 and "against the model before it: equal" in result.stdout
    assert "Against the model before it: equal" in (tmp_path / "new" / "report.html").read_text()
    old = read_evaluation(tmp_path / "old")
    worse = {
        domain: score.model_copy(
            update={
                "bits_per_byte": 2 * score.bits_per_byte,
                "document_bits": tuple(2 * bits for bits in score.document_bits),
            }
        )
        for domain, score in old.domains.items()
    }
    (tmp_path / "worse.json").write_bytes(old.model_copy(update={"domains": worse}).canonical())
    result = run(folder, "--only-ruler", "--out", "new", "--against", "worse.json")
    assert result.exit_code == 0 and "against the model before it: better" in result.stdout


def test_what_cannot_be_measured_is_refused(run, folder, tmp_path):
    assert isinstance(run(tmp_path / "nowhere").exception, NotFound)
    assert isinstance(run(folder, "--suite", "nonsense").exception, BadInput)
    assert isinstance(run(folder, "--only-ruler", "--suite", "cloze").exception, BadInput)
    assert isinstance(run(folder, "--mixture", str(tmp_path)).exception, NotFound)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_lm_eval_reads_the_same_bits_of_short_documents(run, folder, tmp_path):
    result = run(folder, "--suite", "lm-eval", "--window", "1024")
    assert result.exit_code == 0, result.output
    evaluation = read_evaluation(tmp_path / "evaluation")
    found = evaluation.suites["lm-eval"]
    assert found.not_run is None
    for domain, bits_per_byte in evaluation.bits_per_byte.items():
        theirs = found.metrics[f"athena_test_text_{domain}, bits_per_byte"].value
        assert theirs == pytest.approx(bits_per_byte, rel=1e-3)
    assert found.metrics["athena_test_cloze_prose, acc_bytes"].better == "higher"
