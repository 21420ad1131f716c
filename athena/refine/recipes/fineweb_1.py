"""fineweb-1, the canonical recipe: FineWeb's steps and thresholds, English, the same bytes on every machine."""

from athena.refine.recipe import Recipe
from athena.refine.steps import (
    C4Quality,
    Extraction,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    Language,
    LanguageGuess,
    MinHash,
    ReplacePii,
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
