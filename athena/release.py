"""A release: a folder that unmodified transformers loads, with the proof of what is in it and whose data made it.

`release.json`, written last, names the sha256 of every other file and is signed by the trainer's hotkey. Keys are the
caller's: this module is given a signer and `verify`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from athena.card import model_card
from athena.durable import sha256_of
from athena.errors import BadInput, Conflict, NotFound, TooLarge
from athena.evaluation import Evaluation, read_evaluation
from athena.journal import Signer, Verify
from athena.protocol import FileEntry, Release, SignedRelease, canonical_json
from athena.train.folders import staged
from athena.train.trained import CALIBRATION, Trained

MANIFEST = "release.json"
LINEAGE = "lineage.parquet"
EVALUATION = "evaluation.json"
MAX_MANIFEST_BYTES = 64 * 2**20
# Nothing that could run on load: weights are safetensors or GGUF, tokenizers are data.
SUFFIXES = (".json", ".md", ".parquet", ".safetensors", ".gguf")
# What a release takes from a checkpoint and a tokenizer folder; the optimizer's state stays behind.
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
SHARDS = "model-*-of-*.safetensors"


def cut_release(trained: Trained, *, name: str, version: str, signer: Signer, into: Path) -> SignedRelease:
    """Assembles and signs the release in `into`; one that is there already, whole, is returned.

    Raises BadInput for a bad name or version, and Conflict when `into` holds another release.
    """
    from athena.release_lineage import write_lineage  # pyarrow

    if (into / MANIFEST).exists():
        signed = read_release(into)
        if (signed.release.name, signed.release.version, signed.release.trainer) != (name, version, signer.hotkey):
            raise Conflict(f"{into} holds another release", remedy="choose another folder")
        return signed
    with staged(into) as out:
        for source in _model_files(trained):
            shutil.copyfile(source, out / source.name)
        write_lineage(trained.documents, out / LINEAGE)
        evaluations = {"before": trained.before, "after": trained.after}
        body = canonical_json({when: evaluation.model_dump(mode="json") for when, evaluation in evaluations.items()})
        (out / EVALUATION).write_bytes(body)
        if trained.calibration is not None:
            shutil.copyfile(trained.calibration, out / CALIBRATION)
        (out / "README.md").write_text(model_card(name, version, trained), "utf-8")
        try:
            release = Release(
                name=name,
                version=version,
                files=entries_of(out),
                parameters=trained.parameters,
                training_tokens=trained.training_tokens,
                eval_pack=trained.after.eval_pack,
                bits_per_byte_before=trained.before.bits_per_byte,
                bits_per_byte_after=trained.after.bits_per_byte,
                lineage=trained.lineage,
                trainer=signer.hotkey,
            )
            signed = SignedRelease(release=release, signature=signer.sign(release.canonical()))
        except ValidationError as error:
            raise BadInput(f"no release can be made of this: {error}") from error
        (out / MANIFEST).write_bytes(signed.canonical())
    return signed


def holds(folder: Path, trained: Trained) -> bool:
    """Whether the release in `folder` is of this very model. Raises what `read_release` raises."""
    listed = {entry.path: entry.sha256 for entry in read_release(folder).release.files}
    return all(listed.get(source.name) == sha256_of(source) for source in _model_files(trained))


def _model_files(trained: Trained) -> Iterator[Path]:
    yield from (trained.model / name for name in MODEL_FILES if (trained.model / name).exists())
    yield from sorted(trained.model.glob(SHARDS))
    yield from (trained.tokenizer / name for name in TOKENIZER_FILES)


def entries_of(folder: Path) -> tuple[FileEntry, ...]:
    """Size and sha256 of every file of a flat folder, by name."""
    return tuple(
        FileEntry(path=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
    )


def verify_release(folder: Path, verify: Verify, *, trainer: str | None = None, digest: str | None = None) -> Release:
    """Checks the signature and the sha256 of every file; what the release says.

    Raises NotFound, Unauthorized when the signature is not that of the trainer it names, and BadInput when a file is
    missing, changed, not listed, or of a kind that could run, or the release is another than that of `trainer` or
    with `digest`, where given.
    """
    signed = read_release(folder)
    check_signed(signed, verify, trainer=trainer, digest=digest)
    verify_files(folder, signed.release.files, MANIFEST)
    return signed.release


def check_signed(signed: SignedRelease, verify: Verify, *, trainer: str | None, digest: str | None) -> None:
    """The part of `verify_release` that is about release.json itself."""
    release = signed.release
    if trainer is not None and release.trainer != trainer:
        raise BadInput(f"released by {release.trainer}, not by {trainer}")
    if digest is not None and release.digest() != digest:
        raise BadInput(f"{release.name} {release.version} is not the release that its journal names")
    verify(release.trainer, release.canonical(), signed.signature)


def verify_files(folder: Path, files: Iterable[FileEntry], manifest: str) -> None:
    """Raises BadInput unless `folder` holds these files, with their sha256, and beside `manifest` nothing else."""
    listed = {entry.path: entry for entry in files}
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()}
    if unlisted := sorted(present - set(listed) - {manifest}):
        raise BadInput(f"{unlisted[0]} is not part of the release", remedy="download it again")
    for path, entry in listed.items():
        file = folder / path
        if file.suffix not in SUFFIXES:
            raise BadInput(f"{path} has no place in a release")
        if not file.is_file() or file.is_symlink() or file.stat().st_size != entry.bytes:
            raise BadInput(f"{path} is missing or has another size", remedy="download it again")
        if sha256_of(file) != entry.sha256:
            raise BadInput(f"{path} is not the file that was signed", remedy="download it again")


def read_release(folder: Path) -> SignedRelease:
    """release.json, parsed but not verified. Raises NotFound, TooLarge, BadInput."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise NotFound(f"no release in {folder}")
    if manifest.stat().st_size > MAX_MANIFEST_BYTES:
        raise TooLarge(f"{manifest} is over {MAX_MANIFEST_BYTES} bytes")
    try:
        return SignedRelease.model_validate_json(manifest.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{manifest} is not a release: {error}") from error


def signed_evaluation(folder: Path) -> Evaluation:
    """What was measured of a release, its evaluation.json checked against release.json.

    Raises NotFound, TooLarge, BadInput.
    """
    promised = {entry.path: entry.sha256 for entry in read_release(folder).release.files}.get(EVALUATION)
    evaluation = read_evaluation(folder)
    if sha256_of(folder / EVALUATION) != promised:
        raise BadInput(f"{folder / EVALUATION} is not the file that was signed", remedy="download it again")
    return evaluation
