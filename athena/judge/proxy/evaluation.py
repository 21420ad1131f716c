"""What an arm is measured on, as windows of tokens: evaluation documents and right choices of cloze items. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from athena.durable import write_file
from athena.evalpack import ClozeItem, EvalDocument
from athena.judge.proxy.texts import Ids, token_bytes, tokenize
from athena.judge.rules import ProxyRules
from athena.refine.text.bpe import END_OF_TEXT_ID


@dataclass(frozen=True)
class _Part:
    """Tokens of one document: `context` is read, `counted` is measured."""

    domain: str
    context: Ids
    counted: Ids

    def windows(self, length: int) -> Iterator[tuple[Ids, int, int]]:
        """int32 [length + 1], padded, and the range of its targets that count. They cover `counted` once."""
        stream = np.concatenate(([END_OF_TEXT_ID], self.context, self.counted)).astype(np.int32)
        for start in range(0, len(stream) - 1, length):
            window = stream[start : start + length + 1]
            padded = np.full(length + 1, END_OF_TEXT_ID, dtype=np.int32)
            padded[: len(window)] = window
            yield padded, max(0, len(self.context) - start), len(window) - 1


@dataclass(frozen=True)
class EvalSet:
    """Windows int32 [n, length + 1]; of window i the targets from `starts[i]` up to `ends[i]` count towards document
    `document_of[i]`.

    `domain_of` holds each document's index in `domains`, `bytes` the UTF-8 bytes of all its counted targets.
    """

    domains: tuple[str, ...]
    domain_of: Ids
    bytes: Ids
    windows: Ids
    starts: Ids
    ends: Ids
    document_of: Ids

    @classmethod
    def of(cls, documents: Sequence[EvalDocument], rules: ProxyRules, cloze: Sequence[ClozeItem] = ()) -> Self:
        """Each document's first `windows_per_document` windows, without the tokens that it opens with.

        The right choice of each cloze item, after as much of its context as fits into the same window, is a document of
        the domain `cloze-<domain>`.
        """
        parts = [*_texts(documents, rules), *_right_choices(cloze, rules)]
        domains = tuple(sorted({part.domain for part in parts}))
        sizes = token_bytes(rules.vocab_size)
        windows, starts, ends = zip(*(window for part in parts for window in part.windows(rules.length)), strict=True)
        owners = [number for number, part in enumerate(parts) for _ in part.windows(rules.length)]
        return cls(
            domains=domains,
            domain_of=_ids([domains.index(part.domain) for part in parts]),
            bytes=_ids([sizes[part.counted].sum() for part in parts]),
            windows=np.stack(windows),
            starts=_ids(starts),
            ends=_ids(ends),
            document_of=_ids(owners),
        )

    def save(self, path: Path) -> None:
        arrays = {f.name: getattr(self, f.name).tolist() for f in fields(self) if f.name != "domains"}
        write_file(path, json.dumps({"domains": self.domains, **arrays}).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        saved = json.loads(path.read_bytes())
        return cls(tuple(saved.pop("domains")), **{name: _ids(values) for name, values in saved.items()})


def _texts(documents: Sequence[EvalDocument], rules: ProxyRules) -> Iterator[_Part]:
    most = rules.windows_per_document * rules.length
    for document, ids in zip(documents, tokenize([d.text for d in documents], rules.vocab_size), strict=True):
        read = ids[:most]
        opening = min(rules.opening_tokens, len(read) // 2)
        yield _Part(document.domain, read[:opening], read[opening:])


def _right_choices(items: Sequence[ClozeItem], rules: ProxyRules) -> Iterator[_Part]:
    contexts = tokenize([item.context for item in items], rules.vocab_size)
    choices = tokenize([item.choices[item.answer] for item in items], rules.vocab_size)
    for item, context, choice in zip(items, contexts, choices, strict=True):
        counted = choice[: rules.length]
        room = rules.length - len(counted)
        yield _Part(f"cloze-{item.domain}", context[len(context) - min(room, len(context)) :], counted)


def _ids(values: Sequence[object]) -> Ids:
    return np.array(values, dtype=np.int32)
