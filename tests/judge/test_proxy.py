import itertools
import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from athena.evalpack import ClozeItem, EvalDocument
from athena.judge.proxy.arms import (
    CPU,
    ORDER,
    EvalSet,
    Job,
    Measured,
    ProxyWorkers,
    load_documents,
    proxy_tokenizer,
    save_documents,
    tokenize,
)
from athena.judge.proxy.training import (
    CURVE_POINTS,
    document_bits,
    learning_curve,
    train,
    train_arms,
    training_windows,
)
from athena.judge.rules import TOLERANCE_BITS_PER_BYTE, ProxyRules
from athena.nn.model import Decoder, ModelConfig
from athena.protocol import MAX_BITS_PER_BYTE
from athena.refine.text.bpe import END_OF_TEXT_ID, load_tokenizer

RULES = ProxyRules(
    vocab_size=512, hidden_size=32, num_layers=1, num_heads=2, length=32, batch_windows=4, learning_rate=1e-2,
    windows_per_document=2, opening_tokens=0, arm_seconds=60,
)  # fmt: skip
GOOD = [f"The cat number {i} sat on the mat and looked at the moon, as cats do." for i in range(60)]
BAD = [f"xq{i} zzk 0x{i:x} ;;; <<>> qqq jjj" for i in range(60)]
DOCUMENTS = [EvalDocument(id=str(i), domain=f"d{i % 2}", text=f"A cat sat on the moon {i}.") for i in range(6)]
ITEM = ClozeItem(id="1", domain="d1", context="The cat looked at the", choices=(" moon", " sink"), answer=0)


@pytest.fixture
def make_job(tmp_path):
    evaluation, count = tmp_path / "eval.json", itertools.count()
    EvalSet.of(DOCUMENTS, RULES, [ITEM]).save(evaluation)

    def make(name: str, texts: list[str], seed: int = 1, budget: int = 4000) -> Job:
        path = tmp_path / f"{name}.tokens"
        save_documents(path, tokenize(texts, RULES.vocab_size))
        return Job(
            name=name, seed=f"{seed:064x}", budget_tokens=budget, documents=path, evaluation=evaluation, rules=RULES,
            model=tmp_path / f"{next(count)}.safetensors", result=tmp_path / f"{name}-{seed}.arm.json",
        )  # fmt: skip

    return make


def train_arm(job: Job) -> Measured:
    return train_arms([job])[0]


def tiny_decoder(seed: int) -> Decoder:
    torch.manual_seed(seed)
    return Decoder(ModelConfig(RULES.vocab_size, RULES.hidden_size, num_layers=2, num_heads=2, max_length=RULES.length))


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
    assert found.bytes.tolist() == [len(t.encode()) for t in texts]
    found.save(tmp_path / "e.json")
    again = EvalSet.load(tmp_path / "e.json")
    assert again.domains == found.domains
    assert all((getattr(again, name) == getattr(found, name)).all() for name in ("windows", "starts", "ends", "bytes"))
    cut = EvalSet.of(documents, RULES)
    assert cut.ends.tolist()[1:3] == [32, 32] and cut.document_of.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(("tokens", "most", "opening"), [(1, 5, 0), (2, 5, 1), (9, 5, 4), (31, 5, 5), (32, 64, 16)])
def test_what_a_document_opens_with_is_read_and_not_measured(tokens, most, opening):
    text = "".join(f" {word}" for word in ["the", "of"] * 100)
    ids = tokenize([text], RULES.vocab_size)[0][:tokens]
    cut = proxy_tokenizer(RULES.vocab_size).decode(ids.tolist())
    document = EvalDocument(id="1", domain="d", text=text if tokens == RULES.length else cut)  # a long one is cut there
    found = EvalSet.of([document], replace(RULES, opening_tokens=most, windows_per_document=1))
    assert (found.starts.tolist(), found.ends.tolist()) == ([opening], [tokens])
    assert found.windows[0, 1 : 1 + tokens].tolist() == ids.tolist()


@pytest.mark.parametrize("copies", [1, 7])
def test_no_text_is_read_more_often_than_the_rules_allow(make_job, copies):
    job = make_job("few", GOOD[:5] * copies, budget=10**6).model_copy(update={"rules": replace(RULES, max_epochs=3)})
    one_epoch = sum(len(ids) + 1 for ids in tokenize(sorted(set(GOOD[:5])), RULES.vocab_size))
    assert 2.8 * one_epoch < train_arm(job).arm.tokens <= 3 * one_epoch + RULES.length


