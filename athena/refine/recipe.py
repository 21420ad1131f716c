"""A recipe: a name, a version and an ordered list of steps, with a hash over all that decides its output."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol, cast

from athena.durable import sha256_of
from athena.errors import BadInput, Misconfigured, NotFound
from athena.protocol import RecipeRef, canonical_json
from athena.refine.records import Record, decoded
from athena.refine.text import html as markup
from athena.refine.text.bpe import BPE_SHA256, load_tokenizer
from athena.refine.text.language import LID_SHA256
from athena.refine.text.minhash import Signature
from athena.refine.text.url_lists import archive_sha256

# Everything whose version can change a row. Unicode's tables come with Python and decide what a letter is.
_LIBRARIES = (
    "courlan", "datatrove", "fasttext-predict", "fastwarc", "justext", "lxml", "lxml-html-clean", "numpy",
    "phonenumbers", "regex", "resiliparse", "spacy", "tldextract", "tokenizers", "trafilatura",
)  # fmt: skip
_EXCERPT_CHARS = 400
_RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class Page:
    """A document on its way through the steps. `text` is empty until a step extracts it, save for a record of text."""

    record: Record
    html: str
    text: str = ""
    language: str = "und"
    language_score: float = 0.0
    minhash: Signature | None = None

    @cached_property
    def is_overloaded(self) -> bool:
        """Whether its markup is too much for parsers: several steps ask, and it is looked through once."""
        return markup.is_overloaded(self.html)


@dataclass(frozen=True)
class Document:
    """What a recipe makes of a page: a row with the fields of protocol.ROW_FIELDS, and its MinHash signature."""

    row: dict[str, Any]
    minhash: Signature | None


@dataclass(frozen=True)
class Rejected:
    """`reason` is the name of the step, followed by the rule inside it where it has several: `c4-quality.too_short`.

    `excerpt` is the beginning of the text that was rejected, as far as there was any, for people to look at.
    """

    reason: str
    excerpt: str = ""


class Step(Protocol):
    """One step of a recipe: a frozen dataclass whose fields are its thresholds, pure over a page.

    `apply` depends on the page and the fields alone: no clock, network, randomness, or memory of other pages.
    """

    name: ClassVar[str]

    def apply(self, page: Page) -> Page | Rejected: ...


@dataclass(frozen=True)
class Recipe:
    """Steps in order. `source_sha256` is the digest of a recipe file that is not part of this package.

    Can be pickled: without what its steps have loaded, and a recipe file as its absolute `path`, to be read again.
    """

    name: str
    version: str
    steps: Sequence[Step]
    source_sha256: str = ""
    path: str = field(default="", compare=False)

    def __reduce__(self) -> tuple[Callable[..., Recipe], tuple[Any, ...]]:
        if self.path:
            return load_recipe, (self.path,)
        return Recipe, (self.name, self.version, _unused(tuple(self.steps)), self.source_sha256)

    @cached_property
    def hash(self) -> str:
        """sha256 over name, version, steps with thresholds, library versions and model files: 64 hex characters."""
        identity = {
            "name": self.name,
            "version": self.version,
            "source": self.source_sha256,
            "steps": [_settings(step) for step in self.steps],
            "libraries": {library: metadata.version(library) for library in _LIBRARIES},
            "unicode": unicodedata.unidata_version,
            "models": {"lid.176.ftz": LID_SHA256, "bpe-8k.json": BPE_SHA256, "url-lists": archive_sha256()},
        }
        return hashlib.sha256(canonical_json(identity)).hexdigest()

    @property
    def ref(self) -> RecipeRef:
        return RecipeRef(name=self.name, version=self.version, hash=self.hash)

    def process(self, record: Record) -> Document | Rejected:
        """One page through all steps. Depends on the record alone, so any row can be re-derived from its byte range.

        A step that looks for duplicates only signs the page: who is first is known once the whole shard is signed.
        """
        try:
            characters = decoded(record)
        except BadInput:
            return Rejected("undecodable")
        page = Page(record, html="", text=characters) if record.is_text else Page(record, html=characters)
        for step in self.steps:
            result = step.apply(page)
            if isinstance(result, Rejected):
                return dataclasses.replace(result, excerpt=(result.excerpt or page.text)[:_EXCERPT_CHARS])
            page = result
        return Document(_row(page), page.minhash) if page.text else Rejected("empty")


def _row(page: Page) -> dict[str, Any]:
    record = page.record
    return {
        "text": page.text,
        "url": record.url,
        "date": record.date,
        "language": page.language,
        "language_score": page.language_score,
        "token_count": len(load_tokenizer().encode(page.text).ids),
        "warc_path": record.warc_path,
        "warc_offset": record.offset,
        "warc_length": record.length,
        "record_id": record.record_id,
        "payload_digest": record.payload_digest,
    }


def _settings(step: Any) -> Any:
    """[name, fields] of a step. A field may hold steps of its own, in tuples; a path stands for the file's sha256."""
    if not dataclasses.is_dataclass(step) or isinstance(step, type):
        raise Misconfigured(f"step {step!r} is not a dataclass", remedy="make its thresholds dataclass fields")
    fields = {field.name: _plain(getattr(step, field.name)) for field in dataclasses.fields(step)}
    return [cast(Step, step).name, fields]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _settings(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return {"sha256": _sha256_of(value)}
    return json.loads(json.dumps(value))


def _sha256_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise Misconfigured(
            f"a step needs the file {path}: {error.strerror}",
            remedy="`athena recipe train-classifier` makes the one of edu-1; other recipes name their own",
        ) from error


def _unused(value: Any) -> Any:
    """A step as it was before it loaded anything, or a tuple of such."""
    if isinstance(value, tuple):
        return tuple(_unused(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _unused(getattr(value, f.name)) for f in dataclasses.fields(value)})
    return value


def recipe_names() -> list[str]:
    """The recipes of this package, sorted: one for each file in recipes/."""
    return sorted(path.stem.replace("_", "-") for path in _RECIPES.glob("[a-z]*.py"))


def load_recipe(spec: str) -> Recipe:
    """One of `recipe_names()`, or the path of a .py file that defines RECIPE.

    Such a file runs with all rights of this process: give only files of your own. Raises NotFound or BadInput.
    """
    if spec.endswith(".py"):
        return _load_file(Path(spec))
    if spec in recipe_names():
        return _recipe_of(importlib.import_module(f"athena.refine.recipes.{spec.replace('-', '_')}"), spec)
    raise NotFound(f"no recipe {spec}", remedy=f"use {', '.join(recipe_names())} or the path of a .py file")


def _load_file(path: Path) -> Recipe:
    if not path.is_file():
        raise NotFound(f"no recipe file {path}")
    source = path.read_bytes()  # once: what runs is what is hashed, whatever lies in a cache or is written meanwhile
    module = ModuleType(f"athena_recipe_{path.stem}")
    module.__file__ = str(path)
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    recipe = _recipe_of(module, str(path))
    digest = hashlib.sha256(source).hexdigest()
    return dataclasses.replace(recipe, source_sha256=digest, path=str(path.resolve()))


def _recipe_of(module: Any, spec: str) -> Recipe:
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise BadInput(f"{spec} defines no RECIPE", remedy="define RECIPE = Recipe(name, version, steps)")
    return recipe
