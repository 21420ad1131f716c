import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest

from athena.judge.gates.containment import containment
from athena.refine.recipe import Document, Page, Recipe, Rejected, load_recipe, recipe_names
from athena.refine.records import Record, read_records, visible_text
from athena.refine.steps.extraction import Extraction, VisibleText
from athena.refine.steps.extractors import FirstPassing, JusTextExtraction, ResiliparseExtraction


def page(html="", text=""):
    record = Record("x", 0, 1, "<urn:uuid:1>", "http://a.example/", "", "sha1:" + "A" * 32, None, b"", bool(text))
    return Page(record, html, text)


@dataclass(frozen=True)
class Says:
    name: ClassVar[str] = "says"
    text: str

    def apply(self, page: Page) -> Page | Rejected:
        return dataclasses.replace(page, text=page.text + self.text)


@dataclass(frozen=True)
class Longer:
    name: ClassVar[str] = "longer"
    chars: int

    def apply(self, page: Page) -> Page | Rejected:
        return page if len(page.text) > self.chars else Rejected(f"{self.name}.{self.chars}")


@pytest.mark.parametrize("step", [ResiliparseExtraction(), JusTextExtraction()])
def test_an_extractor_takes_the_text_and_leaves_the_frame(step, html_page, prose):
    text = step.apply(page(html_page(prose(1)).decode())).text
    assert all(paragraph in text for paragraph in prose(1))
    assert "Section 3" not in text
    assert step.apply(page("<html><body></body></html>")) == Rejected(f"{step.name}.empty")
    assert step.apply(page(text="As it is.")).text == "As it is."


def test_what_a_page_does_not_show_is_left_out(prose):
    listed = "".join(f"<li>{paragraph}</li>" for paragraph in prose(1))
    markup = f"<html><body><main><ol>{listed}</ol><img alt='never seen' src=x></main></body></html>"
    lines = ResiliparseExtraction().apply(page(markup)).text.split("\n")
    assert [line.strip() for line in lines] == prose(1)


@pytest.mark.parametrize("html", ["", "<", "\x00" * 50, "<html>", "<table>" * 5000, "<p>a&#xD800;b &#55357; end" * 9])
def test_broken_markup_is_rejected_not_raised(html):
    for step in (ResiliparseExtraction(), JusTextExtraction()):
        result = step.apply(page(html))
        assert isinstance(result, Rejected) or result.text.encode()
        assert step.apply(page("<p>x" * 10**6)) == Rejected(f"{step.name}.overloaded")


def test_the_first_branch_that_passes_is_taken():
    short, long = (Says("ab"), Longer(3)), (Says("abcdef"), Longer(3))
    assert FirstPassing(branches=(short, long, (Says("z"),))).apply(page()).text == "abcdef"
    assert FirstPassing(branches=(long, short)).apply(page()).text == "abcdef"
    assert FirstPassing(branches=(short, (Says("x"), Longer(9)))).apply(page()) == Rejected("longer.3", "ab")
    recipe = Recipe("a", "1", (FirstPassing(branches=(short,)),))
    assert recipe.process(page().record) == Rejected("longer.3", "ab")


def test_the_hash_covers_the_steps_inside_a_branch():
    def hash_of(*branches):
        return Recipe("a", "1", (FirstPassing(branches=branches),)).hash

    distinct = {
        hash_of((Extraction(),)),
        hash_of((ResiliparseExtraction(),)),
        hash_of((VisibleText(),)),  # as free of fields as the one before
        hash_of((VisibleText(), Longer(3))),
        hash_of((VisibleText(), Longer(4))),
        hash_of((VisibleText(),), (Longer(4),)),
        hash_of((Longer(4),), (VisibleText(),)),
    }
    assert len(distinct) == 7
    assert hash_of((VisibleText(), Longer(4))) in distinct


def test_every_recipe_of_the_package_is_listed_under_its_name():
    assert {"fineweb-1", "resiliparse-1", "strict-1", "unfiltered-1", "union-1"} <= set(recipe_names())
    for name in ("resiliparse-1", "union-1"):
        assert load_recipe(name).name == name


def _rows(folder, names, stride):
    """(record, row under each recipe, None for a rejected page), every `stride`th page of real files."""
    recipes = [load_recipe(name) for name in ("fineweb-1", "resiliparse-1", "union-1")]
    for name in names:
        with (folder / name).open("rb") as file:
            for index, record in enumerate(read_records(file, name)):
                if index % stride == 0:
                    results = [recipe.process(record) for recipe in recipes]
                    yield record, [r.row if isinstance(r, Document) else None for r in results]


def _check_real_rows(rows):
    """What a validator asks of rows, and that the union holds all that the canonical recipe keeps, unchanged."""
    kept, shares = [0, 0, 0], []
    for record, found in rows:
        canonical, _, union = found
        assert canonical is None or canonical == union
        kept = [count + (row is not None) for count, row in zip(kept, found, strict=True)]
        shares += [containment(row["text"], visible_text(record)) for row in found[1:] if row is not None]
    return kept, shares


def test_real_rows_of_both_recipes_are_found_in_their_pages(test_data):
    files = ("warc/ukwa-govuk1.warc.gz", "warc/resiliparse-warcfile.warc.gz", "warc/dolma-sample-0001.warc.gz")
    kept, shares = _check_real_rows(_rows(test_data, files, stride=3))
    assert kept[2] > kept[0] > 5
    assert min(shares) >= 0.8


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_at_most_one_real_row_in_a_thousand_is_not_found_in_its_page(test_data):
    files = [f"extraction/{name}/pages.warc.gz" for name in ("wcxb-dev", "scrapinghub", "readability")]
    kept, shares = _check_real_rows(_rows(test_data, files, stride=6))
    assert kept[2] > 1.15 * kept[0]
    assert sum(share < 0.8 for share in shares) <= len(shares) / 1000
