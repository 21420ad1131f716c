"""lm-eval on a model folder: the pack's own tasks without a network, and its standard early tasks where there is one.

It runs in a process of its own, so that its caches, its imports and a crash of it stay there.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub.constants import ENDPOINT

from athena.evaluation import MAX_ITEMS, Metric, SuiteResult, measured
from athena.evaluations.subject import Subject, material
from athena.packs.lm_eval_tasks import write_tasks

STANDARD = ("arc_easy", "arc_challenge", "hellaswag", "mmlu", "piqa", "sciq", "winogrande", "openbookqa")
PROBE_SECONDS = 5.0
LIMIT_SECONDS = 12 * 3600.0
"""A run that takes longer is stopped, and listed as not run."""
_HIGHER = {"acc": True, "acc_norm": True, "acc_bytes": True, "bits_per_byte": False, "answer_bits_per_byte": False}


def local_tasks(subject: Subject) -> SuiteResult:
    """The pack as lm-eval reads it: numbers of another program beside ours."""
    asked = material("lm-eval/1", subject.pack.hash, subject.per_domain)
    with tempfile.TemporaryDirectory(prefix="athena-lm-eval-") as scratch:
        tasks = Path(scratch) / "tasks"
        group = write_tasks(subject.pack, tasks, subject.per_domain)
        return _result(subject, asked, Path(scratch), [group], include=tasks, environment=_OFFLINE, comparable=False)


def standard_tasks(subject: Subject) -> SuiteResult:
    """Multiple choice of the standard early tasks, `limit` items of each. They download their data."""
    asked = material("lm-eval-standard/1", STANDARD, subject.limit)
    try:
        httpx.head(ENDPOINT, timeout=PROBE_SECONDS, follow_redirects=True)
    except (httpx.HTTPError, OSError) as error:
        reason = f"{', '.join(STANDARD)}: their data lies at {ENDPOINT}, which is out of reach: {error}"
        return SuiteResult(material=asked, not_run=reason[:500])
    with tempfile.TemporaryDirectory(prefix="athena-lm-eval-") as scratch:
        return _result(subject, asked, Path(scratch), STANDARD, limit=subject.limit, comparable=True)


_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def _result(
    subject: Subject,
    asked: str,
    scratch: Path,
    tasks: Sequence[str],
    *,
    comparable: bool,
    include: Path | None = None,
    limit: int | None = None,
    environment: dict[str, str] | None = None,
) -> SuiteResult:
    """Runs the tasks; metrics by `task, metric`. `comparable` ones keep their items for the gate."""
    if subject.files is None:
        return SuiteResult(material=asked, not_run="lm-eval reads a model folder, and there is none")
    if importlib.util.find_spec("lm_eval") is None:
        return SuiteResult(material=asked, not_run="lm-eval is not installed: pip install athena-network[trainer]")
    order = {
        "model": str(subject.files.folder.resolve()),
        "tokenizer": str(subject.files.tokenizer.resolve()),
        "tasks": list(tasks),
        "include": None if include is None else str(include),
        "limit": limit,
        "window": subject.window,
        "device": str(subject.model.device),
        "out": str(scratch / "results.json"),
    }
    command = [sys.executable, "-W", "ignore", "-m", "athena.evaluations.lm_eval_worker", json.dumps(order)]
    caches = {"HF_DATASETS_CACHE": str(scratch / "datasets"), **(environment or {})}
    try:
        done = subprocess.run(
            command, env={**os.environ, **caches}, check=False, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return SuiteResult(material=asked, not_run=f"lm-eval took over {LIMIT_SECONDS / 3600:.0f} hours")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return SuiteResult(material=asked, not_run=f"lm-eval failed: {last}"[:500])
    found = json.loads((scratch / "results.json").read_bytes())
    metrics = {
        f"{task}, {name}": metric
        for task, values in sorted(found.items())
        for name, metric in _metrics(values, comparable=comparable).items()
    }
    return SuiteResult(material=asked, metrics=metrics)


def _metrics(values: dict[str, Any], *, comparable: bool) -> dict[str, Metric]:
    """Of one task's `{metric: {value, error, items}}`."""
    found = {}
    for name, entry in values.items():
        better = None if name not in _HIGHER else ("higher" if _HIGHER[name] else "lower")
        items = entry["items"]
        if comparable and items and len(items) <= MAX_ITEMS and all(map(math.isfinite, items)):
            found[name] = measured(items, better=better, unit="share")  # type: ignore[arg-type]
        elif math.isfinite(entry["value"]):
            reach = 1.96 * entry["error"] if entry["error"] is not None else None
            low, high = (None, None) if reach is None else (entry["value"] - reach, entry["value"] + reach)
            found[name] = Metric(value=entry["value"], low=low, high=high, better=better)  # type: ignore[arg-type]
    return found
