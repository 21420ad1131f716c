"""A release: a folder that unmodified transformers loads, with the proof of what is in it and whose data made it.

`release.json`, written last, names the sha256 of every other file and is signed by the trainer's hotkey. Keys are the
caller's: this module is given `sign` and `verify`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from athena.card import model_card
from athena.durable import sha256_of
from athena.errors import BadInput, Conflict, NotFound, TooLarge
from athena.hub import Hub
from athena.protocol import FileEntry, Release, SignedRelease, canonical_json
from athena.train.folders import staged
from athena.train.trained import Trained

Sign = Callable[[bytes], str]
Verify = Callable[[str, bytes, str], None]
"""Called with hotkey, message and signature; raises Unauthorized."""

MANIFEST = "release.json"
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_RELEASE_BYTES = 128 * 2**30  # 27B parameters in float32
# Nothing that could run on load: weights are safetensors only, tokenizers are data.
SUFFIXES = (".json", ".md", ".parquet", ".safetensors")
DOMAIN_TOLERANCE = 0.01  # a domain may be this much worse, relative, before a release loses to the previous one
_REVISION = re.compile(r"[0-9a-f]{40}")


# What a release takes from a checkpoint and a tokenizer folder; the optimizer's state stays behind.
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def cut_release(trained: Trained, *, name: str, version: str, trainer: str, sign: Sign, into: Path) -> SignedRelease:
    """Assembles and signs the release in `into`; one that is there already, whole, is returned.

    Raises BadInput for a bad name or version, and Conflict when `into` holds another release.
    """
    if (into / MANIFEST).exists():
        signed = read_release(into)
        if (signed.release.name, signed.release.version, signed.release.trainer) != (name, version, trainer):
            raise Conflict(f"{into} holds another release", remedy="choose another folder")
        return signed
    with staged(into) as out:
        for file in MODEL_FILES:
            source = trained.tokenizer if file.startswith("tokenizer") else trained.model
            shutil.copyfile(source / file, out / file)
        shutil.copyfile(trained.documents, out / "lineage.parquet")
        evaluations = {"before": trained.before, "after": trained.after}
        body = canonical_json({when: evaluation.model_dump(mode="json") for when, evaluation in evaluations.items()})
        (out / "evaluation.json").write_bytes(body)
        (out / "README.md").write_text(model_card(name, version, trained), "utf-8")
        try:
            release = Release(
                name=name,
                version=version,
                files=tuple(_entry(path) for path in sorted(out.iterdir())),
                parameters=trained.parameters,
                training_tokens=trained.training_tokens,
                eval_pack=trained.after.eval_pack,
                bits_per_byte_before=trained.before.bits_per_byte,
                bits_per_byte_after=trained.after.bits_per_byte,
                lineage=trained.lineage,
                trainer=trainer,
            )
            signed = SignedRelease(release=release, signature=sign(release.canonical()))
        except ValidationError as error:
            raise BadInput(f"no release can be made of this: {error}") from error
        (out / MANIFEST).write_bytes(signed.canonical())
    return signed


def _entry(path: Path) -> FileEntry:
    return FileEntry(path=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def verify_release(folder: Path, verify: Verify, *, trainer: str | None = None) -> Release:
    """Checks the signature and the sha256 of every file; what the release says.

    Raises NotFound, Unauthorized when the signature is not that of the trainer it names (or of `trainer`, where given),
    and BadInput when a file is missing, changed, not listed, or of a kind that could run.
    """
    signed = read_release(folder)
    release = signed.release
    if trainer is not None and release.trainer != trainer:
        raise BadInput(f"released by {release.trainer}, not by {trainer}")
    verify(release.trainer, release.canonical(), signed.signature)
    listed = {entry.path: entry for entry in release.files}
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()}
    if unlisted := sorted(present - set(listed) - {MANIFEST}):
        raise BadInput(f"{unlisted[0]} is not part of the release", remedy="download it again")
    for path, entry in listed.items():
        file = folder / path
        if file.suffix not in SUFFIXES:
            raise BadInput(f"{path} has no place in a release")
        if not file.is_file() or file.is_symlink() or file.stat().st_size != entry.bytes:
            raise BadInput(f"{path} is missing or has another size", remedy="download it again")
        if sha256_of(file) != entry.sha256:
            raise BadInput(f"{path} is not the file that was signed", remedy="download it again")
    return release


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


def beats(previous: Release | None, candidate: Release) -> bool:
    """Whether `candidate` may follow `previous` without approval by hand; a first release always may.

    It must be better in bits per byte on average over the domains, and in no domain more than 1 % worse. Raises
    Conflict when the two were measured with different packs.
    """
    if previous is None:
        return True
    old, new = previous.bits_per_byte_after, candidate.bits_per_byte_after
    if previous.eval_pack != candidate.eval_pack or old.keys() != new.keys():
        raise Conflict("the previous release was measured with another pack", remedy="evaluate it with this one")
    if any(new[domain] > old[domain] * (1 + DOMAIN_TOLERANCE) for domain in old):
        return False
    return sum(new.values()) < sum(old.values())


def publish_release(hub: Hub, folder: Path, name: str) -> str:
    """Publishes a release under `name` (org/name), tags it `v<version>`, returns the revision. Idempotent."""
    release = read_release(folder).release
    revision = hub.publish(folder, name, message=f"{release.name} {release.version}")
    hub.tag(name, revision, f"v{release.version}")
    return revision


def download_release(
    hub: Hub,
    name: str,
    reference: str,
    into: Path,
    verify: Verify,
    *,
    trainer: str | None = None,
    max_bytes: int = MAX_RELEASE_BYTES,
) -> Release:
    """Fetches a tag, branch or revision of `name`, verifies it, and only then calls it `into`.

    After an interruption the same call goes on where it stopped. Raises Conflict if `into` exists, and what the hub and
    `verify_release` raise.
    """
    if into.exists():
        raise Conflict(f"{into} exists", remedy="remove it or choose another folder")
    revision = reference if _REVISION.fullmatch(reference) else hub.resolve(name, reference)
    partial = into.with_name(f".{into.name}.{revision[:12]}.part")
    hub.fetch(name, revision, partial, max_bytes=max_bytes)
    release = verify_release(partial, verify, trainer=trainer)
    partial.rename(into)
    return release
