"""The ruler's texts: a published pool of evaluation documents by domain, which submissions may not contain.

A pack is a folder: `documents.jsonl` (one `{"id", "domain", "text"}` a line) and `pack.json`, which names its sha256.
No torch here: the contamination gate and a miner's dry run read packs too.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from athena import draw
from athena.durable import write_file
from athena.errors import BadInput, NotFound, TooLarge
from athena.protocol import Hex64, Noun

MAX_PACK_BYTES = 512 * 2**20


class EvalDocument(Noun):
    id: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    domain: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    text: Annotated[str, StringConstraints(min_length=1)]


class PackInfo(Noun):
    """pack.json."""

    format: Literal["athena-eval-pack/1"] = "athena-eval-pack/1"
    name: str
    domains: tuple[str, ...]
    documents: Annotated[int, Field(ge=1)]
    sha256: Hex64


class EvalPack:
    """An evaluation pack in memory. `hash` (64 hex) identifies it in every score sheet and release."""

    def __init__(self, info: PackInfo, documents: tuple[EvalDocument, ...]) -> None:
        self.info = info
        self.documents = documents

    @property
    def hash(self) -> str:
        return self.info.sha256

    @cached_property
    def by_domain(self) -> dict[str, tuple[EvalDocument, ...]]:
        groups: dict[str, list[EvalDocument]] = defaultdict(list)
        for document in self.documents:
            groups[document.domain].append(document)
        return {domain: tuple(groups[domain]) for domain in sorted(groups)}

    def draw(self, seed: bytes, per_domain: int) -> list[EvalDocument]:
        """`per_domain` documents of every domain (all, where there are fewer), drawn by `seed`."""
        drawn: list[EvalDocument] = []
        for index, documents in enumerate(self.by_domain.values()):
            domain_seed = hashlib.blake2b(seed + index.to_bytes(4, "big"), digest_size=32).digest()
            drawn += [documents[i] for i in draw.sample(domain_seed, len(documents), per_domain)]
        return drawn


def write_pack(folder: Path, name: str, documents: Iterable[EvalDocument]) -> EvalPack:
    """Writes a pack (pack.json last, renamed into place) and returns it. Same documents, same bytes."""
    ordered = tuple(sorted(documents, key=lambda d: (d.domain, d.id)))
    body = b"".join(d.canonical() + b"\n" for d in ordered)
    info = PackInfo(
        name=name,
        domains=tuple(sorted({d.domain for d in ordered})),
        documents=len(ordered),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    write_file(folder / "documents.jsonl", body)
    write_file(folder / "pack.json", info.canonical())
    return EvalPack(info, ordered)


def load_pack(folder: Path) -> EvalPack:
    """Reads and checks a pack. Raises NotFound, TooLarge, or BadInput when the bytes are not what pack.json says."""
    info_file, documents_file = folder / "pack.json", folder / "documents.jsonl"
    if not info_file.exists() or not documents_file.exists():
        raise NotFound(f"no evaluation pack in {folder}", remedy="set eval_pack to a folder with pack.json")
    if documents_file.stat().st_size > MAX_PACK_BYTES:
        raise TooLarge(f"{documents_file} is over {MAX_PACK_BYTES} bytes")
    body = documents_file.read_bytes()
    try:
        info = PackInfo.model_validate_json(info_file.read_bytes())
        documents = tuple(EvalDocument.model_validate(json.loads(line)) for line in body.splitlines())
    except (ValidationError, ValueError) as error:
        raise BadInput(f"{folder} is not an evaluation pack: {error}") from error
    if hashlib.sha256(body).hexdigest() != info.sha256 or len(documents) != info.documents:
        raise BadInput(f"{documents_file} does not match pack.json", remedy="fetch the pack again")
    return EvalPack(info, documents)
