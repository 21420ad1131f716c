"""Siblings of a release: the same model as GGUF files, or with int8 weights, each with the loss that was measured.

A sibling is a folder of its own, signed like a release: who wants one does not download the others.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from athena.errors import BadInput, Conflict, NotFound, TooLarge
from athena.evalpack import EvalPack
from athena.evaluation import Evaluation
from athena.hub import Hub
from athena.journal import Signer, Verify
from athena.protocol import FileEntry, Hex64, Hotkey, Noun, Release
from athena.registry import ModelName, Version
from athena.release import (
    MAX_MANIFEST_BYTES,
    TOKENIZER_FILES,
    entries_of,
    read_release,
    signed_evaluation,
    verify_files,
)
from athena.train.folders import staged

SIBLING = "sibling.json"
Kind = Literal["gguf", "int8"]
RELEASED = "release"
"""What the release itself is called among the variants of a sibling."""


class Sibling(Noun):
    """sibling.json. `release` is the digest of the release; `bits_per_byte` is by variant and domain.

    The variants are the release itself, and F32 and Q8_0 of a GGUF sibling or int8 of an int8 one, measured on one
    machine.
    """

    format: Literal["athena-sibling/1"] = "athena-sibling/1"
    kind: Kind
    name: ModelName
    version: Version
    release: Hex64
    files: Annotated[tuple[FileEntry, ...], Field(max_length=4096)]
    eval_pack: Hex64
    bits_per_byte: dict[str, dict[str, float]]
    trainer: Hotkey

    @property
    def losses(self) -> dict[str, float]:
        """By variant, how many bits per byte it lost: mean over domains, more is worse."""
        means = {variant: sum(found.values()) / len(found) for variant, found in self.bits_per_byte.items()}
        return {variant: mean - means[RELEASED] for variant, mean in means.items() if variant != RELEASED}


class SignedSibling(Noun):
    sibling: Sibling
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


def make_sibling(release: Path, kind: Kind, pack: EvalPack, signer: Signer, into: Path) -> SignedSibling:
    """Converts the release in the folder `release`, measures what came out, signs it; one that is there is returned.

    Raises BadInput for a pack that the release was not measured with, Conflict when `into` holds something else.
    """
    source, like = read_release(release).release, signed_evaluation(release)
    if (into / SIBLING).exists():
        signed = read_sibling(into)
        if (signed.sibling.release, signed.sibling.kind) != (source.digest(), kind):
            raise Conflict(f"{into} holds another sibling", remedy="choose another folder")
        return signed
    with staged(into) as out:
        measured = (_gguf if kind == "gguf" else _int8)(release, out, source, like, pack)
        bits = {variant: evaluation.bits_per_byte for variant, evaluation in measured.items()}
        sibling = Sibling(
            kind=kind,
            name=source.name,
            version=source.version,
            release=source.digest(),
            files=(),
            eval_pack=pack.hash,
            bits_per_byte=bits,
            trainer=signer.hotkey,
        )
        (out / "README.md").write_text(_card(sibling), "utf-8")
        sibling = sibling.model_copy(update={"files": entries_of(out)})
        signed = SignedSibling(sibling=sibling, signature=signer.sign(sibling.canonical()))
        (out / SIBLING).write_bytes(signed.canonical())
    return signed


def _gguf(release: Path, out: Path, source: Release, like: Evaluation, pack: EvalPack) -> dict[str, Evaluation]:
    from athena.train.exports import GGUF_TYPES, measure_gguf, measure_model, write_gguf

    found = {RELEASED: measure_model(release, like, pack)}
    for gguf_type in GGUF_TYPES:
        file = out / f"{source.name}-{source.version}-{gguf_type}.gguf"
        write_gguf(release, file, gguf_type, name=f"{source.name} {source.version}")
        found[gguf_type] = measure_gguf(file, like, pack, release)
    return found


def _int8(release: Path, out: Path, source: Release, like: Evaluation, pack: EvalPack) -> dict[str, Evaluation]:
    from athena.train.exports import measure_int8, measure_model, write_int8

    write_int8(release, out)
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        shutil.copyfile(release / name, out / name)
    return {RELEASED: measure_model(release, like, pack), "int8": measure_int8(out, like, pack, release)}


def read_sibling(folder: Path) -> SignedSibling:
    """sibling.json, parsed but not verified. Raises NotFound, TooLarge, BadInput."""
    file = folder / SIBLING
    if not file.is_file():
        raise NotFound(f"no sibling of a release in {folder}")
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise TooLarge(f"{file} is over {MAX_MANIFEST_BYTES} bytes")
    try:
        return SignedSibling.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{file} is not a sibling: {error.errors()[0]['msg']}") from error


def verify_sibling(folder: Path, verify: Verify, *, release: str | None = None) -> Sibling:
    """Checks signature and files; what the sibling says. `release`: the digest of the release that it has to be of.

    Raises as `verify_release` does.
    """
    signed = read_sibling(folder)
    sibling = signed.sibling
    if release is not None and sibling.release != release:
        raise BadInput(f"{folder} is of another release: {sibling.release}")
    verify(sibling.trainer, sibling.canonical(), signed.signature)
    verify_files(folder, sibling.files, SIBLING)
    return sibling


def publish_sibling(hub: Hub, folder: Path, name: str) -> str:
    """Publishes it beside the release `org/name`, as `org/name-<kind>`, tagged like it; its revision."""
    sibling = read_sibling(folder).sibling
    repository = f"{name}-{sibling.kind}"
    revision = hub.publish(folder, repository, message=f"{sibling.name} {sibling.version} {sibling.kind}")
    hub.tag(repository, revision, f"v{sibling.version}")
    return revision


def _card(sibling: Sibling) -> str:
    lines = ["| variant | " + " | ".join(sibling.bits_per_byte[RELEASED]) + " | lost |"]
    lines.append("|---|" + "---:|" * (len(sibling.bits_per_byte[RELEASED]) + 1))
    for variant, found in sibling.bits_per_byte.items():
        lost = f"{sibling.losses[variant]:+.5f}" if variant != RELEASED else ""
        lines.append(f"| {variant} | " + " | ".join(f"{bits:.4f}" for bits in found.values()) + f" | {lost} |")
    table = "\n".join(lines)
    file = f"{sibling.name}-{sibling.version}-Q8_0.gguf"
    loading = {
        "gguf": f'`AutoModelForCausalLM.from_pretrained(folder, gguf_file="{file}")`'
        " loads one in transformers; llama.cpp and its kin read them too.",
        "int8": "`AutoModelForCausalLM.from_pretrained(folder)` loads it in transformers with compressed-tensors"
        " installed; vLLM reads it as it is.",
    }[sibling.kind]
    return f"""---
license: mit
library_name: {"gguf" if sibling.kind == "gguf" else "transformers"}
base_model_relation: quantized
---

# {sibling.name} {sibling.version}, {sibling.kind}

The model of the release whose release.json has the sha256 `{sibling.release}`. {loading}

Bits per UTF-8 byte on evaluation pack `{sibling.eval_pack}`, lower is better; "lost" is the mean over domains, against
the release itself.

{table}
"""
