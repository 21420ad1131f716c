"""Real sentences in languages other than English: the examples that spaCy ships for the languages it knows."""

from __future__ import annotations

import ast
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_MIN_CHARACTERS = 300
_NOT_ONE_LANGUAGE = {"en", "xx"}


@cache
def foreign_sentences() -> dict[str, tuple[str, ...]]:
    """Sentences by ISO 639 code, of every language with enough of them; empty where spaCy is not installed."""
    try:
        installed = distribution("spacy")
    except PackageNotFoundError:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for file in sorted(installed.files or ()):
        if not file.match("spacy/lang/*/examples.py"):
            continue
        sentences = _literal_sentences(Path(str(file.locate())).read_text("utf-8"))
        if file.parts[2] not in _NOT_ONE_LANGUAGE and sum(map(len, sentences)) >= _MIN_CHARACTERS:
            found[file.parts[2]] = sentences
    return found


def _literal_sentences(source: str) -> tuple[str, ...]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            return tuple(item for item in ast.literal_eval(node.value) if isinstance(item, str))
    return ()
