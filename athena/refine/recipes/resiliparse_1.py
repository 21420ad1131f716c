"""resiliparse-1: fineweb-1 with the fast extractor. The quality filters take most of its time."""

from athena.refine.recipe import Recipe
from athena.refine.steps.anonymise import ReplacePii
from athena.refine.steps.extraction import LanguageGuess
from athena.refine.steps.extractors import ResiliparseExtraction
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
    "resiliparse-1",
    "1",
    (
        UrlFilter(),
        LanguageGuess(languages=("en",), threshold=0.05),
        ResiliparseExtraction(),
        Language(languages=("en",), threshold=0.65),
        GopherRepetition(),
        GopherQuality(),
        C4Quality(filter_no_terminal_punct=False),
        FineWebQuality(),
        MinHash(),
        ReplacePii(),
    ),
)
