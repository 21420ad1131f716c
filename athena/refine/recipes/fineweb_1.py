"""fineweb-1, the canonical recipe: FineWeb's steps and thresholds, English, the same bytes on every machine."""

from athena.refine.recipe import Recipe
from athena.refine.steps.anonymise import ReplacePii
from athena.refine.steps.extraction import Extraction, LanguageGuess
from athena.refine.steps.filters import (
    C4Quality,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    Language,
    MinHash,
    UrlFilter,
)

RECIPE = Recipe(
    "fineweb-1",
    "1",
    (
        UrlFilter(),
        LanguageGuess(languages=("en",), threshold=0.05),
        Extraction(),
        Language(languages=("en",), threshold=0.65),
        GopherRepetition(),
        GopherQuality(),
        C4Quality(filter_no_terminal_punct=False),
        FineWebQuality(),
        MinHash(),
        ReplacePii(),
    ),
)
