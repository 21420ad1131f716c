"""The frozen ruler: bits per byte of any causal language model on an evaluation pack, domain by domain.

It imports nothing that it measures. A text is scored as START followed by its tokens, every token once, in sliding
windows; START is the tokenizer's beginning-of-text token, else its end-of-text token, and is not scored, nor is any
token after the text. Divided by the text's UTF-8 bytes, models of different vocabularies compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from athena.errors import BadInput, NotFound
from athena.evalpack import EVALUATION_SEED, EvalDocument, EvalPack
from athena.evaluation import DomainScore, Evaluation

WINDOWS_PER_BATCH = 8


@dataclass(frozen=True)
class Window:
    """`ids[i + 1]` is predicted from ids[..i]; the last `scored` predictions count, for the text numbered `text`."""

    text: int
    ids: list[int]
    scored: int


def evaluate(
    model: Any, tokenizer: Any, pack: EvalPack, *, per_domain: int, window: int, seed: bytes = EVALUATION_SEED
) -> Evaluation:
    """Scores `per_domain` documents of each domain, drawn by `seed`.

    `model` is a transformers causal language model (or what returns `.logits` [batch, length, vocab] for `input_ids`),
    `tokenizer` its tokenizer. `window` tokens go through the model at a time, half of them as context for the rest.
    Raises BadInput when the tokenizer knows no token to start with, or loses text, and when the model is broken.
    """
    documents = pack.draw(seed, per_domain)
    encoded = [_encode(tokenizer, document) for document in documents]
    nats = summed_nats(model, _windows(encoded, window), len(encoded), WINDOWS_PER_BATCH)
    if not all(map(math.isfinite, nats)):
        raise BadInput("the model gave no finite number", remedy="look for NaN in its weights")
    domains = {}
    for domain in pack.by_domain:
        chosen = [i for i, document in enumerate(documents) if document.domain == domain]
        num_bytes = sum(len(documents[i].text.encode()) for i in chosen)
        domains[domain] = DomainScore(
            documents=len(chosen),
            bytes=num_bytes,
            tokens=sum(len(encoded[i]) - 1 for i in chosen),
            bits_per_byte=math.fsum(nats[i] for i in chosen) / math.log(2) / num_bytes,
            document_bits=tuple(round(nats[i] / math.log(2), 4) for i in chosen),
            document_bytes=tuple(len(documents[i].text.encode()) for i in chosen),
        )
    return Evaluation(eval_pack=pack.hash, seed=seed.hex(), per_domain=per_domain, window=window, domains=domains)


def evaluate_folder(folder: Path, pack: EvalPack, *, per_domain: int, window: int | None = None) -> Evaluation:
    """`evaluate` of a model folder; `window` is the model's own context by default. Raises as `load_folder` does."""
    model, tokenizer = load_folder(folder)
    return evaluate(
        model, tokenizer, pack, per_domain=per_domain, window=window or model.config.max_position_embeddings
    )


def load_folder(folder: Path, tokenizer_folder: Path | None = None) -> tuple[Any, Any]:
    """Model and tokenizer of a folder (the tokenizer of its own one, if given), loaded by unmodified transformers.

    No code from the folder runs and only safetensors are read. Raises NotFound, or BadInput when it does not load.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # seconds of import

    if not (folder / "config.json").is_file():
        raise NotFound(f"no model in {folder}")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(
            tokenizer_folder or folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"transformers cannot load {folder}: {error}") from error
    return model, tokenizer


def start_token(tokenizer: Any) -> int:
    """START: the token that every text is read after. Raises BadInput where there is none."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise BadInput("the tokenizer has neither a beginning-of-text nor an end-of-text token")
    return int(start)


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text; one that spells a special token out is plain text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


def _encode(tokenizer: Any, document: EvalDocument) -> list[int]:
    start = start_token(tokenizer)
    ids = token_ids(tokenizer, document.text)
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if "".join(decoded.split()) != "".join(document.text.split()):  # some tokenizers add or strip spaces
        raise BadInput(f"the tokenizer loses parts of {document.id}: bits per byte would flatter it")
    return [start, *ids]


def _windows(encoded: Sequence[list[int]], window: int) -> Iterator[Window]:
    """Each document's first `window` predictions, then half a window at a time with half a window of context."""
    stride = max(1, window // 2)
    for index, ids in enumerate(encoded):
        done, predictions = 0, len(ids) - 1
        while done < predictions:
            end = min(done + (window if done == 0 else stride), predictions)
            yield Window(index, ids[max(0, end - window) : end + 1], end - done)
            done = end


@torch.no_grad()
def summed_nats(model: Any, windows: Iterable[Window], texts: int, per_batch: int) -> list[float]:
    """The negative log-likelihood of each of `texts` texts, over its windows. Windows of like length go through
    together, `per_batch` at a time, padded on the right: a causal model's earlier positions do not see the padding."""
    was_training = model.training
    model.eval()
    nats = [0.0] * texts
    ordered = iter(sorted(windows, key=lambda w: len(w.ids)))
    while batch := list(islice(ordered, per_batch)):
        longest = max(len(w.ids) for w in batch)
        ids = torch.tensor([w.ids + [w.ids[0]] * (longest - len(w.ids)) for w in batch], device=model.device)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        for row, w in enumerate(batch):
            last = len(w.ids) - 1
            scored = slice(last - w.scored, last)
            log_probability = torch.log_softmax(logits[row, scored].float(), dim=-1)
            labels = ids[row, 1:][scored, None]
            nats[w.text] -= float(log_probability.gather(-1, labels).double().sum())
    model.train(was_training)
    return nats
