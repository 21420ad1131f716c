"""The one tokenizer that counts tokens in every dataset: byte-level BPE of 8192 tokens, committed and pinned.

It is small so that proxy models spend their parameters on layers, and it knows every byte, so no text is unknown to
it. `scripts/train_bpe.py` made it from public-domain text.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources

from tokenizers import Tokenizer

from athena.errors import Misconfigured

BPE_SHA256 = "162638437ab8a0d8051906c85f35083314b014b19b6139093374766ec4f88e6a"
VOCABULARY_SIZE = 8192
END_OF_TEXT_ID = 0


@lru_cache(maxsize=1)
def load_tokenizer() -> Tokenizer:
    """The shared tokenizer; callers must not change it. Raises Misconfigured if the model file is not the pinned one.

    Text never yields END_OF_TEXT_ID, even where it spells the token out: a document cannot forge its own end.
    """
    raw = (resources.files("athena.refine") / "models" / "bpe-8k.json").read_bytes()
    if hashlib.sha256(raw).hexdigest() != BPE_SHA256:
        raise Misconfigured(
            "athena/refine/models/bpe-8k.json is not the pinned file", remedy="reinstall athena-network"
        )
    tokenizer = Tokenizer.from_str(raw.decode())
    tokenizer.encode_special_tokens = True
    return tokenizer
