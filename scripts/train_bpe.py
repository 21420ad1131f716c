"""Trains the 8192-token BPE that counts tokens in every dataset: python scripts/train_bpe.py OUT.json TEXT...

TEXT is a .txt file or a .zip of them, in the public domain. The committed model was trained on Project Gutenberg's
1342, 1661, 2600, 2701 and 14881 and on NLTK's inaugural and state_union corpora, in this order; the same files give
the same bytes. Prints the sha256 that `athena/refine/text/bpe.py` pins.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_SIZE = 8192
END_OF_TEXT = "<|endoftext|>"
# GPT-4's split with numbers cut after two digits: a vocabulary this small has no room for all three-digit numbers.
SPLIT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GUTENBERG = re.compile(r"\*\*\* ?START OF (?:THIS|THE) PROJECT GUTENBERG.*?\*\*\*\n(.*)\*\*\* ?END OF", re.DOTALL)


def read_texts(path: Path) -> Iterator[str]:
    if path.suffix != ".zip":
        yield path.read_text("utf-8-sig")
        return
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt") and not name.endswith("README.txt"):
                yield archive.read(name).decode("utf-8", "replace")


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a book or speech without the Gutenberg licence, hard line breaks and _emphasis_ marks."""
    text = text.replace("\r\n", "\n")
    if body := _GUTENBERG.search(text):
        text = body.group(1)
    for paragraph in re.split(r"\n\s*\n", text):
        if line := " ".join(paragraph.replace("_", "").split()):
            yield line + "\n"


def train(paths: list[Path]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator((p for path in paths for text in read_texts(path) for p in paragraphs(text)), trainer)
    return tokenizer


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    out = Path(sys.argv[1])
    train([Path(argument) for argument in sys.argv[2:]]).save(str(out), pretty=False)
    print(hashlib.sha256(out.read_bytes()).hexdigest(), out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
