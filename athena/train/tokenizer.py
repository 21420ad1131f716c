"""Byte-level BPE trained on the mixture, saved so that unmodified transformers loads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from athena.errors import BadInput, NotFound
from athena.train.folders import staged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = "<|end|>"
END_ID = 0
TRAINING_BYTES = 256 * 2**20  # merges hardly change beyond; 4 MB a second on one core
# GPT-4's split, with runs of at most two digits: better bits per byte at small vocabularies (nanochat).
_SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, context_length: int, folder: Path) -> None:
    """Trains on the first 256 MiB of `texts` and leaves a transformers tokenizer in `folder`. Same texts, same bytes.

    Ids: END is 0 and opens every encoded text; the vocabulary is smaller than asked for if the texts hold too few
    distinct pairs.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first_bytes(texts, TRAINING_BYTES), trainer)
    _save(tokenizer, END, END_ID, context_length, folder)


def _save(tokenizer: Tokenizer, end: str, end_id: int, context_length: int, folder: Path) -> None:
    """As transformers reads it, with one special token, which opens every encoded text."""
    from transformers import PreTrainedTokenizerFast  # seconds of import

    tokenizer.post_processor = processors.TemplateProcessing(single=f"{end} $A", special_tokens=[(end, end_id)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        pad_token=end,
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    with staged(folder) as out:
        wrapped.save_pretrained(out)
        _name_widely_known_class(out / "tokenizer_config.json")


def _name_widely_known_class(config_file: Path) -> None:
    """transformers 5 writes a class name that version 4 and the servers built on it do not know; it reads both."""
    config = json.loads(config_file.read_bytes())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def adopt_tokenizer(source: Path, context_length: int, folder: Path) -> None:
    """Leaves the Hugging Face tokenizer in `source` in `folder`, where it opens every text with its end token.

    Raises NotFound, and BadInput for one that has no tokenizer.json or no end token: no code of it is run.
    """
    tokenizer = load_tokenizer(source)
    end = end_of(tokenizer)
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    _save(backend, tokenizer.convert_ids_to_tokens(end), end, context_length, folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`. Raises NotFound if there is none, BadInput if it cannot be read."""
    if not (folder / "tokenizer.json").is_file():
        raise NotFound(f"no tokenizer.json in {folder}", remedy="give a folder that transformers saved a tokenizer in")
    from transformers import PreTrainedTokenizerFast  # seconds of import

    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise BadInput(f"the tokenizer in {folder} cannot be read: {error}") from error


def end_of(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that opens every document and ends generation. Raises BadInput for a tokenizer without one."""
    if tokenizer.eos_token_id is None:
        raise BadInput("the tokenizer has no end-of-text token", remedy="name its eos_token in tokenizer_config.json")
    return int(tokenizer.eos_token_id)


def _first_bytes(texts: Iterable[str], limit: int) -> Iterator[str]:
    for text in texts:
        if limit <= 0:
            return
        limit -= len(text.encode())
        yield text
