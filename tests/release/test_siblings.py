"""GGUF and int8 siblings hold the same model, and say what they lost; what was changed in them is refused."""

from dataclasses import replace

import pytest
import torch

from athena.errors import BadInput, Conflict
from athena.evalpack import EvalDocument, load_pack, write_pack
from athena.evaluate import evaluate, load_folder
from athena.hub import open_hub
from athena.release import cut_release, read_release
from athena.release_siblings import make_sibling, publish_sibling, verify_sibling


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    texts = ("The barn lies by the river, 7 miles from here.", "The inn lies by the mill, 12 miles from there.")
    write_pack(folder, "test", [EvalDocument(id=str(i), domain="web", text=text) for i, text in enumerate(texts)])
    return load_pack(folder)


@pytest.fixture(scope="module")
def release(trained, signer, pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    cut_release(trained, name="athena", version="0.1.0", signer=signer, into=folder / "untold")
    model, tokenizer = load_folder(folder / "untold")
    after = evaluate(model, tokenizer, pack, per_domain=2, window=32)
    cut_release(replace(trained, after=after), name="athena", version="0.1.0", signer=signer, into=folder / "release")
    return folder / "release"


@pytest.fixture(scope="module")
def siblings(release, pack, signer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("siblings")
    return {
        kind: (make_sibling(release, kind, pack, signer, folder / kind), folder / kind) for kind in ("gguf", "int8")
    }


def logits(model):
    with torch.no_grad():
        return model(torch.arange(1, 30)[None]).logits


def test_f32_gguf_gives_the_same_logits_and_q8_0_nearly(release, siblings):
    from transformers import AutoModelForCausalLM

    signed, folder = siblings["gguf"]
    expected = logits(AutoModelForCausalLM.from_pretrained(release))
    for kind, tolerance in (("F32", 1e-4), ("Q8_0", 0.05)):
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=f"athena-0.1.0-{kind}.gguf")
        assert (logits(model) - expected).abs().max() < tolerance, kind
    losses = signed.sibling.losses
    assert losses["F32"] == pytest.approx(0, abs=1e-6)
    assert abs(losses["Q8_0"]) < 0.01
    assert f"{losses['Q8_0']:+.5f}" in (folder / "README.md").read_text()


def test_int8_loads_in_transformers_and_says_what_it_lost(release, siblings):
    from transformers import AutoModelForCausalLM

    signed, folder = siblings["int8"]
    expected = logits(AutoModelForCausalLM.from_pretrained(release))
    assert (logits(AutoModelForCausalLM.from_pretrained(folder)) - expected).abs().max() < 0.05
    assert abs(signed.sibling.losses["int8"]) < 0.01


def test_siblings_are_signed_like_releases(release, siblings, verify, pack, signer, tmp_path):
    digest = read_release(release).release.digest()
    for kind, (signed, folder) in siblings.items():
        assert verify_sibling(folder, verify, release=digest) == signed.sibling
        assert make_sibling(release, kind, pack, signer, folder) == signed
        with pytest.raises(BadInput, match="another release"):
            verify_sibling(folder, verify, release="0" * 64)
    hub = open_hub(f"file://{tmp_path}/hub", kind="model")
    _, folder = siblings["gguf"]
    revision = publish_sibling(hub, folder, "org/athena")
    got = hub.fetch("org/athena-gguf", hub.resolve("org/athena-gguf", "v0.1.0"), tmp_path / "got", max_bytes=2**30)
    assert hub.resolve("org/athena-gguf", "main") == revision
    verify_sibling(got, verify, release=digest)
    changed = got / "athena-0.1.0-Q8_0.gguf"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    with pytest.raises(BadInput, match="Q8_0"):
        verify_sibling(got, verify)
    with pytest.raises(Conflict, match="another sibling"):
        make_sibling(release, "int8", pack, signer, folder)
