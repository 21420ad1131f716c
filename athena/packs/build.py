"""A new evaluation pack of given texts, in two halves: one to publish, and one to keep sealed until it expires."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from athena import draw
from athena.errors import BadInput
from athena.evalpack import EvalDocument, EvalPack, write_pack
from athena.packs.cloze import cloze_items
from athena.packs.passages import Fresh, passages
from athena.packs.sources import SourceText

MIN_DOMAINS = 8
MIN_DOCUMENTS = 16
"""Of a domain in each half; one with fewer is left out."""
MAX_PASSAGES_PER_TEXT = 16
"""Drawn ones, so that a book does not make a domain."""
_MAX_SOURCE_CHARS = 160


@dataclass(frozen=True)
class Plan:
    """What a new pack is to be. `seed` decides all draws; whoever has it and the texts can make the sealed half."""

    name: str
    seed: bytes
    version: int = 1
    activation_block: int = 0
    expiry_block: int | None = None
    min_domains: int = MIN_DOMAINS
    max_documents: int = 512
    """Of a domain in each half."""


@dataclass(frozen=True)
class Built:
    """Both halves, how many passages were refused for which reason, and the domains left out with their documents."""

    public: EvalPack
    sealed: EvalPack
    refused: Counter[str]
    left_out: dict[str, int]


@dataclass
class _Halves:
    """The documents of one domain."""

    public: list[EvalDocument] = field(default_factory=list)
    sealed: list[EvalDocument] = field(default_factory=list)

    @property
    def smaller(self) -> list[EvalDocument]:
        return self.public if len(self.public) <= len(self.sealed) else self.sealed


def build_packs(
    texts: Iterable[SourceText], public: Path, sealed: Path, plan: Plan, earlier: Sequence[EvalPack] = ()
) -> Built:
    """Writes the halves of a pack to two folders, the sealed one first. Same texts and plan, same bytes.

    All passages of a text go to one half, and no two passages share 13 words in a row, whichever half they are in;
    nor does one with a pack of `earlier`. Raises BadInput where too few domains have enough documents.
    """
    by_domain: dict[str, list[SourceText]] = defaultdict(list)
    for text in texts:
        by_domain[text.domain].append(text)
    fresh, refused = Fresh(), Counter[str]()
    for old in earlier:
        for known in old.texts():
            fresh.knows(known)
    halves = {domain: _divide(by_domain[domain], plan, fresh, refused) for domain in sorted(by_domain)}
    enough = [domain for domain, half in halves.items() if len(half.smaller) >= MIN_DOCUMENTS]
    left_out = {d: len(half.public) + len(half.sealed) for d, half in halves.items() if d not in enough}
    if len(enough) < plan.min_domains:
        raise BadInput(
            f"{len(enough)} domains have {MIN_DOCUMENTS} documents in each half, and {plan.min_domains} are asked for; "
            f"too small: {', '.join(f'{d} ({count})' for d, count in left_out.items()) or 'none'}",
            remedy="give more texts: each goes to one half as a whole",
        )
    kept = [halves[domain] for domain in enough]
    hidden = _write(sealed, [document for half in kept for document in half.sealed], plan, half="sealed")
    shown = _write(public, [document for half in kept for document in half.public], plan, sealed=hidden.hash)
    return Built(shown, hidden, refused, left_out)


def _write(
    folder: Path,
    documents: Sequence[EvalDocument],
    plan: Plan,
    *,
    half: Literal["public", "sealed"] = "public",
    sealed: str | None = None,
) -> EvalPack:
    return write_pack(
        folder,
        plan.name,
        documents,
        cloze_items(documents, plan.seed),
        version=plan.version,
        half=half,
        activation_block=plan.activation_block,
        expiry_block=plan.expiry_block,
        sealed=sealed,
    )


def _divide(texts: Sequence[SourceText], plan: Plan, fresh: Fresh, refused: Counter[str]) -> _Halves:
    """The documents of a domain's texts: each text in drawn order goes to the half that has fewer so far."""
    halves = _Halves()
    for text in sorted(texts, key=lambda text: (_seed(plan, text), text.id, text.text)):
        half = halves.smaller
        if len(half) == plan.max_documents:
            break
        for document in _documents(text, plan):
            reason = "over the limit" if len(half) == plan.max_documents else fresh.refuses(document.text)
            if reason is None:
                half.append(document)
            else:
                refused[reason] += 1
    return halves


def _documents(text: SourceText, plan: Plan) -> Iterator[EvalDocument]:
    pieces = list(passages(text.text))
    for index in sorted(draw.sample(_seed(plan, text), len(pieces), MAX_PASSAGES_PER_TEXT)):
        digest = hashlib.sha256(pieces[index].encode()).hexdigest()
        identity = f"{text.domain}/{text.id[-_MAX_SOURCE_CHARS:]}#{index}-{digest[:16]}"
        yield EvalDocument(id=identity, domain=text.domain, text=pieces[index])


def _seed(plan: Plan, text: SourceText) -> bytes:
    return draw.seed_of(plan.seed.hex(), text.domain, hashlib.sha256(text.text.encode()).hexdigest())
