"""The model card of a release: README.md with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from athena.evaluation import Evaluation
from athena.protocol import LineageEntry
from athena.train.trained import Trained

_METRIC = "bits_per_byte"


def model_card(name: str, version: str, trained: Trained) -> str:
    """Markdown with YAML front matter; the same release, the same card."""
    before, after = trained.before, trained.after
    metadata = _metadata(name, after)
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in metadata.items())  # JSON is YAML
    return f"""---
{front}
---

# {name} {version}

A causal language model of {trained.parameters:,} parameters, trained from scratch on {trained.training_tokens:,}
tokens of web text that the miners of the Athena network refined from Common Crawl and its validators verified.

## Load

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
prompt = tokenizer("The", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))
```

`release.json` names the sha256 of every file and is signed by the trainer's hotkey; `athena download` checks both.

## Evaluation

Bits per UTF-8 byte on evaluation pack `{after.eval_pack}`, lower is better. "Untrained" is the same model before its
first step.

{_evaluation_table(before, after)}

## Training data

{_lineage_table(trained.lineage)}

`lineage.parquet` lists every document: miner, task, dataset, WARC path, byte offset and length, record id, URL and
tokens. The texts are governed by the Common Crawl Terms of Use and by the rights of their authors.

## Intended use

Research on data refinement and small language models. It reflects what the web says, errors and bias included, was not
tuned to follow instructions or to be safe, and is not fit for decisions about people.
"""


def _metadata(name: str, after: Evaluation) -> dict[str, Any]:
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": f"athena evaluation pack, {domain}", "type": domain},
            "metrics": [{"type": _METRIC, "value": round(score.bits_per_byte, 4)}],
        }
        for domain, score in after.domains.items()
    ]
    return {
        "language": ["en"],
        "license": "mit",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["athena", "common-crawl"],
        "metrics": [_METRIC],
        "model-index": [{"name": name, "results": results}],
    }


def _evaluation_table(before: Evaluation, after: Evaluation) -> str:
    lines = ["| domain | documents | bytes | untrained | trained |", "|---|---:|---:|---:|---:|"]
    for domain, score in after.domains.items():
        untrained = before.domains[domain].bits_per_byte
        lines.append(
            f"| {domain} | {score.documents:,} | {score.bytes:,} | {untrained:.4f} | {score.bits_per_byte:.4f} |"
        )
    return "\n".join(lines)


def _lineage_table(lineage: Sequence[LineageEntry]) -> str:
    lines = ["| miner | task | dataset | WARC files | documents | tokens |", "|---|---|---|---:|---:|---:|"]
    for entry in lineage:
        dataset = f"`{entry.dataset.location}@{entry.dataset.revision[:12]}`"
        lines.append(
            f"| `{entry.hotkey}` | `{entry.task_id[:12]}` | {dataset} | {len(entry.tokens_by_warc):,} |"
            f" {entry.documents:,} | {entry.tokens:,} |"
        )
    return "\n".join(lines)
