"""`athena recipe`: what there is, what is in it, and a classifier from labelled lines."""

import json

import pytest

from athena.refine.recipe import load_recipe, recipe_names
from athena.refine.steps import classifier


@pytest.fixture
def labelled(tmp_path):
    lines = [
        {"text": f"The town of number {i} keeps a school and a market near the old bridge.", "label": 1}
        if i % 2
        else {"text": f"BUY {i} NOW!!! best deal | login | {i} $$$", "label": 0}
        for i in range(60)
    ]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_list_has_every_recipe_with_its_hash(athena):
    code, out, _ = athena("recipe", "list")
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert code == 0
    assert list(rows) == recipe_names()
    assert load_recipe("de-1").hash in rows["de-1"]
    assert "German" in rows["de-1"]


def test_show_has_every_threshold_and_the_steps_inside_others(athena):
    code, out, _ = athena("recipe", "show", "union-1")
    assert code == 0
    assert load_recipe("union-1").hash in out
    assert "3.1.1" in out and "short_line_thr" in out and "0.67" in out and "minhash" in out
    code, _, err = athena("recipe", "show", "none-1")
    assert code == 1 and "none-1" in err and "fineweb-1" in err


def test_train_classifier_says_how_good_it_is_and_writes_the_same_file_again(athena, labelled, tmp_path):
    out = tmp_path / "models" / "quality.safetensors"
    code, first, err = athena("recipe", "train-classifier", str(labelled), "--out", str(out))
    assert code == 0
    assert "balanced accuracy 1.000" in first and "12 held out" in err and str(out) in first
    written = out.read_bytes()
    assert athena("recipe", "train-classifier", str(labelled), "--out", str(out))[1] == first
    assert out.read_bytes() == written
    assert classifier.load_model(out).probability("The town keeps a school near the old bridge.") > 0.5


def test_train_classifier_refuses_what_is_not_labelled(athena, tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    code, _, err = athena("recipe", "train-classifier", str(path), "--out", str(tmp_path / "model"))
    assert code == 2 and "label" in err
    assert not (tmp_path / "model").exists()
