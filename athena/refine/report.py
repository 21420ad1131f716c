"""What a refinement did, for people: one HTML page."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from athena.durable import write_file
from athena.errors import BadInput
from athena.page import render
from athena.protocol import Manifest
from athena.refine.assembly import DUPLICATE
from athena.refine.flow import Flow
from athena.refine.recipe import Recipe

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_MOST_SHOWN = 20  # languages, hosts
_AT_THE_END = ("empty", DUPLICATE)
_NO_VERDICT = "none."
_NO_HOST = "(no host)"


@dataclass(frozen=True)
class Stage:
    """A step of the recipe, or what stands before and behind the steps: records in, dropped by each rule, and out."""

    name: str
    settings: str
    entering: int
    reasons: tuple[tuple[str, int], ...]

    @property
    def dropped(self) -> int:
        return sum(count for _, count in self.reasons)

    @property
    def leaving(self) -> int:
        return self.entering - self.dropped


@dataclass(frozen=True)
class Group:
    """Kept documents that have something in common, and their tokens."""

    label: str
    rows: int
    tokens: int


def write_report(path: Path, *, manifest: Manifest, recipe: Recipe, table: pa.Table, flow: Flow) -> None:
    """Writes the report of a dataset with ROW_SCHEMA rows to `path`; the same arguments give the same bytes.

    Raises BadInput where recipe, rows or flow are not those that the manifest counts.
    """
    if recipe.ref != manifest.recipe:
        raise BadInput(f"the dataset was made by {manifest.recipe.name}, not by this {recipe.name}")
    if flow.counts != manifest.rejected or table.num_rows != manifest.rows:
        raise BadInput("the flow or the rows are not those that the manifest counts")
    flow_stages = stages(recipe, flow.counts, manifest.records)
    page = render(
        _TEMPLATE,
        manifest=manifest,
        recipe=recipe,
        flow=flow,
        stages=flow_stages,
        examples=[(r, flow.examples[r]) for s in flow_stages for r, _ in s.reasons if flow.examples.get(r)],
        lengths=_by_length(table),
        languages=_largest(_grouped(table, table["language"].to_pylist())),
        hosts=_largest(_grouped(table, map(_host, table["url"].to_pylist()))),
    )
    write_file(path, page)


def stages(recipe: Recipe, counts: Mapping[str, int], records: int) -> list[Stage]:
    """The records' way through the recipe. What leaves the last stage is what was kept."""
    steps: list[tuple[str, str, set[str]]] = []
    for step in recipe.steps:
        if step.name not in (name for name, _, _ in steps):
            steps.append((step.name, _settings(step), {step.name, *_inner_names(step)}))
    reasons_of: dict[str, list[tuple[str, int]]] = {}
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        reasons_of.setdefault(_stage_of(reason, steps), []).append((reason, count))
    rows = [("reading", "what the input holds besides documents", "reading"), ("no verdict", "", _NO_VERDICT)]
    rows += [(name, settings, name) for name, settings, _ in steps]
    rows += [("near-duplicates and empty texts", "", DUPLICATE)]
    result: list[Stage] = []
    entering = records
    for name, settings, key in rows:
        stage = Stage(name, settings, entering, tuple(reasons_of.get(key, ())))
        if stage.reasons or key != _NO_VERDICT:
            result.append(stage)
            entering = stage.leaving
    return result


def _stage_of(reason: str, steps: Iterable[tuple[str, str, set[str]]]) -> str:
    if reason in _AT_THE_END:
        return DUPLICATE
    if reason.startswith(_NO_VERDICT):
        return _NO_VERDICT
    name = reason.split(".", 1)[0]
    return next((step for step, _, names in steps if name in names), "reading")


def _settings(step: Any) -> str:
    """The thresholds of a step, as its class spells them; of a step made of steps, their names."""
    return ", ".join(
        f"{field.name} {json.dumps(_plain(getattr(step, field.name)), ensure_ascii=False)}"
        for field in dataclasses.fields(step)
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return getattr(value, "name", type(value).__name__)
    if isinstance(value, Path):
        return value.name
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _inner_names(value: Any) -> Iterable[str]:
    """Names of the steps inside a step's fields."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from _inner_names(item)
    elif dataclasses.is_dataclass(value):
        if isinstance(name := getattr(value, "name", None), str):
            yield name
        for field in dataclasses.fields(value):
            yield from _inner_names(getattr(value, field.name))


def _grouped(table: pa.Table, labels: Iterable[str]) -> list[Group]:
    rows: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for label, count in zip(labels, table["token_count"].to_pylist(), strict=True):
        rows[label] += 1
        tokens[label] += count
    return [Group(label, rows[label], tokens[label]) for label in rows]


def _largest(groups: list[Group]) -> list[Group]:
    """The largest, by rows and then by name, and all others as one."""
    ordered = sorted(groups, key=lambda group: (-group.rows, group.label))
    rest = ordered[_MOST_SHOWN:]
    others = Group(f"{len(rest):,} others", sum(g.rows for g in rest), sum(g.tokens for g in rest))
    return ordered[:_MOST_SHOWN] + ([others] if rest else [])


def _by_length(table: pa.Table) -> list[Group]:
    """By powers of two, from the shortest document to the longest, without a gap."""
    found = {int(g.label): g for g in _grouped(table, (str(n.bit_length()) for n in table["token_count"].to_pylist()))}
    return [
        Group(
            f"{(1 << bits) >> 1:,} to {(1 << bits) - 1:,}", *((g.rows, g.tokens) if (g := found.get(bits)) else (0, 0))
        )
        for bits in (range(min(found), max(found) + 1) if found else ())
    ]


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or _NO_HOST
    except ValueError:
        return _NO_HOST