@pytest.mark.parametrize("words", [1, 5, 200])
def test_of_a_cloze_item_only_the_right_choice_counts(words):
    item = ClozeItem(id="1", domain="web", context="one " * words, choices=(" wrong", " Ünï moon"), answer=1)
    found = EvalSet.of(DOCUMENTS, RULES, [item])
    assert found.domains == ("cloze-web", "d0", "d1") and found.domain_of.tolist() == [1, 2, 1, 2, 1, 2, 0]
    assert found.bytes[-1] == len(" Ünï moon".encode())
    (choice,) = tokenize([" Ünï moon"], RULES.vocab_size)
    window, start, end = found.windows[-1], found.starts[-1], found.ends[-1]
    assert window[1 + start : 1 + end].tolist() == choice.tolist()
    assert window[0] == END_OF_TEXT_ID and (found.document_of == 6).sum() == 1


def test_a_choice_longer_than_a_window_is_cut():
    item = ClozeItem(id="1", domain="web", context="Go", choices=(" word" * 500, "x"), answer=0)
    found = EvalSet.of([], RULES, [item])
    assert (found.starts.tolist(), found.ends.tolist()) == ([0], [RULES.length])
    assert found.bytes[0] < len(" word" * 500)


def test_document_bits_are_those_of_the_counted_targets():
    model, evaluation = tiny_decoder(0), EvalSet.of(DOCUMENTS, RULES, [ITEM])
    bits = document_bits(model, evaluation)
    ids = torch.from_numpy(evaluation.windows[-1]).long()
    with torch.no_grad():
        logs = torch.log_softmax(model(ids[None, :-1])[0], dim=-1)
    counted = range(evaluation.starts[-1], evaluation.ends[-1])
    expected = -sum(logs[i, ids[i + 1]].item() for i in counted) / math.log(2)
    assert bits[-1] == pytest.approx(expected, rel=1e-5) and len(counted) == len(tokenize([" moon"], 512)[0])


def test_a_model_that_diverged_taught_nothing():
    model = tiny_decoder(0)
    torch.nn.init.constant_(model.embedding.weight, math.nan)
    evaluation = EvalSet.of(DOCUMENTS, RULES)
    assert document_bits(model, evaluation).tolist() == (MAX_BITS_PER_BYTE * evaluation.bytes).tolist()


def test_windows_repeat_a_set_that_is_smaller_than_the_budget():
    windows = training_windows([np.arange(1, 40, dtype=np.int32)], 1000, 33, b"s" * 32)
    assert windows.shape == (31, 33)
    assert training_windows([], 1000, 33, b"s" * 32).shape == (0, 33)
    large = [np.full(100, i + 1, dtype=np.int32) for i in range(50)]
    assert training_windows(large, 1000, 33, b"s" * 32).shape == (31, 33)


def test_an_arm_is_the_sum_of_its_documents(make_job):
    measured = train_arm(make_job("good", GOOD))
    assert set(measured.document_bits) == {"d0", "d1", "cloze-d1"}
    assert measured.document_bytes["d0"] == tuple(len(d.text.encode()) for d in DOCUMENTS if d.domain == "d0")
    for domain, bits in measured.document_bits.items():
        whole = math.fsum(bits) / sum(measured.document_bytes[domain])
        assert measured.arm.bits_per_byte[domain] == whole
    assert Measured.model_validate_json(measured.canonical()) == measured


def test_a_run_is_bit_equal_and_its_seed_matters(make_job):
    first = train_arm(make_job("good", GOOD))
    assert train_arm(make_job("good", GOOD)) == first
    assert train_arm(make_job("good", GOOD, seed=2)).document_bits != first.document_bits


def test_a_kept_model_is_measured_without_training(make_job):
    job = make_job("good", GOOD)
    first = train_arm(job)
    save_documents(job.documents, tokenize(GOOD[:5], RULES.vocab_size))  # would train another model
    assert train_arm(job).document_bits == first.document_bits


def test_better_text_teaches_more_and_no_text_teaches_nothing(make_job):
    good, bad, nothing = (
        sum(train_arm(make_job(name, texts)).arm.bits_per_byte.values())
        for name, texts in (("good", GOOD), ("bad", BAD), ("nothing", []))
    )
    assert good + 0.5 < bad and good + 0.5 < nothing


def test_a_run_leaves_its_learning_curve_and_a_kept_model_keeps_it(make_job):
    job = make_job("good", GOOD)
    first = train_arm(job)
    assert len(first.curve) == CURVE_POINTS and first.curve[-1].tokens == first.arm.tokens
    assert [point.tokens for point in first.curve] == sorted({point.tokens for point in first.curve})
    assert first.curve[-1].bits_per_byte < first.curve[0].bits_per_byte / 2
    assert train_arm(job).curve == first.curve
    assert train_arm(make_job("nothing", [])).curve == ()


