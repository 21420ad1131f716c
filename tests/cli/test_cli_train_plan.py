"""`athena train plan`: sizes before anything is allocated."""

import json

import pytest

from athena.train.presets import PRESETS


def test_plan_tells_size_and_memory(athena):
    code, out, _ = athena("train", "plan", "--preset", "7b", "--gpus", "8", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["parameters"] == PRESETS["7b"].parameters()
    parts = told["bytes_per_gpu"]
    assert parts.pop("total") == sum(parts.values())
    assert parts["weights"] == 4 * told["parameters"] // 8


@pytest.mark.parametrize("arguments", [("--preset", "8b"), ("--preset", "7b", "--gpus", "0")])
def test_a_plan_for_what_there_is_not_is_refused(athena, arguments):
    assert athena("train", "plan", *arguments)[0] == 2
