import json
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from athena.errors import BadInput, Conflict, NotFound, Unauthorized
from athena.hub import open_hub
from athena.protocol import Release, SignedRelease
from athena.release import cut_release, read_release, verify_release
from athena.release_hub import download_release, publish_release

FILES = {
    "README.md",
    "config.json",
    "evaluation.json",
    "generation_config.json",
    "lineage.parquet",
    "model.safetensors",
    "release.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture
def cut(trained, signer, tmp_path):
    def make(version="0.1.0", folder="release"):
        into = tmp_path / folder
        cut_release(trained, name="athena-test", version=version, signer=signer, into=into)
        return into

    return make


def test_a_release_says_what_it_is_and_whose_data_it_ate(cut, verify, trained, trainer):
    folder = cut()
    release = verify_release(folder, verify, trainer=trainer)
    assert {path.name for path in folder.iterdir()} == FILES
    assert {entry.path for entry in release.files} == FILES - {"release.json"}
    assert release.bits_per_byte_after == {"news": 2.5, "wiki": 2.0}
    [entry] = release.lineage
    rows = pq.read_table(folder / "lineage.parquet").to_pylist()
    assert entry.tokens == sum(row["tokens"] for row in rows) == sum(entry.tokens_by_warc.values())
    assert entry.documents == len(rows) == 15
    assert json.loads((folder / "evaluation.json").read_text())["after"]["domains"]["news"]["bits_per_byte"] == 2.5


def test_the_card_is_readable_by_people_and_by_the_hub(cut):
    _, front, body = (cut() / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["library_name"] == "transformers"
    [result] = [r for r in metadata["model-index"][0]["results"] if r["dataset"]["type"] == "wiki"]
    assert result["metrics"] == [{"type": "bits_per_byte", "value": 2.0}]
    assert "| news | 4 | 200 | 3.5000 | 2.5000 |" in body
    assert "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty" in body


def test_cutting_again_returns_the_release_that_is_there(cut, tmp_path):
    before = (cut() / "release.json").read_bytes()
    assert (cut() / "release.json").read_bytes() == before
    with pytest.raises(Conflict, match="another release"):
        cut(version="0.2.0")


def test_a_bad_version_is_refused_and_leaves_nothing(cut, tmp_path):
    with pytest.raises(BadInput, match="version"):
        cut(version="one")
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize("name", sorted(FILES - {"release.json"}))
def test_one_flipped_byte_in_any_file_is_detected(cut, verify, name):
    folder = cut()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=name):
        verify_release(folder, verify)


def test_missing_and_unlisted_files_are_detected(cut, verify):
    folder = cut()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin"):
        verify_release(folder, verify)
    (folder / "pytorch_model.bin").unlink()
    (folder / "config.json").rename(folder.parent / "config.json")
    with pytest.raises(BadInput, match=r"config\.json"):
        verify_release(folder, verify)
    (folder / "config.json").symlink_to(folder.parent / "config.json")
    with pytest.raises(BadInput, match=r"config\.json"):
        verify_release(folder, verify)


def rewrite(folder, **changes):
    signed = read_release(folder)
    release = Release.model_validate({**signed.release.model_dump(), **changes})
    (folder / "release.json").write_bytes(SignedRelease(release=release, signature=signed.signature).canonical())


def test_a_changed_statement_is_not_signed(cut, verify):
    folder = cut()
    rewrite(folder, bits_per_byte_after={"news": 0.1, "wiki": 0.1})
    with pytest.raises(Unauthorized):
        verify_release(folder, verify)


def test_a_forged_signature_and_another_trainer_are_refused(cut, verify, trainer):
    folder = cut()
    other = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
    with pytest.raises(BadInput, match="not by"):
        verify_release(folder, verify, trainer=other)
    rewrite(folder, trainer=other)
    with pytest.raises(Unauthorized):
        verify_release(folder, verify)
    (folder / "release.json").write_text("{}")
    with pytest.raises(BadInput, match="not a release"):
        verify_release(folder, verify)
    (folder / "release.json").unlink()
    with pytest.raises(NotFound):
        verify_release(folder, verify)


def test_a_file_that_could_run_is_refused_even_if_it_is_signed(cut, verify, signer):
    folder = cut()
    entry = {"path": "modeling.py", "bytes": 0, "sha256": "0" * 64}
    release = read_release(folder).release
    release = Release.model_validate({**release.model_dump(), "files": [*release.model_dump()["files"], entry]})
    signed = SignedRelease(release=release, signature=signer.sign(release.canonical()))
    (folder / "release.json").write_bytes(signed.canonical())
    (folder / "modeling.py").touch()
    with pytest.raises(BadInput, match="no place"):
        verify_release(folder, verify)


def test_published_tagged_downloaded_and_verified(cut, verify, tmp_path):
    folder = cut()
    hub = open_hub(f"file://{tmp_path}/hub", kind="model")
    revision = publish_release(hub, folder, "org/athena-test")
    assert publish_release(hub, folder, "org/athena-test") == revision
    assert hub.resolve("org/athena-test", "v0.1.0") == revision
    into, digest = tmp_path / "got", read_release(folder).release.digest()
    assert download_release(hub, "org/athena-test", revision, into, verify, digest=digest).version == "0.1.0"
    assert {path.name for path in into.iterdir()} == FILES
    with pytest.raises(Conflict, match="exists"):
        download_release(hub, "org/athena-test", revision, into, verify)
    with pytest.raises(BadInput, match="not the release that its journal names"):
        download_release(hub, "org/athena-test", revision, tmp_path / "other", verify, digest="0" * 64)


def test_a_tampered_publication_never_gets_its_name(cut, verify, tmp_path):
    tampered = tmp_path / "tampered"
    shutil.copytree(cut(), tampered)
    (tampered / "config.json").write_text("{}")
    hub = open_hub(f"file://{tmp_path}/hub", kind="model")
    revision = publish_release(hub, tampered, "org/athena-test")
    with pytest.raises(BadInput, match=r"config\.json"):
        download_release(hub, "org/athena-test", revision, tmp_path / "got", verify)
    assert not (tmp_path / "got").exists()


GENERATE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
prompt = tokenizer("The mill", return_tensors="pt")
print(repr(tokenizer.decode(model.generate(**prompt, max_new_tokens=12, min_new_tokens=12)[0])))
"""


def test_unmodified_transformers_loads_it_and_generates(cut):
    done = subprocess.run(
        [sys.executable, "-I", "-c", GENERATE, cut()], capture_output=True, text=True, check=True, cwd="/"
    )
    assert "The mill" in done.stdout
    assert "Warning" not in done.stderr


def test_releases_are_read_without_torch():
    code = "import sys, athena.release; sys.exit(bool({'torch', 'pyarrow', 'transformers'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
