import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from athena.errors import Unavailable
from athena.evalpack import EvalDocument
from athena.judge.proxy.arms import (
    EvalSet,
    Job,
    ProxyWorkers,
    load_documents,
    proxy_tokenizer,
    save_documents,
    tokenize,
)
from athena.judge.proxy.training import train_arm, training_windows
from athena.judge.rules import ProxyRules
from athena.nn.model import Decoder, ModelConfig
from athena.refine.text.bpe import END_OF_TEXT_ID, load_tokenizer

RULES = ProxyRules(
    vocab_size=512, hidden_size=32, num_layers=1, num_heads=2, length=32, batch_windows=4, learning_rate=1e-2,
    windows_per_document=2, arm_seconds=60,
)  # fmt: skip
GOOD = [f"The cat number {i} sat on the mat and looked at the moon, as cats do." for i in range(60)]
BAD = [f"xq{i} zzk 0x{i:x} ;;; <<>> qqq jjj" for i in range(60)]


@pytest.fixture
def make_job(tmp_path):
    evaluation, count = tmp_path / "eval.json", itertools.count()
    documents = [EvalDocument(id=str(i), domain=f"d{i % 2}", text=f"A cat sat on the moon {i}.") for i in range(6)]
    EvalSet.of(documents, RULES).save(evaluation)

    def make(name: str, texts: list[str], seed: int = 1, budget: int = 4000) -> Job:
        path = tmp_path / f"{name}.tokens"
        save_documents(path, tokenize(texts, RULES.vocab_size))
        return Job(
            name=name, seed=f"{seed:064x}", budget_tokens=budget, documents=path, evaluation=evaluation, rules=RULES,
            model=tmp_path / f"{next(count)}.safetensors", result=tmp_path / f"{name}-{seed}.arm.json",
        )  # fmt: skip

    return make


@pytest.mark.parametrize("vocab_size", [512, 2048, 8192])
def test_a_prefix_of_the_bpe_is_a_bpe(vocab_size):
    tokenizer = proxy_tokenizer(vocab_size)
    content = "Ünïcode — and <|endoftext|> \x00 is text.\nLike any other, 12345."
    ids = tokenizer.encode(content).ids
    assert tokenizer.decode(ids) == content
    assert max(ids) < vocab_size and END_OF_TEXT_ID not in ids
    assert tokenizer.get_vocab_size() == vocab_size
    whole = load_tokenizer().get_vocab()
    assert all(whole[token] == index for token, index in tokenizer.get_vocab().items())


def test_documents_survive_the_file(tmp_path):
    documents = [np.array(ids, dtype=np.int32) for ids in ([1, 2, 3], [4], [5, 6])]
    save_documents(tmp_path / "x", documents)
    assert [d.tolist() for d in load_documents(tmp_path / "x")] == [[1, 2, 3], [4], [5, 6]]
    save_documents(tmp_path / "none", [])
    assert load_documents(tmp_path / "none") == []


def test_eval_set_counts_every_byte_once(tmp_path):
    texts = ["Ünï — one.", "two " * 100, "three"]
    documents = [EvalDocument(id=str(i), domain="d", text=t) for i, t in enumerate(texts)]
    rules = RULES.__class__(**{**RULES.__dict__, "windows_per_document": 100})
    found = EvalSet.of(documents, rules)
    assert found.bytes.tolist() == [sum(len(t.encode()) for t in texts)]
    found.save(tmp_path / "e.json")
    again = EvalSet.load(tmp_path / "e.json")
    assert (again.windows == found.windows).all() and (again.lengths == found.lengths).all()
    cut = EvalSet.of(documents, RULES)
    assert cut.lengths.tolist()[1:3] == [32, 32] and len(cut.windows) == 4


def test_windows_repeat_a_set_that_is_smaller_than_the_budget():
    windows = training_windows([np.arange(1, 40, dtype=np.int32)], 1000, 33, b"s" * 32)
    assert windows.shape == (31, 33)
    assert training_windows([], 1000, 33, b"s" * 32).shape == (0, 33)
    large = [np.full(100, i + 1, dtype=np.int32) for i in range(50)]
    assert training_windows(large, 1000, 33, b"s" * 32).shape == (31, 33)


def test_a_run_is_bit_equal_and_its_seed_matters(make_job):
    first = train_arm(make_job("good", GOOD))
    assert train_arm(make_job("good", GOOD)) == first
    assert train_arm(make_job("good", GOOD, seed=2)).bits_per_byte != first.bits_per_byte


def test_a_kept_model_is_measured_without_training(make_job):
    job = make_job("good", GOOD)
    first = train_arm(job)
    save_documents(job.documents, tokenize(GOOD[:5], RULES.vocab_size))  # would train another model
    assert train_arm(job).bits_per_byte == first.bits_per_byte


def test_better_text_teaches_more_and_no_text_teaches_nothing(make_job):
    good, bad, nothing = (
        sum(train_arm(make_job(name, texts)).bits_per_byte.values())
        for name, texts in (("good", GOOD), ("bad", BAD), ("nothing", []))
    )
    assert good + 0.5 < bad and good + 0.5 < nothing


def test_workers_train_resume_and_agree_with_this_process(make_job):
    jobs = [make_job("good", GOOD), make_job("bad", BAD)]
    seen: list[str] = []
    with ProxyWorkers(1) as workers:
        arms = workers.run(jobs, lambda arm: seen.append(arm.name))
        assert arms == [train_arm(job) for job in jobs]
        assert sorted(seen) == ["bad", "good"]
    started = time.monotonic()
    with ProxyWorkers(1) as workers:  # what lies on disk is not trained again: no worker starts
        assert workers.run(jobs, lambda arm: None) == arms
    assert time.monotonic() - started < 1.0


def test_a_torn_result_is_trained_again(make_job):
    job = make_job("good", GOOD, budget=500)
    job.result.write_text('{"name": "go')
    with ProxyWorkers(1) as workers:
        (arm,) = workers.run([job], lambda arm: None)
    assert arm == train_arm(job)


def test_a_worker_that_dies_is_this_machines_fault(make_job):
    job = make_job("good", GOOD).model_copy(update={"documents": Path("/nonexistent")})
    with ProxyWorkers(1) as workers, pytest.raises(Unavailable):
        workers.run([job], lambda arm: None)


def test_a_worker_ends_with_its_validator_in_the_middle_of_a_job(make_job, tmp_path):
    job = make_job("good", GOOD, budget=10_000_000)
    order = tmp_path / "order.job"
    order.write_text(job.model_dump_json())
    worker = subprocess.Popen([sys.executable, "-m", "athena.judge.proxy.training"], stdin=subprocess.PIPE)
    worker.stdin.write(f"{order}\n".encode())
    worker.stdin.flush()
    time.sleep(0.5)
    worker.stdin.close()
    assert worker.wait(timeout=30) == 0
    assert not job.result.exists()


def test_the_model_sees_no_future():
    torch.manual_seed(0)
    model = Decoder(ModelConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=2, max_length=12))
    for block in model.blocks:  # output projections start at zero, where nothing could leak
        torch.nn.init.normal_(block.out.weight)
        torch.nn.init.normal_(block.down.weight)
    tokens = torch.randint(0, 64, (2, 12))
    changed = tokens.clone()
    changed[:, 7:] = 5
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :7], after[:, :7]) and not torch.equal(before[:, 7:], after[:, 7:])
    with pytest.raises(ValueError, match="multiple"):
        Decoder(ModelConfig(vocab_size=64, hidden_size=18, num_layers=1, num_heads=4, max_length=8))
