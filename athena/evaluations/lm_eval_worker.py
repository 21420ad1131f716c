"""The process that runs lm-eval: python -m athena.evaluations.lm_eval_worker '{"model": …, "tasks": …, "out": …}'.

Writes `{task: {metric: {"value", "error", "items"}}}`; groups have no items.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def main(order: Mapping[str, Any]) -> None:
    """`include`: a folder of tasks, in place of lm-eval's own, whose index takes a quarter of a minute to read."""
    local = order["include"] is not None
    model = HFLM(
        pretrained=order["model"],
        tokenizer=order["tokenizer"],
        device=order["device"],
        dtype="auto",
        batch_size=8,
        max_length=order["window"],
    )
    manager = TaskManager(include_path=order["include"], include_defaults=not local)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=order["tasks"],
        task_manager=manager,
        limit=order["limit"],
        bootstrap_iters=0,
        log_samples=not local,
    )
    samples = found.get("samples", {})
    results = {
        task: {
            key.partition(",")[0]: {
                "value": value,
                "error": _number(values.get(key.replace(",", "_stderr,"))),
                "items": _items(samples.get(task, ()), key.partition(",")[0]),
            }
            for key, value in values.items()
            if isinstance(value, float) and "_stderr," not in key
        }
        for task, values in (found["results"] | found.get("groups", {})).items()
    }
    Path(order["out"]).write_text(json.dumps(results))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, float) else None


def _items(samples: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """Each item's value, in the task's order."""
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return [float(sample[metric]) for sample in ordered if isinstance(sample.get(metric), int | float)]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
