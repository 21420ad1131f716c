"""An evaluation pack as local tasks of lm-eval 0.4: `lm_eval --include_path FOLDER --tasks NAME`, without a network.

For each domain one task of bits per byte (lm-eval's rolling log-likelihood) and one of cloze items, and groups of
them, whose numbers are plain means over domains, as everywhere here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from athena.durable import write_file
from athena.evalpack import EVALUATION_SEED, EvalPack
from athena.packs import lm_eval_metrics
from athena.packs.sources import domain_name

# Whether higher is better.
_TEXT_METRICS = {"bits_per_byte": False}
_CLOZE_METRICS = {"answer_bits_per_byte": False, "acc": True, "acc_bytes": True}
_TEXT = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
"""
_CLOZE = """\
output_type: multiple_choice
doc_to_text: context
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
process_results: !function lm_eval_metrics.process_results
"""


def write_tasks(pack: EvalPack, folder: Path, per_domain: int | None = None) -> str:
    """Writes the tasks of a pack, which name their data by absolute path; returns the name of the group of all.

    With `per_domain`, of those documents and items that a release is measured on, so that the bits per byte compare.
    """
    name = f"athena_{domain_name(pack.info.name).replace('-', '_')}"
    groups = []
    for kind, drawn, config, metrics in (
        ("text", pack.draw(EVALUATION_SEED, per_domain or len(pack.documents)), _TEXT, _TEXT_METRICS),
        ("cloze", pack.draw_cloze(EVALUATION_SEED, per_domain or len(pack.cloze)), _CLOZE, _CLOZE_METRICS),
    ):
        domains = sorted({item.domain for item in drawn})
        tasks = [f"{name}_{kind}_{domain.replace('-', '_')}" for domain in domains]
        for task, domain in zip(tasks, domains, strict=True):
            data = folder / f"{task}.jsonl"
            write_file(data, b"".join(item.canonical() + b"\n" for item in drawn if item.domain == domain))
            _write_yaml(folder, task, _task(task, data, pack), config, _of_task(metrics))
        if tasks:
            groups.append(f"{name}_{kind}")
            _write_yaml(folder, groups[-1], _group(groups[-1], tasks), _of_group(metrics))
    source = Path(lm_eval_metrics.__file__)
    write_file(folder / source.name, source.read_bytes())
    _write_yaml(folder, name, _group(name, groups))
    return name


def _write_yaml(folder: Path, name: str, *parts: str) -> None:
    write_file(folder / f"{name}.yaml", "".join(parts).encode())


def _task(name: str, data: Path, pack: EvalPack) -> str:
    return (
        f"task: {name}\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {json.dumps(str(data.resolve()))}}}}}\n"
        "test_split: test\n"
        f"metadata: {{version: {pack.info.version}, pack: {json.dumps(pack.hash)}}}\n"
    )


def _group(name: str, members: Sequence[str]) -> str:
    return f"group: {name}\ntask: [{', '.join(members)}]\n"


def _of_task(metrics: Mapping[str, bool]) -> str:
    lines = ["metric_list:"]
    for metric, higher_is_better in metrics.items():
        # bits per byte are of all bytes of a domain, and not a mean over its documents
        aggregation = metric if metric == "bits_per_byte" else "mean"
        better = json.dumps(higher_is_better)
        lines.append(f"  - {{metric: {metric}, aggregation: {aggregation}, higher_is_better: {better}}}")
    return "\n".join(lines) + "\n"


def _of_group(metrics: Mapping[str, bool]) -> str:
    lines = [f"  - {{metric: {metric}, aggregation: mean, weight_by_size: false}}" for metric in metrics]
    return "\n".join(["aggregate_metric_list:", *lines]) + "\n"
