"""de-1: German by FineWeb-2's steps and thresholds, but for the differences in docs/recipes.md.

Numbers and stop words: huggingface/fineweb-2, configs/deu_Latn.yml at 05e6729, and fineweb-2-pipeline.py for what all
its languages share.
"""

from athena.refine.recipe import Recipe
from athena.refine.steps.anonymise import ReplacePii
from athena.refine.steps.extraction import Extraction, LanguageGuess
from athena.refine.steps.filters import FineWebQuality, GopherQuality, GopherRepetition, Language, MinHash, UrlFilter

RECIPE = Recipe(
    "de-1",
    "1",
    (
        UrlFilter(),
        LanguageGuess(languages=("de",), threshold=0.05),
        Extraction(),
        Language(languages=("de",), threshold=0.821),
        GopherRepetition(
            dup_line_frac=0.263,
            dup_para_frac=0.0,
            dup_line_char_frac=0.0,
            dup_para_char_frac=0.0,
            top_n_grams=((2, 0.169), (3, 0.153), (4, 0.137)),
            dup_n_grams=((5, 0.141), (6, 0.134), (7, 0.126), (8, 0.117), (9, 0.108), (10, 0.098)),
            language="de",
        ),
        FineWebQuality(
            line_punct_thr=0.0,
            short_line_thr=999.0,
            char_duplicates_ratio=0.1,
            new_line_ratio=0.152,
            language="de",
        ),
        GopherQuality(
            min_avg_word_length=0,
            max_avg_word_length=15,
            max_non_alpha_words_ratio=0.774,
            stop_words=(
                "der", "und", "die", "in", "von", "im", "den", "des", "mit", "das", "er", "dem", "als", "wurde", "für",
            ),
            language="de",
        ),
        MinHash(language="de"),
        ReplacePii(),
    ),
)  # fmt: skip
