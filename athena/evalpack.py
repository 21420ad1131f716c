"""The ruler's texts: a published pool of evaluation documents and cloze items, which submissions may not contain.

A pack is a folder: `documents.jsonl` and, where it has any, `cloze.jsonl` (one noun a line), and `pack.json`, which
names their sha256. No torch here: the contamination gate and a miner's dry run read packs too.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from athena import draw
from athena.durable import write_file
from athena.errors import BadInput, Misconfigured, NotFound, TooLarge
from athena.protocol import Hex64, Noun

INFO_FILE, DOCUMENTS_FILE, CLOZE_FILE = "pack.json", "documents.jsonl", "cloze.jsonl"
MAX_INFO_BYTES = 64 * 2**10
MAX_PACK_BYTES = 512 * 2**20
MAX_CLOZE_BYTES = 64 * 2**20
MAX_PACKS = 64
MAX_CHOICES = 8
EVALUATION_SEED = b"athena-evaluation/1"
"""Draws the documents that releases are measured on."""

ItemId = Annotated[str, StringConstraints(min_length=1, max_length=300)]
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Passage = Annotated[str, StringConstraints(min_length=1, max_length=2**20)]
Count = Annotated[int, Field(ge=0, le=2**40)]


class EvalDocument(Noun):
    id: ItemId
    domain: Domain
    text: Passage


class ClozeItem(Noun):
    """A text that goes on in one right way: `context + choices[answer]`, choices with the white space before them."""

    id: ItemId
    domain: Domain
    context: Passage
    choices: Annotated[tuple[Passage, ...], Field(min_length=2, max_length=MAX_CHOICES)]
    answer: Count

    @model_validator(mode="after")
    def _one_is_right(self) -> Self:
        if self.answer >= len(self.choices) or len(set(self.choices)) != len(self.choices):
            raise ValueError("the answer is to be one of distinct choices")
        return self


class PackInfo(Noun):
    """pack.json. The pack is in use from `activation_block` on and before `expiry_block`.

    `sealed` is the hash of its other half, of the same making, which nobody may see before it expires.
    """

    format: Literal["athena-eval-pack/1"] = "athena-eval-pack/1"
    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    version: Annotated[int, Field(ge=1, le=2**31)] = 1
    half: Literal["public", "sealed"] = "public"
    activation_block: Count = 0
    expiry_block: Count | None = None
    domains: Annotated[tuple[Domain, ...], Field(max_length=256)]
    documents: Annotated[int, Field(ge=1)]
    sha256: Hex64
    cloze: Count = 0
    cloze_sha256: Hex64 | None = None
    sealed: Hex64 | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.cloze == 0) != (self.cloze_sha256 is None):
            raise ValueError("cloze items and their sha256 come together")
        if self.expiry_block is not None and self.expiry_block <= self.activation_block:
            raise ValueError("the pack expires before it is in use")
        if self.half == "sealed" and self.sealed is not None:
            raise ValueError("a sealed half has no sealed half")
        return self

    def in_use(self, block: int) -> bool:
        return self.activation_block <= block and (self.expiry_block is None or block < self.expiry_block)


class EvalPack:
    """An evaluation pack in memory."""

    def __init__(self, info: PackInfo, documents: tuple[EvalDocument, ...], cloze: tuple[ClozeItem, ...] = ()) -> None:
        self.info = info
        self.documents = documents
        self.cloze = cloze

    @cached_property
    def hash(self) -> str:
        """Identifies the whole pack in every score sheet and release: sha256 of the canonical pack.json, which names
        the sha256 of all else; 64 hex characters."""
        return self.info.digest()

    @cached_property
    def by_domain(self) -> dict[str, tuple[EvalDocument, ...]]:
        return _by_domain(self.documents)

    @cached_property
    def cloze_by_domain(self) -> dict[str, tuple[ClozeItem, ...]]:
        return _by_domain(self.cloze)

    def texts(self) -> Iterator[str]:
        """All that a submission may not quote: the documents, and each cloze item with its right choice."""
        yield from (document.text for document in self.documents)
        yield from (item.context + item.choices[item.answer] for item in self.cloze)

    def draw(self, seed: bytes, per_domain: int) -> list[EvalDocument]:
        """`per_domain` documents of every domain (all, where there are fewer), drawn by `seed`."""
        return _draw(self.by_domain, seed, per_domain)

    def draw_cloze(self, seed: bytes, per_domain: int) -> list[ClozeItem]:
        """`per_domain` cloze items of every domain that has some (all, where there are fewer), drawn by `seed`."""
        return _draw(self.cloze_by_domain, seed + b"cloze", per_domain)


Item = TypeVar("Item", EvalDocument, ClozeItem)


def _by_domain(items: Iterable[Item]) -> dict[str, tuple[Item, ...]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.domain].append(item)
    return {domain: tuple(groups[domain]) for domain in sorted(groups)}


def _draw(by_domain: Mapping[str, Sequence[Item]], seed: bytes, per_domain: int) -> list[Item]:
    drawn: list[Item] = []
    for index, items in enumerate(by_domain.values()):
        domain_seed = hashlib.blake2b(seed + index.to_bytes(4, "big"), digest_size=32).digest()
        drawn += [items[i] for i in draw.sample(domain_seed, len(items), per_domain)]
    return drawn


def write_pack(
    folder: Path,
    name: str,
    documents: Iterable[EvalDocument],
    cloze: Iterable[ClozeItem] = (),
    *,
    version: int = 1,
    half: Literal["public", "sealed"] = "public",
    activation_block: int = 0,
    expiry_block: int | None = None,
    sealed: str | None = None,
) -> EvalPack:
    """Writes a pack (pack.json last, renamed into place) and returns it. Same arguments, same bytes.

    Raises BadInput where the parts do not make a pack, such as two documents with one id.
    """
    ordered, items = _ordered(documents), _ordered(cloze)
    body, cloze_body = _lines(ordered), _lines(items)
    try:
        info = PackInfo(
            name=name,
            version=version,
            half=half,
            activation_block=activation_block,
            expiry_block=expiry_block,
            domains=tuple(sorted({document.domain for document in ordered})),
            documents=len(ordered),
            sha256=hashlib.sha256(body).hexdigest(),
            cloze=len(items),
            cloze_sha256=hashlib.sha256(cloze_body).hexdigest() if items else None,
            sealed=sealed,
        )
    except ValidationError as error:
        raise BadInput(f"not an evaluation pack: {error}") from error
    pack = EvalPack(info, ordered, items)
    _check_parts(pack, folder)
    (folder / INFO_FILE).unlink(missing_ok=True)  # an interrupted rewrite leaves no pack rather than a wrong one
    write_file(folder / DOCUMENTS_FILE, body)
    if items:
        write_file(folder / CLOZE_FILE, cloze_body)
    write_file(folder / INFO_FILE, info.canonical())
    return pack


def load_pack(folder: Path) -> EvalPack:
    """Reads and checks a pack. Raises NotFound, TooLarge, or BadInput when the bytes are not what pack.json says."""
    info = read_info(folder)
    documents = _read_lines(folder / DOCUMENTS_FILE, MAX_PACK_BYTES, EvalDocument, info.documents, info.sha256)
    cloze: tuple[ClozeItem, ...] = ()
    if info.cloze_sha256 is not None:
        cloze = _read_lines(folder / CLOZE_FILE, MAX_CLOZE_BYTES, ClozeItem, info.cloze, info.cloze_sha256)
    pack = EvalPack(info, documents, cloze)
    _check_parts(pack, folder)
    return pack


def read_info(folder: Path) -> PackInfo:
    """What pack.json says, of which `load_pack` checks the rest. Raises as it does."""
    try:
        return PackInfo.model_validate_json(_read(folder / INFO_FILE, MAX_INFO_BYTES))
    except ValidationError as error:
        raise BadInput(f"{folder} is not an evaluation pack: {error}") from error


def _ordered(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(sorted(items, key=lambda item: (item.domain, item.id)))


def _lines(items: Iterable[Noun]) -> bytes:
    return b"".join(item.canonical() + b"\n" for item in items)


def _read_lines(path: Path, max_bytes: int, kind: type[Item], count: int, sha256: str) -> tuple[Item, ...]:
    body = _read(path, max_bytes)
    if hashlib.sha256(body).hexdigest() != sha256 or body.count(b"\n") != count:
        raise BadInput(f"{path} does not match pack.json", remedy="fetch the pack again")
    try:
        return tuple(kind.model_validate_json(line) for line in body.split(b"\n")[:count])
    except ValidationError as error:
        raise BadInput(f"{path} is not part of an evaluation pack: {error}") from error


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"no evaluation pack in {path.parent}: no {path.name}", remedy="give a folder with a pack.json"
        ) from error
    if len(body) > max_bytes:
        raise TooLarge(f"{path} is over {max_bytes} bytes")
    return body


def _check_parts(pack: EvalPack, folder: Path) -> None:
    if any(domain.startswith("cloze-") for domain in pack.info.domains):
        raise BadInput(f"{folder}: domains that start with cloze- are what scores call cloze items")
    if tuple(pack.by_domain) != pack.info.domains or not pack.cloze_by_domain.keys() <= pack.by_domain.keys():
        raise BadInput(f"{folder}: documents and cloze items are of other domains than pack.json says")
    for ids in ([document.id for document in pack.documents], [item.id for item in pack.cloze]):
        if len(set(ids)) != len(ids):
            raise BadInput(f"{folder}: an id stands for two documents or two cloze items")


class PackShelf:
    """Packs that follow one another: a folder that is a pack, or a folder of such folders. Read anew at every look.

    So a pack can be laid in while nodes run, and all who hold the same packs use the same one at every block.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loading = threading.Lock()
        self._loaded: tuple[EvalPack, ...] = ()  # two: around a change both are asked for

    def infos(self) -> dict[Path, PackInfo]:
        """The packs' folders with what pack.json says, sealed halves included; raises as `read_info` does."""
        if (self._folder / INFO_FILE).exists() or not self._folder.is_dir():
            return {self._folder: read_info(self._folder)}
        folders = sorted(path.parent for path in self._folder.glob(f"*/{INFO_FILE}"))
        if len(folders) > MAX_PACKS:
            raise TooLarge(f"{self._folder} holds over {MAX_PACKS} packs", remedy="remove expired ones")
        return {folder: read_info(folder) for folder in folders}

    def at(self, block: int) -> EvalPack:
        """The pack in use at a block. Raises Misconfigured where there is none, and as `load_pack` does."""
        infos = self.infos()
        info = current(infos.values(), block)
        return self._load(next(folder for folder, found in infos.items() if found == info), info)

    def sealed_half_of(self, public: EvalPack) -> EvalPack | None:
        """The half that a pack promised, if it is here. Raises as `load_pack` does."""
        promised = public.info.sealed
        found = ((folder, info) for folder, info in self.infos().items() if info.digest() == promised)
        here = next(found, None)
        return None if here is None else self._load(*here)

    def _load(self, folder: Path, info: PackInfo) -> EvalPack:
        with self._loading:
            pack = next((pack for pack in self._loaded if pack.info == info), None)
            if pack is None:
                pack = load_pack(folder)
                self._loaded = (pack, *self._loaded[:1])
            return pack


def current(infos: Iterable[PackInfo], block: int) -> PackInfo:
    """The public pack in use at a block: of several the latest to come into use, then that of the highest version.

    Raises Misconfigured where none is.
    """
    in_use = [info for info in infos if info.half == "public" and info.in_use(block)]
    if not in_use:
        raise Misconfigured(
            f"no evaluation pack is in use at block {block}", remedy="put the network's next pack beside the others"
        )
    return max(in_use, key=lambda info: (info.activation_block, info.version, info.digest()))


def check_revealed(public: EvalPack, sealed: EvalPack) -> None:
    """Raises BadInput unless `sealed` is the half that the public one promised, when it was made."""
    if public.info.sealed is None:
        raise BadInput("the pack promises no sealed half")
    if sealed.hash != public.info.sealed:
        raise BadInput(f"the sealed half is {sealed.hash}, and {public.info.sealed} was promised")
