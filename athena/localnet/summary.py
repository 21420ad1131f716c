"""What a run of the local network showed, as data (summary.json) and as closing lines."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from athena.client import LedgerClient
from athena.localnet.board import Board
from athena.protocol import Effect, ScoreSheet, SignedRelease


def describe(
    board: Board,
    ledger: LedgerClient,
    names: Mapping[str, str],
    release: Path | None,
    stage_seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The summary: plain JSON values. `names` maps hotkeys to names; `release` is the folder of the release, if any."""
    sheets = [signed.sheet for signed in ledger.sheets()]
    scores = {name: pooled_score(s for s in sheets if s.hotkey == hotkey) for hotkey, name in names.items()}
    scores = {name: score for name, score in scores.items() if score["sheets"]}
    hotkeys = {name: hotkey for hotkey, name in names.items() if name in board.miners}
    weights = mean_weights({v: view.weights for v, view in board.validators.items()}, hotkeys)
    return {
        "hotkeys": {name: hotkey for hotkey, name in names.items()},
        "blocks": board.block,
        "leases": [
            {"id": lease.id, "task": lease.task.id, "miner": names.get(lease.hotkey), "state": lease.state,
             "fencing": lease.fencing}
            for lease in ledger.leases()
        ],
        "miners": {
            name: {"records": m.seen, "kept": m.kept, "tokens": m.tokens, "dropped": dict(m.rejected.most_common())}
            for name, m in board.miners.items()
        },
        "scores": scores,
        "order": ranking(scores, weights),
        "weights": {v: {names.get(k, k): w for k, w in view.weights.items()} for v, view in board.validators.items()},
        "mean_weights": weights,
        "proxy_runs": {v: view.proxies_done for v, view in sorted(board.validators.items())},
        "release": None if release is None else describe_release(release),
        "seconds": {stage: round(seconds, 1) for stage, seconds in stage_seconds.items()},
    }  # fmt: skip


def pooled_score(sheets: Iterable[ScoreSheet]) -> dict[str, Any]:
    """One miner's sheets by all validators: outcomes, and the effect averaged with its 95 % interval.

    Sheets are treated as independent; on shared seeds validators repeat each other, so the interval of one sheet is
    not narrowed by a second validator: sheets are averaged per task first.
    """
    outcomes: dict[str, int] = defaultdict(int)
    by_task: dict[str, list[Effect]] = defaultdict(list)
    yields: list[float] = []
    count = 0
    for sheet in sheets:
        count += 1
        outcomes[sheet.outcome] += 1
        if sheet.outcome != "none":
            yields.append(sheet.yield_ratio)
        if sheet.effect is not None:
            by_task[sheet.task_id].append(sheet.effect)
    tasks = [
        (_mean(e.mean for e in effects), _mean((e.high - e.low) / 2 for e in effects)) for effects in by_task.values()
    ]
    effect = None
    if tasks:
        mean = _mean(m for m, _ in tasks)
        half = math.sqrt(sum(h * h for _, h in tasks)) / len(tasks)
        effect = {"mean": round(mean, 5), "low": round(mean - half, 5), "high": round(mean + half, 5)}
    return {"sheets": count, "outcomes": dict(outcomes), "yield": round(_mean(yields), 4), "effect": effect}


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def mean_weights(weights: Mapping[str, Mapping[str, float]], hotkeys: Mapping[str, str]) -> dict[str, float]:
    """Each miner's weight, averaged over the validators that have set any. `hotkeys`: miners' names to hotkeys."""
    voting = [w for w in weights.values() if w]
    return {name: round(_mean(w.get(hotkey, 0.0) for w in voting), 4) for name, hotkey in hotkeys.items()}


def ranking(scores: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float]) -> list[list[str]]:
    """Miners from best to worst by weight; those whose effects' intervals overlap and whose weights agree within a
    tenth share a place."""
    places: list[list[str]] = []
    for name in sorted(scores, key=lambda n: (-weights.get(n, 0.0), n)):
        if places and _tied(
            scores[places[-1][0]], scores[name], weights.get(places[-1][0], 0.0), weights.get(name, 0.0)
        ):
            places[-1].append(name)
        else:
            places.append([name])
    return places


def _tied(left: Mapping[str, Any], right: Mapping[str, Any], left_weight: float, right_weight: float) -> bool:
    a, b = left["effect"], right["effect"]
    if a is None or b is None:
        return bool(left_weight == right_weight)
    close = abs(left_weight - right_weight) <= 0.1 * max(left_weight, right_weight)
    return bool(close and a["low"] <= b["high"] and b["low"] <= a["high"])


def describe_release(folder: Path) -> dict[str, Any]:
    raw = (folder / "release.json").read_bytes()
    release = SignedRelease.model_validate_json(raw).release
    return {
        "path": str(folder),
        "version": release.version,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "parameters": release.parameters,
        "training_tokens": release.training_tokens,
        "bits_per_byte_before": release.bits_per_byte_before,
        "bits_per_byte_after": release.bits_per_byte_after,
        "lineage": [
            {"miner": e.hotkey, "task": e.task_id, "tokens": e.tokens, "warc_files": len(e.tokens_by_warc)}
            for e in release.lineage
        ],
    }


def closing_lines(summary: Mapping[str, Any]) -> list[str]:
    """One line per room, for people."""
    leases, miners, release = summary["leases"], summary["miners"], summary["release"]
    submitted = sum(lease["state"] == "submitted" for lease in leases)
    lines = [f"chain        {summary['blocks']} blocks", f"task server  {len(leases)} leases, {submitted} submitted"]
    for name, miner in miners.items():
        lines.append(f"{name:12} kept {miner['kept']} of {miner['records']} documents, {miner['tokens']:,} tokens")
    for place in summary["order"]:
        lines.append("judged       " + " = ".join(_score_line(name, summary) for name in place))
    for validator, weights in summary["weights"].items():
        shares = ", ".join(f"{name} {weight:.3f}" for name, weight in sorted(weights.items(), key=lambda kv: -kv[1]))
        lines.append(f"{validator:12} {summary['proxy_runs'][validator]} proxy runs; weights: {shares or 'none set'}")
    if release is None:
        lines.append("trainer      nothing to train on: no release")
    else:
        before, after = (_mean(release[key].values()) for key in ("bits_per_byte_before", "bits_per_byte_after"))
        lines.append(
            f"trainer      {release['training_tokens']:,} tokens, {release['parameters']:,} parameters, "
            f"{before:.3f} -> {after:.3f} bits per byte"
        )
        lines.append(f"release      {release['version']} in {release['path']} (sha256 {release['sha256'][:16]}…)")
    return lines


def _score_line(name: str, summary: Mapping[str, Any]) -> str:
    effect = summary["scores"][name]["effect"]
    weight = summary["mean_weights"].get(name, 0.0)
    if effect is None:
        return f"{name} (not measured, weight {weight:.3f})"
    interval = f"{effect['mean']:+.4f} [{effect['low']:+.4f}, {effect['high']:+.4f}]"
    return f"{name} ({interval} bits per byte better than canonical, weight {weight:.3f})"


def load_command(folder: str) -> str:
    """The command that loads a release with unmodified transformers and writes a sentence."""
    return (
        'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"p='{folder}'; m=M.from_pretrained(p); t=T.from_pretrained(p); "
        "print(t.decode(m.generate(**t('The library', return_tensors='pt'), max_new_tokens=40)[0]))\""
    )


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(summary, indent=2) + "\n")
