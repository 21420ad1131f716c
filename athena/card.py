"""The model card of a release: README.md with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from athena.evaluation import Evaluation
from athena.evaluations.table import card_table
from athena.protocol import LineageEntry
from athena.train.trained import Trained

LICENCE = "mit"
_METRIC = "bits_per_byte"
_CRAWL = re.compile(r"(?:^|/)(CC-(?:MAIN|NEWS)-\d{4}-\d{2}|LOCAL-[A-Za-z0-9-]+)(?:/|$)")


def model_card(name: str, version: str, trained: Trained) -> str:
    """Markdown with YAML front matter; the same release, the same card."""
    sections = (
        _head(name, version, trained),
        _loading(),
        _evaluation(trained.before, trained.after),
        _use(),
        _data_sheet(trained),
        _contributors(trained.lineage),
        _rights(),
    )
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in _metadata(name, trained.after).items())
    return f"---\n{front}\n---\n\n" + "\n".join(sections)  # JSON is YAML


def _head(name: str, version: str, trained: Trained) -> str:
    return f"""# {name} {version}

A causal language model of {trained.parameters:,} parameters, trained from scratch on {trained.training_tokens:,}
tokens of web text that the miners of the Athena network refined from Common Crawl and its validators verified.
"""


def _loading() -> str:
    return """## Load

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
prompt = tokenizer("The", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))
```

`transformers serve path/to/this/folder` answers `/v1/completions`; `lm_eval --model hf --model_args
pretrained=path/to/this/folder` measures it. `release.json` names the sha256 of every file and is signed by the
trainer's hotkey; `athena download --verify` checks both, and the journal in which the release is named.
"""


def _evaluation(before: Evaluation, after: Evaluation) -> str:
    return f"""## Evaluation

Bits per UTF-8 byte on evaluation pack `{after.eval_pack}`, lower is better. "Untrained" is the same model before its
first step. `evaluation.json` holds every result by document.

{card_table(after, before)}
"""


def _use() -> str:
    return """## Intended use

Research on data refinement and on small language models; continued pretraining and fine-tuning by people who evaluate
what comes of it. It completes text: it was not tuned to follow instructions or to be safe.

## Limits

It repeats what the web says, errors, bias and abuse included, and states falsehoods fluently. It knows nothing after
the crawls it was trained on, and little of languages that these hold little of. It is not fit for decisions about
people, and not for use where a wrong answer does harm.
"""


def _data_sheet(trained: Trained) -> str:
    crawls = ", ".join(f"{crawl} ({tokens:,})" for crawl, tokens in _tokens_by_crawl(trained.lineage))
    documents = sum(entry.documents for entry in trained.lineage)
    tokens = sum(entry.tokens for entry in trained.lineage)
    return f"""## Data sheet

| | |
|---|---|
| what a row is | the text of one web page, with the WARC record that it comes from |
| documents | {documents:,}, of {tokens:,} tokens |
| tokens by crawl | {crawls} |
| collected by | Common Crawl, which honours robots.txt; nothing was collected for this model alone |
| refined by | miners, each with a recipe of their own, paid by what the data did for small models |
| checked by | validators: texts against their pages, duplicates, evaluation texts, personal data, opted-out domains |
| mixed by | share of the incentive, at most a capped share for each miner, one copy of near-duplicates |
| personal data | e-mail addresses, phone numbers and IP addresses are replaced; names are not |
| leaving | a domain on the network's opt-out list is left out of every later mixture, and found by `athena lineage` |

`lineage.parquet` lists every document: miner, task, dataset, WARC path, byte offset and length, record id, URL and
tokens, sorted by host.
{_calibration(trained)}"""


def _calibration(trained: Trained) -> str:
    if trained.calibration is None:
        return ""
    found = json.loads(trained.calibration.read_bytes())
    order = "no pair in any order, as no two miners had a forecast"
    if found["accuracy"] is not None:
        order = f"{found['accuracy']:.0%} of {found['pairs']:,} pairs in the order that the judge had forecast"
    return f"""
Each miner's documents were left out in turn, and a small model was trained again. The effects that this showed put
{order} (`calibration.json`, with standard errors).
"""


def _contributors(lineage: Sequence[LineageEntry]) -> str:
    tokens: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for entry in lineage:
        tokens[entry.hotkey] += entry.tokens
        documents[entry.hotkey] += entry.documents
    total = max(1, sum(tokens.values()))
    rows = [
        f"| `{hotkey}` | {documents[hotkey]:,} | {count:,} | {count / total:.1%} |"
        for hotkey, count in sorted(tokens.items(), key=lambda item: (-item[1], item[0]))
    ]
    shares = "\n".join(["| miner | documents | tokens | share |", "|---|---:|---:|---:|", *rows])
    return f"""## Contributors

{shares}

{_lineage_table(lineage)}
"""


def _rights() -> str:
    return """## Licence

The weights, the tokenizer and this card: MIT. The texts that they were trained on are not part of the release; they are
governed by the Common Crawl Terms of Use and by the rights of their authors.
"""


def _tokens_by_crawl(lineage: Sequence[LineageEntry]) -> list[tuple[str, int]]:
    tokens: Counter[str] = Counter()
    for entry in lineage:
        for path, count in entry.tokens_by_warc.items():
            named = _CRAWL.search(path)
            tokens[named[1] if named else "other WARC files"] += count
    return sorted(tokens.items())


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
        "license": LICENCE,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["athena", "common-crawl"],
        "metrics": [_METRIC],
        "model-index": [{"name": name, "results": results}],
    }


def _lineage_table(lineage: Sequence[LineageEntry]) -> str:
    lines = ["| miner | task | dataset | WARC files | documents | tokens |", "|---|---|---|---:|---:|---:|"]
    for entry in lineage:
        dataset = f"`{entry.dataset.location}@{entry.dataset.revision[:12]}`"
        lines.append(
            f"| `{entry.hotkey}` | `{entry.task_id[:12]}` | {dataset} | {len(entry.tokens_by_warc):,} |"
            f" {entry.documents:,} | {entry.tokens:,} |"
        )
    return "\n".join(lines)
