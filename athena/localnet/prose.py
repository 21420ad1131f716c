"""Real prose on this machine: the documentation that comes with Athena's own dependencies, cleaned to paragraphs.

Nothing is imported or executed: files are read as text. What is found depends only on the versions installed, so the
lock file fixes it. The prose stays on the machine: pages made of it are captured, judged and trained on locally.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

MAX_SOURCE_BYTES = 16 * 2**20
"""Read per package: the largest ones hold far more than a crawl of some hundred pages needs."""
MAX_FILE_BYTES = 2**20
MIN_PARAGRAPH_WORDS = 16
_MIN_PARAGRAPH_CHARACTERS = 4 * MIN_PARAGRAPH_WORDS  # what is shorter is not worth a closer look

# Documentation strings are found by their quotes and not by parsing: 10 times faster over 100 MB of source, and what
# a quote within a string may let through is dropped with everything else that does not read like a sentence.
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_NOT_PROSE = re.compile(
    r"https?:|www\.|[{}<>|\\=_^$#@~*`\[\]]|\.\.|--|->|::|\w\(|\b(?:e\.g|i\.e|cf)\.$|lorem ipsum|javascript",
    re.IGNORECASE,
)
_NOT_LETTER = re.compile(r"[^ a-zA-Z]")
_MARKUP = (
    (re.compile(r":[\w:+-]+:`~?\.?([^`<]*?)(?:\s*<[^`]*>)?`"), r"\1"),  # reST role
    (re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{1,2}"), r"\1"),  # reST link
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),  # Markdown link
    (re.compile(r"\s*\[[\w#*-]{1,12}\]_"), ""),  # reST citation
    (re.compile(r"``?([^`]*)``?"), r"\1"),
    (re.compile(r"(\*\*|\*|__)(\w[^*]*?)\1"), r"\2"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Section:
    """The prose of one file of a package: paragraphs of whole sentences, in file order."""

    package: str
    title: str
    paragraphs: tuple[str, ...]

    @property
    def words(self) -> int:
        return sum(paragraph.count(" ") + 1 for paragraph in self.paragraphs)


@cache
def installed_prose(packages: tuple[str, ...]) -> tuple[Section, ...]:
    """The prose of those of `packages` that are installed; no paragraph opens like an earlier one of its package.

    Files of a package come in an order drawn by their names, so that a package is sampled evenly where it is cut off.
    """
    found: list[Section] = []
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found += _package_prose(package, distribution(package))
    return tuple(found)


def paragraphs_of(text: str) -> Iterator[str]:
    """The blocks of reST, Markdown or a docstring that are running English text, on one line and without markup."""
    for block in _BLANK_LINE.split(_FENCE.sub("", text)):
        if len(block) < _MIN_PARAGRAPH_CHARACTERS:
            continue
        lines = block.strip("\n").rstrip().split("\n")
        first = lines[0].lstrip()
        # a list, a table, a definition or an indented example is not of one indentation, or does not open a sentence
        if not (first[:1].isupper() or first[:1] in '`:*"') or lines[-1][-1:] not in ".!?`":
            continue
        if len({len(line) - len(line.lstrip()) for line in lines}) > 1:
            continue
        paragraph = " ".join(lines)
        for pattern, plain in _MARKUP:
            paragraph = pattern.sub(plain, paragraph)
        paragraph = paragraph.strip()
        if _reads_like_prose(paragraph):
            yield paragraph


def _reads_like_prose(paragraph: str) -> bool:
    if not paragraph[:1].isupper() or paragraph[-1] not in ".!?" or _NOT_PROSE.search(paragraph):
        return False
    other = len(_NOT_LETTER.findall(paragraph))
    return paragraph.count(" ") >= MIN_PARAGRAPH_WORDS - 1 and other <= 0.1 * len(paragraph)


def _package_prose(package: str, installed: Distribution) -> Iterator[Section]:
    openings: set[str] = set()
    description = inspect.cleandoc(str(installed.metadata.json.get("description", "")))
    yield from _section(package, "about", (description,), openings)
    files = [file for file in installed.files or () if _is_documented(file)]
    budget = MAX_SOURCE_BYTES
    for file in sorted(files, key=lambda file: hashlib.sha256(file.as_posix().encode()).digest()):
        path = Path(str(file.locate()))
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            continue
        budget -= path.stat().st_size
        if budget < 0:
            return
        text = path.read_text("utf-8", "replace")
        texts = _docstrings(text) if file.suffix == ".py" else (text,)
        title = " ".join(part.strip("_") for part in file.with_suffix("").parts[1:]).replace("_", " ")
        yield from _section(package, title.strip() or package, texts, openings)


def _docstrings(source: str) -> Iterator[str]:
    for quoted in _DOCSTRING.findall(source):
        if len(quoted) >= _MIN_PARAGRAPH_CHARACTERS:
            yield inspect.cleandoc(quoted)


def _is_documented(file: PackagePath) -> bool:
    name = file.as_posix().lower()
    if "test" in name or "licen" in name or ".dist-info" in name or name.startswith(("..", "/")):
        return False
    return file.suffix in (".py", ".md", ".rst")


def _section(package: str, title: str, texts: Iterable[str], openings: set[str]) -> Iterator[Section]:
    kept: list[str] = []
    for text in texts:
        for paragraph in paragraphs_of(text):
            opening = " ".join(paragraph.lower().split(" ", 8)[:8])
            if opening not in openings:  # what is written once per class says the same every time
                openings.add(opening)
                kept.append(paragraph)
    if kept:
        yield Section(package, title, tuple(kept))
