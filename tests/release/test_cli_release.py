"""`athena release …` and `athena download` as a shell runs them, with real keys."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from athena.chain.wallets import hotkey_of, open_wallet
from athena.cli import app
from athena.errors import AthenaError, BadInput, Conflict, Misconfigured, NotFound
from athena.evalpack import EvalDocument, write_pack
from athena.train.trained import read_trained, save_trained


@pytest.fixture
def athena(tmp_path, monkeypatch):
    """Runs a command; its output, or the typed error that it ends with."""
    open_wallet("carol", path=tmp_path / "wallets", create=True)
    for name, value in {
        "ATHENA_RELEASES": tmp_path / "releases",
        "ATHENA_WALLET": "carol",
        "ATHENA_WALLET_PATH": tmp_path / "wallets",
        "ATHENA_HUB": f"file://{tmp_path}/hub",
        "ATHENA_NAMESPACE": "org",
    }.items():
        monkeypatch.setenv(name, str(value))

    def run(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if isinstance(done.exception, AthenaError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture
def run_of(trained, evaluation, tmp_path):
    def make(bits):
        folder = tmp_path / f"run-{bits}"
        folder.mkdir()
        save_trained(replace(trained, after=evaluation(news=bits, wiki=bits)), folder)
        return folder

    return make


def test_a_run_leaves_what_a_release_is_made_of(run_of, trained, tmp_path):
    found = read_trained(run_of(2.5))
    assert (found.lineage, found.before, found.parameters) == (trained.lineage, trained.before, trained.parameters)
    assert found.documents.resolve() == trained.documents
    with pytest.raises(NotFound, match="no finished run"):
        read_trained(tmp_path)


def test_from_a_run_to_a_download_and_back(athena, run_of, tmp_path):
    assert "candidate, first" in athena("release", "cut", "athena", "0.1.0", "--run", run_of(2.5))
    with pytest.raises(Conflict, match="candidate"):
        athena("release", "publish", "athena", "0.1.0")
    athena("release", "approve", "athena", "0.1.0")
    assert "released" in athena("release", "publish", "athena", "0.1.0")
    athena("release", "alias", "athena", "0.1.0", "--as", "stable")
    owner = hotkey_of(open_wallet("carol", path=tmp_path / "wallets"))

    into = tmp_path / "mine"
    said = athena("download", "org/athena@stable", "--into", into, "--trainer", owner)
    assert "athena 0.1.0" in said and owner in said
    with pytest.raises(Conflict, match="exists"):
        athena("download", "org/athena@stable", "--into", into)
    athena("download", "org/athena@stable", "--into", into, "--verify")
    weights = into / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.safetensors is not the file that was signed"):
        athena("download", "org/athena@stable", "--into", into, "--verify")

    assert "better" in athena("release", "cut", "athena", "0.2.0", "--run", run_of(2.0))
    athena("release", "approve", "athena", "0.2.0")
    athena("release", "publish", "athena", "0.2.0")
    athena("release", "alias", "athena", "0.2.0", "--as", "stable")
    athena("release", "rollback", "athena", "--reason", "loops on code")
    athena("release", "yank", "athena", "0.2.0", "--reason", "a take-down")
    with pytest.raises(Conflict, match="yanked"):
        athena("download", "org/athena@0.2.0")
    listed = [json.loads(line) for line in athena("release", "list", "athena", "--json").splitlines()]
    assert [(row["version"], row["state"]) for row in listed] == [("0.2.0", "yanked"), ("0.1.0", "released")]
    journal = athena("release", "list", "athena", "--published", "--journal", "--json").splitlines()
    entries = [json.loads(line) for line in journal]
    assert [entry["action"] for entry in entries[-3:]] == ["alias", "alias", "yank"]
    assert {entry["by"] for entry in entries} == {owner}
    assert entries[-1]["reason"] == "a take-down"


def test_what_is_worse_takes_a_reason_and_calibration_a_mixture(athena, run_of, tmp_path):
    good, bad = run_of(2.0), run_of(2.5)
    athena("release", "cut", "athena", "0.1.0", "--run", good)
    for step in ("approve", "publish"):
        athena("release", step, "athena", "0.1.0")
    assert "worse" in athena("release", "cut", "athena", "0.2.0", "--run", bad)
    with pytest.raises(Conflict, match="worse than the release before"):
        athena("release", "approve", "athena", "0.2.0")
    assert "approved" in athena("release", "approve", "athena", "0.2.0", "--reason", "the licence")
    write_pack(tmp_path / "pack", "test", [EvalDocument(id="1", domain="web", text="A text that is held out.")])
    with pytest.raises(NotFound, match=r"job\.json"):
        athena("release", "calibrate", good, "--eval-pack", tmp_path / "pack")
    with pytest.raises(Misconfigured, match="wallet"):
        athena("release", "--wallet", "nobody", "approve", "athena", "0.2.0")
