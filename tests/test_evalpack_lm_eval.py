import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from athena.cli import app
from athena.evalpack import EVALUATION_SEED, ClozeItem, EvalDocument, write_pack
from athena.packs.lm_eval_tasks import write_tasks

START = "<start>"
DOCUMENTS = [
    EvalDocument(id=f"{domain}-{i}", domain=domain, text=text)
    for domain, texts in {
        "prose": ["Where the river bends, é and 漢, {{ braces }} stay.\n", " x", "Two lines\n\nand \\n no more."],
        "some-code": ["def f(a):\n    return a  " * 7, "12345"],
    }.items()
    for i, text in enumerate(texts)
]
CLOZE = [
    ClozeItem(id="1", domain="prose", context="The sky is", choices=(" blue today.", " é."), answer=0),
    ClozeItem(id="2", domain="prose", context="12", choices=(" 34", " 5", " 667"), answer=2),
]
RUN = """
import json, sys
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
model, tasks, name, out = sys.argv[1:]
found = lm_eval.simple_evaluate(
    model=HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=2), tasks=[name], bootstrap_iters=0,
    task_manager=TaskManager(include_path=tasks, include_defaults=False),
)
with open(out, "w") as file:
    json.dump(found["results"] | found["groups"], file, default=str)
"""


@pytest.fixture
def pack(tmp_path):
    return write_pack(tmp_path / "pack", "My pack", DOCUMENTS, CLOZE, version=3)


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


def read_yaml(path):
    return yaml.load(path.read_text(), Loader)


def test_every_domain_has_its_tasks_and_the_group_has_all(pack, tmp_path):
    name = write_tasks(pack, tmp_path / "tasks")
    configs = {path.stem: read_yaml(path) for path in (tmp_path / "tasks").glob("*.yaml")}
    assert configs[name] == {"group": name, "task": [f"{name}_text", f"{name}_cloze"]}
    assert configs[f"{name}_text"]["task"] == [f"{name}_text_prose", f"{name}_text_some_code"]
    assert configs[f"{name}_cloze"]["task"] == [f"{name}_cloze_prose"]
    assert len(configs) == 6
    for task, config in configs.items():
        if "task" in config and config.get("group") is None:
            assert config["task"] == task
            assert config["metadata"] == {"version": 3, "pack": pack.hash}
            lines = Path(config["dataset_kwargs"]["data_files"]["test"]).read_bytes().splitlines()
            domains = {json.loads(line)["domain"].replace("-", "_") for line in lines}
            assert domains == {task.split("_", 4)[-1]}
    assert (tmp_path / "tasks" / "lm_eval_metrics.py").exists()


def test_the_drawn_documents_are_those_of_a_release(pack, tmp_path):
    name = write_tasks(pack, tmp_path, per_domain=1)
    for domain in pack.by_domain:
        lines = (tmp_path / f"{name}_text_{domain.replace('-', '_')}.jsonl").read_bytes().splitlines()
        drawn = [document for document in pack.draw(EVALUATION_SEED, 1) if document.domain == domain]
        assert [EvalDocument.model_validate_json(line) for line in lines] == drawn


def test_the_command_says_how_to_run_the_tasks(pack, tmp_path):
    result = CliRunner().invoke(app, ["evalpack", "tasks", str(tmp_path / "pack"), "--out", str(tmp_path / "tasks")])
    assert result.output == (
        f"lm_eval --model hf --model_args pretrained=MODEL --include_path {tmp_path / 'tasks'} --tasks athena_my_pack\n"
    )


def small_model(folder):
    """A random Llama over bytes, as transformers saves it, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={START: 0, **{c: i for i, c in enumerate(alphabet, 1)}}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=START)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, max_position_embeddings=256, initializer_range=0.5, **shape))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.mark.full
def test_lm_eval_reads_what_the_ruler_reads(pack, tmp_path):
    import torch

    from athena.evaluate import evaluate_folder

    model, tokenizer = small_model(tmp_path / "model")
    name = write_tasks(pack, tmp_path / "tasks")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    arguments = [str(tmp_path / "model"), str(tmp_path / "tasks"), name, str(tmp_path / "results.json")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", RUN, *arguments], check=True, env=environment)
    found = json.loads((tmp_path / "results.json").read_text())

    ours = evaluate_folder(tmp_path / "model", pack, per_domain=99).bits_per_byte
    for domain, bits_per_byte in ours.items():
        theirs = found[f"{name}_text_{domain.replace('-', '_')}"]["bits_per_byte,none"]
        assert theirs == pytest.approx(bits_per_byte, rel=1e-4)
    mean = found[f"{name}_text"]["bits_per_byte,none"]
    assert mean == pytest.approx(sum(ours.values()) / len(ours), rel=1e-4)

    def nats(context, choice):
        ids = torch.tensor([tokenizer(context + choice).input_ids])
        with torch.no_grad():
            log_probabilities = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
        return float(log_probabilities[-len(choice.encode()) :].sum())

    def per_byte(item):
        return [-nats(item.context, choice) / math.log(2) / len(choice.encode()) for choice in item.choices]

    cloze = found[f"{name}_cloze_prose"]
    expected = sum(per_byte(item)[item.answer] for item in CLOZE) / len(CLOZE)
    assert cloze["answer_bits_per_byte,none"] == pytest.approx(expected, rel=1e-4)
    right = sum(min(bits) == bits[item.answer] for item in CLOZE for bits in [per_byte(item)])
    assert cloze["acc_bytes,none"] == right / len(CLOZE)
