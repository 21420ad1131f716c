"""strict-1: fineweb-1 with less tolerance. Surer English, longer pages, more whole sentences, less repetition."""

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
    "strict-1",
    "1",
    (
        UrlFilter(),
        LanguageGuess(languages=("en",), threshold=0.05),
        Extraction(),
        Language(languages=("en",), threshold=0.8),
        GopherRepetition(dup_line_frac=0.2, dup_line_char_frac=0.1),
        GopherQuality(min_doc_words=100, min_stop_words=4),
        C4Quality(filter_no_terminal_punct=False),
        FineWebQuality(line_punct_thr=0.3, short_line_thr=0.5),
        MinHash(),
        ReplacePii(),
    ),
)
