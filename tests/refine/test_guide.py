"""The recipe file and the step that docs/recipes.md shows do what it says they do."""

import re
from io import BytesIO
from pathlib import Path

from athena.refine.recipe import Document, Rejected, load_recipe
from athena.refine.records import read_records

GUIDE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_the_recipe_of_the_guide_keeps_long_pages_and_drops_short_ones(tmp_path, prose, html_page, warc):
    (source,) = (example for example in EXAMPLES if "RECIPE = " in example)
    path = tmp_path / "my_recipe.py"
    path.write_text(source)
    recipe = load_recipe(str(path))
    long, short = prose(1), [" ".join(prose(2)[:2])[:480] + "."]
    pages = [("http://a.example/long", html_page(long)), ("http://a.example/short", html_page(short, "x"))]
    kept, dropped = map(recipe.process, read_records(BytesIO(warc(pages)), "a.warc.gz"))
    assert isinstance(kept, Document) and long[-1] in kept.row["text"]
    assert isinstance(dropped, Rejected) and dropped.reason == "long-enough"


def test_the_step_of_the_guide_names_its_model_and_threshold():
    (source,) = (example for example in EXAMPLES if "QualityClassifier(" in example)
    names: dict[str, object] = {}
    exec(source, names)
    assert names["step"].threshold == 0.7 and str(names["step"].model) == "my-model.safetensors"