def test_a_curve_has_the_bits_of_all_targets_over_the_bytes_of_all_text():
    windows = training_windows(tokenize(GOOD, RULES.vocab_size), 1500, RULES.length + 1, b"s" * 32)
    steps = math.ceil(len(windows) / RULES.batch_windows)
    assert len(windows) % RULES.batch_windows, "the last step is a short one"
    curve = learning_curve(np.full(steps, math.log(2)), windows, RULES)  # one bit a token
    size = sum(len(proxy_tokenizer(512).id_to_token(i)) for i in windows[:4, 1:].flatten() if i != END_OF_TEXT_ID)
    assert len(curve) == steps and curve[0].bits_per_byte == pytest.approx(4 * RULES.length / size)
    assert curve[-1].tokens == windows.shape[0] * RULES.length
    (diverged,) = learning_curve(np.array([math.nan]), windows[:4], RULES)
    assert diverged.bits_per_byte == MAX_BITS_PER_BYTE


def test_an_arm_goes_on_from_a_base_checkpoint(make_job):
    base = make_job("good", GOOD)
    learnt = train_arm(base)
    annealed = make_job("nothing", []).model_copy(update={"base": base.model, "rules": RULES.annealing})
    assert train_arm(annealed).document_bits == learnt.document_bits  # no text adds nothing to it
    onward = make_job("good", GOOD, budget=500).model_copy(update={"base": base.model, "rules": RULES.annealing})
    scratch = make_job("good", GOOD, budget=500)
    assert train_arm(onward).arm.bits_per_byte["d0"] < train_arm(scratch).arm.bits_per_byte["d0"] - 0.2


def test_a_fresh_process_finds_the_very_same_bits(make_job):
    with ProxyWorkers(1) as workers:
        found = workers.run([make_job("good", GOOD)], lambda _: None)
    assert found == [train_arm(make_job("good", GOOD))]


def test_instruction_sets_agree_within_the_published_tolerance(make_job, monkeypatch):
    """Sums round in another order: close, and not equal, or the settings would not have reached the worker."""
    here = train_arm(make_job("good", GOOD))
    settings = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with ProxyWorkers(1) as workers:
        (other,) = workers.run([make_job("good", GOOD)], lambda _: None)
    for domain, value in here.arm.bits_per_byte.items():
        assert abs(other.arm.bits_per_byte[domain] - value) <= TOLERANCE_BITS_PER_BYTE
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert other.document_bits != here.document_bits


def test_replicas_learn_what_each_would_alone():
    """The path of an accelerator, here on the CPU: other sums, the same models but for rounding."""
    windows = torch.randint(1, RULES.vocab_size, (3, 24, RULES.length + 1))
    alone, together = ([tiny_decoder(seed) for seed in range(3)] for _ in range(2))
    for model, own in zip(alone, windows, strict=True):
        train([model], own[None], RULES)
    train(together, windows, RULES)
    for one, other in zip(alone, together, strict=True):
        for name, parameter in one.named_parameters():
            assert torch.allclose(parameter, other.get_parameter(name), atol=1e-4), name
    assert not torch.equal(together[0].embedding.weight, together[1].embedding.weight)


def test_a_stack_of_arms_measures_what_each_would_alone(make_job):
    """Any device but the one named "cpu" trains its jobs side by side. What is kept already is not trained again."""
    jobs = [make_job("good", GOOD, seed=seed) for seed in range(3)]
    kept = train_arm(jobs[0])
    stacked = train_arms(jobs, "cpu:0")
    alone = [kept, *(train_arm(make_job("good", GOOD, seed=seed)) for seed in (1, 2))]
    assert stacked[0] == kept
    for found, expected in zip(stacked, alone, strict=True):
        assert (found.arm.seed, found.arm.tokens) == (expected.arm.seed, expected.arm.tokens)
        for mine, other in zip(found.curve, expected.curve, strict=True):
            assert mine.bits_per_byte == pytest.approx(other.bits_per_byte, rel=1e-3)
        for domain, value in expected.arm.bits_per_byte.items():
            assert abs(found.arm.bits_per_byte[domain] - value) <= TOLERANCE_BITS_PER_BYTE


def test_a_worker_ends_with_its_validator_in_the_middle_of_a_job(make_job):
    job = make_job("good", GOOD, budget=10_000_000)
    command = [sys.executable, "-m", "athena.judge.proxy.training", CPU]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE)
    worker.stdin.write(ORDER.dump_json((job,)) + b"\n")
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
