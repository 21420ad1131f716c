"""es-1: Spanish by FineWeb-2's steps and thresholds, but for the differences in docs/recipes.md.

Numbers and stop words: huggingface/fineweb-2, configs/spa_Latn.yml at d331bee, and fineweb-2-pipeline.py for what all
its languages share.
"""

from athena.refine.recipe import Recipe
from athena.refine.steps.anonymise import ReplacePii
from athena.refine.steps.extraction import Extraction, LanguageGuess
from athena.refine.steps.filters import FineWebQuality, GopherQuality, GopherRepetition, Language, MinHash, UrlFilter

RECIPE = Recipe(
    "es-1",
    "1",
    (
        UrlFilter(),
        LanguageGuess(languages=("es",), threshold=0.05),
        Extraction(),
        Language(languages=("es",), threshold=0.84),
        GopherRepetition(
            dup_line_frac=0.252,
            dup_para_frac=0.0,
            dup_line_char_frac=0.0,
            dup_para_char_frac=0.0,
            top_n_grams=((2, 0.156), (3, 0.14), (4, 0.125)),
            dup_n_grams=((5, 0.145), (6, 0.136), (7, 0.127), (8, 0.117), (9, 0.108), (10, 0.099)),
            language="es",
        ),
        FineWebQuality(
            line_punct_thr=0.182,
            short_line_thr=999.0,
            char_duplicates_ratio=0.1,
            new_line_ratio=0.138,
            language="es",
        ),
        GopherQuality(
            min_avg_word_length=3,
            max_avg_word_length=14,
            max_non_alpha_words_ratio=0.825,
            stop_words=(
                "de", "la", "en", "el", "y", "a", "que", "del", "los", "se", "por", "un", "con", "una", "las", "su",
            ),
            language="es",
        ),
        MinHash(language="es"),
        ReplacePii(),
    ),
)  # fmt: skip
