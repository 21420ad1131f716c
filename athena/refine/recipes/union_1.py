"""union-1: fineweb-1's filters on the text of three extractors in turn; the first text that passes is the row."""

from athena.refine.recipe import Recipe
from athena.refine.steps.anonymise import ReplacePii
from athena.refine.steps.extraction import Extraction, LanguageGuess
from athena.refine.steps.extractors import FirstPassing, JusTextExtraction, ResiliparseExtraction
from athena.refine.steps.filters import (
    C4Quality,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    Language,
    MinHash,
    UrlFilter,
)

_FILTERS = (
    Language(languages=("en",), threshold=0.65),
    GopherRepetition(),
    GopherQuality(),
    C4Quality(filter_no_terminal_punct=False),
    FineWebQuality(),
)

RECIPE = Recipe(
    "union-1",
    "1",
    (
        UrlFilter(),
        LanguageGuess(languages=("en",), threshold=0.05),
        FirstPassing(
            branches=(
                (Extraction(), *_FILTERS),
                (ResiliparseExtraction(), *_FILTERS),
                (JusTextExtraction(), *_FILTERS),
            )
        ),
        MinHash(),
        ReplacePii(),
    ),
)
