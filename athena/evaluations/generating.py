"""What a model writes when it is asked to go on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch

from athena.evaluate import start_token, token_ids
from athena.evaluations.subject import Subject

ROWS_AT_A_TIME = 32
TOP_K = 40  # as in the extraction attacks of Carlini et al. 2021


@torch.no_grad()
def go_on(subject: Subject, prompts: Sequence[str], new_tokens: int, *, sampled: int | None = None) -> list[str]:
    """What the model writes after each prompt, at most `new_tokens` tokens: the likeliest one each time, or drawn from
    the forty likeliest by the seed `sampled`.

    The caller's random state is left as it was; the model's own settings for generation do not count.
    """
    from transformers import GenerationConfig  # seconds of import

    model, tokenizer = subject.model, subject.tokenizer
    start = start_token(tokenizer)
    room = max(1, subject.window - new_tokens - 1)
    rows = [[start, *token_ids(tokenizer, prompt)[-room:]] for prompt in prompts]
    kept, was_training = model.generation_config, model.training
    model.generation_config = GenerationConfig(
        do_sample=sampled is not None,
        top_k=TOP_K if sampled is not None else None,
        max_new_tokens=new_tokens,
        bos_token_id=start,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=start,
    )
    model.eval()
    found = [""] * len(rows)
    waiting = iter(sorted(range(len(rows)), key=lambda i: (len(rows[i]), i)))
    with torch.random.fork_rng():
        torch.manual_seed(sampled or 0)
        while batch := list(islice(waiting, ROWS_AT_A_TIME)):
            longest = len(rows[batch[-1]])
            ids = torch.full((len(batch), longest), start)
            mask = torch.zeros((len(batch), longest), dtype=torch.long)
            for number, i in enumerate(batch):
                ids[number, longest - len(rows[i]) :] = torch.tensor(rows[i])
                mask[number, longest - len(rows[i]) :] = 1
            written = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
            for number, i in enumerate(batch):
                found[i] = tokenizer.decode(written[number, longest:], skip_special_tokens=True)
    model.generation_config = kept
    model.train(was_training)
    return found
