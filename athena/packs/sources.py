"""Texts that an evaluation pack can be made of: plain text, Markdown and JSON Lines, with the domain of each."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from athena.errors import BadInput, NotFound, TooLarge

TEXT_SUFFIXES = (".txt", ".md")
LINES_SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_TEXT_BYTES = 32 * 2**20
MAX_TOTAL_BYTES = 2**30
"""Texts are held in memory."""


@dataclass(frozen=True)
class SourceText:
    """One whole text. `id` says where it is from: the path below what was given, and the line of a JSON Lines file."""

    id: str
    domain: str
    text: str


class _Line(BaseModel):
    """One line of a JSON Lines file; other fields are passed over."""

    text: str
    domain: str | None = None


def read_texts(paths: Sequence[Path]) -> Iterator[SourceText]:
    """The texts of files, and of all files below folders, in the order of their paths.

    A line's domain is its field `domain`, else the name of its file. Any other file's domain is the first folder below
    the given one that it lies in, else the folder itself. Raises NotFound, BadInput and TooLarge.
    """
    total = 0
    for given in paths:
        for path in _files(given):
            for text in _texts(given, path):
                total += len(text.text)
                if total > MAX_TOTAL_BYTES:
                    raise TooLarge(f"over {MAX_TOTAL_BYTES:,} characters of text", remedy="give fewer texts")
                yield text


def domain_name(name: str) -> str:
    """A name as packs spell domains: lower-case letters, digits and dashes. Raises BadInput where nothing is left."""
    spelled = re.sub(r"[^a-z0-9]+", "-", name.lower())[:64].strip("-")
    if not spelled:
        raise BadInput(f"{name!r} names no domain", remedy="use letters and digits")
    return spelled


def _files(given: Path) -> list[Path]:
    if not given.exists():
        raise NotFound(f"no {given}")
    if not given.is_dir():
        if not given.name.endswith(TEXT_SUFFIXES + LINES_SUFFIXES):
            raise BadInput(f"{given} is neither text nor JSON Lines", remedy="give .txt, .md, .jsonl or .jsonl.gz")
        return [given]
    found = (path for path in given.rglob("*") if path.name.endswith(TEXT_SUFFIXES + LINES_SUFFIXES))
    return sorted(path for path in found if path.is_file())


def _texts(given: Path, path: Path) -> Iterator[SourceText]:
    below = path.relative_to(given) if given.is_dir() else Path(path.name)
    name = f"{given.resolve().name}/{below.as_posix()}" if given.is_dir() else path.name
    if path.name.endswith(LINES_SUFFIXES):
        default = path.name.removesuffix(".gz").removesuffix(".jsonl")
        for number, line in enumerate(_lines(path), 1):
            yield SourceText(f"{name}:{number}", domain_name(line.domain or default), line.text)
        return
    folder = below.parts[0] if len(below.parts) > 1 else path.resolve().parent.name
    with path.open("rb") as file:
        yield SourceText(name, domain_name(folder), _decoded(_capped(file.read(MAX_TEXT_BYTES + 1), path), path))


def _lines(path: Path) -> Iterator[_Line]:
    number = 0
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            while line := file.readline(MAX_TEXT_BYTES + 1):
                number += 1
                if _capped(line, path).strip():
                    yield _Line.model_validate_json(line)
    except (ValidationError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{path}, line {number}: {error}", remedy='write {"domain": …, "text": …} lines') from error


def _capped(content: bytes, path: Path) -> bytes:
    if len(content) > MAX_TEXT_BYTES:
        raise TooLarge(f"{path} has a text over {MAX_TEXT_BYTES:,} bytes", remedy="split it")
    return content


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: {error}", remedy="convert it, or leave it out") from error
