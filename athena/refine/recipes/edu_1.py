"""edu-1: fineweb-1's steps, and then a quality classifier that you train on labelled text (docs/recipes.md)."""

from athena.refine.recipe import Recipe
from athena.refine.steps.anonymise import ReplacePii
from athena.refine.steps.classifier import QualityClassifier
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
    "edu-1",
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
        QualityClassifier(threshold=0.5),
        MinHash(),
        ReplacePii(),
    ),
)
