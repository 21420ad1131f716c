"""The console commands that show recipes and train the quality classifier of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from athena.errors import Misconfigured

if TYPE_CHECKING:
    from athena.refine.recipe import Recipe

app = typer.Typer(
    name="recipe",
    help="Show recipes, and train the quality classifier that a recipe may ask for.",
    no_args_is_help=True,
)


@app.command("list")
def list_recipes() -> None:
    """List the recipes of this package with their versions and hashes.

    Example: athena recipe list
    """
    import importlib

    from athena.cli_output import cell, note, print_table, table_of
    from athena.refine.recipe import load_recipe, recipe_names

    table = table_of("recipe", "version", "hash", "what it is")
    missing = []
    for name in recipe_names():
        recipe = load_recipe(name)
        summary = importlib.import_module(f"athena.refine.recipes.{name.replace('-', '_')}").__doc__ or ""
        first_line = summary.partition("\n")[0].partition(": ")[2]
        digest = _hash(recipe)
        if digest is None:
            missing.append(name)
        table.add_row(*(cell(value) for value in (name, recipe.version, digest, first_line)))
    print_table(table)
    if missing:
        note(f"no hash for {', '.join(missing)}: a model is missing; see athena recipe train-classifier")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="Recipe name, or a Python file that defines RECIPE.")],
) -> None:
    """Show the steps of a recipe in their order, with every threshold.

    Example: athena recipe show fineweb-1
    """
    from athena.cli_output import cell, print_table, table_of
    from athena.refine.recipe import load_recipe

    loaded = load_recipe(recipe)
    typer.echo(f"{loaded.name}, version {loaded.version}, hash {_hash(loaded) or 'not known: a model is missing'}")
    table = table_of("", "step", "threshold", "value")
    for row in _rows(loaded.steps):
        table.add_row(*(cell(value) for value in row))
    print_table(table)


@app.command()
def train_classifier(
    labelled: Annotated[
        Path, typer.Argument(help='Lines of {"text": …, "label": 0 or 1}; 1 is good.', exists=True, dir_okay=False)
    ],
    out: Annotated[Path | None, typer.Option(help="File of the model; the one that edu-1 reads by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of what is held out.")] = 0,
) -> None:
    """Train a quality classifier on texts that people labelled good or bad, and say how it does on held-out ones.

    Example: athena recipe train-classifier labelled.jsonl --out quality.safetensors
    """
    import numpy as np

    from athena.cli_output import counted, note, progress
    from athena.durable import sha256_of
    from athena.refine.steps.classifier import DEFAULT_MODEL, save_model
    from athena.refine.steps.classifier_training import labelled_features, train

    rows = list(counted(lambda: labelled_features(labelled), "reading texts"))
    labels = np.array([good for _, good in rows], dtype=bool)
    with progress("fitting"):
        model, held_out = train([text for text, _ in rows], labels, seed)
    path = out or DEFAULT_MODEL
    save_model(model, path)
    note(f"{len(rows):,} texts, {int(labels.sum()):,} of them good; {held_out.texts:,} held out")
    typer.echo(
        f"balanced accuracy {held_out.balanced_accuracy:.3f} on held-out texts: "
        f"keeps {held_out.good_kept:.1%} of the good, {held_out.bad_kept:.1%} of the bad"
    )
    typer.echo(f"{path}  sha256 {sha256_of(path)}")


def _hash(recipe: Recipe) -> str | None:
    """None where a model of the recipe is not on this machine."""
    try:
        return recipe.hash
    except Misconfigured:
        return None


def _rows(steps: Iterable[Any], outer: str = "") -> Iterator[tuple[str, str, str, object]]:
    """(place, step, threshold, value), place and step on the first line of each step; steps inside follow theirs."""
    for number, step in enumerate(steps, 1):
        place = f"{outer}{number}"
        if isinstance(step, tuple):
            yield from _rows(step, f"{place}.")
            continue
        head = (place, step.name)
        inner: list[Any] = []
        for field in dataclasses.fields(step):
            value = getattr(step, field.name)
            if _holds_steps(value):
                inner.extend(value)
            else:
                yield *head, field.name, value
                head = ("", "")
        if head[0]:
            yield *head, "", ""
        yield from _rows(inner, f"{place}.")


def _holds_steps(value: object) -> bool:
    return dataclasses.is_dataclass(value) or (isinstance(value, tuple) and any(map(_holds_steps, value)))
