"""The incumbent's formula, for comparison: its ten warm-up steps and ten questions, on our proxy and local cloze items.

The validator of finest-data-subnet trains an untrained model of 1.71B parameters for ten steps, all of them within the
500 steps of the warm-up, so that the learning rate ends at a fiftieth of its peak; then it asks ten of TruthfulQA's
questions and counts 0.7 · mc2 · (1 − standard error) + 0.3 · (1 − hours since the lease / 24). Here the model is the
rule version's proxy, the steps are its batches, the questions are cloze items of evaluation documents, and
all sets are delivered at once. It is a figure for the formula on equal terms, not for that network.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from athena import draw
from athena.evalpack import ClozeItem, EvalPack
from athena.judge.proxy.arms import tokenize
from athena.judge.proxy.training import training_windows
from athena.judge.rules import ProxyRules
from athena.nn.model import Decoder, ModelConfig
from athena.nn.optim import make_optimizer
from athena.packs.cloze import cloze_items
from athena.refine.text.bpe import END_OF_TEXT_ID

STEPS, WARMUP_STEPS, PEAK_LEARNING_RATE = 10, 500, 3e-4
QUESTIONS = 10
QUALITY_WEIGHT, TIME_WEIGHT = 0.7, 0.3


def questions(pack: EvalPack, seed: bytes) -> list[ClozeItem]:
    """Ten drawn cloze items, made of the pack's documents as packs' own are."""
    items = cloze_items(pack.documents, seed)
    return [items[index] for index in draw.sample(seed, len(items), QUESTIONS)]


def incumbent_score(texts: Sequence[str], asked: Sequence[ClozeItem], rules: ProxyRules, seed: bytes) -> float:
    """0 to 1; `seed` draws the first weights and the order of the text, which the incumbent leaves to chance."""
    torch.set_num_threads(1)
    torch.manual_seed(draw.integer(seed, 0) >> 1)
    model = Decoder(
        ModelConfig(rules.vocab_size, rules.hidden_size, rules.num_layers, rules.num_heads, max_length=rules.length)
    )
    budget = STEPS * rules.batch_windows * rules.length
    windows = training_windows(tokenize(texts, rules.vocab_size), budget, rules.length + 1, seed)
    optimizer = make_optimizer(model, PEAK_LEARNING_RATE, name="adamw")
    for step, batch in enumerate(torch.from_numpy(windows).long().split(rules.batch_windows)[:STEPS]):
        optimizer.set_lr(PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS)
        model.loss(batch[:, :-1], batch[:, 1:]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    found = [_mc2(model, item, rules) for item in asked]
    error = statistics.stdev(found) / math.sqrt(len(found))
    return QUALITY_WEIGHT * statistics.fmean(found) * (1 - error) + TIME_WEIGHT


@torch.no_grad()
def _mc2(model: Decoder, item: ClozeItem, rules: ProxyRules) -> float:
    """Probability of the right choice, the choices' probabilities scaled to sum to one."""
    context = tokenize([item.context], rules.vocab_size)[0]
    logits = [
        _log_probability(model, [END_OF_TEXT_ID, *context], choice.tolist(), rules.length)
        for choice in tokenize(item.choices, rules.vocab_size)
    ]
    return float(torch.softmax(torch.stack(logits), 0)[item.answer])


def _log_probability(model: Decoder, context: list[int], choice: list[int], length: int) -> Tensor:
    window = torch.tensor([[*context, *choice][-length - 1 :]])
    losses = model.losses(window[:, :-1], window[:, 1:])
    return -losses[0, -len(choice) :].sum()
