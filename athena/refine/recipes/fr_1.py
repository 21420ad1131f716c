"""fr-1: French by FineWeb-2's steps and thresholds, but for the differences in docs/recipes.md.

Numbers and stop words: huggingface/fineweb-2, configs/fra_Latn.yml at 05e6729, and fineweb-2-pipeline.py for what all
its languages share.
"""

from athena.refine.recipe import Recipe
from athena.refine.steps.anonymise import ReplacePii
from athena.refine.steps.extraction import Extraction, LanguageGuess
from athena.refine.steps.filters import FineWebQuality, GopherQuality, GopherRepetition, Language, MinHash, UrlFilter

RECIPE = Recipe(
    "fr-1",
    "1",
    (
        UrlFilter(),
        LanguageGuess(languages=("fr",), threshold=0.05),
        Extraction(),
        Language(languages=("fr",), threshold=0.824),
        GopherRepetition(
            dup_line_frac=0.264,
            dup_para_frac=0.0,
            dup_line_char_frac=0.0,
            dup_para_char_frac=0.0,
            top_n_grams=((2, 0.161), (3, 0.149), (4, 0.134)),
            dup_n_grams=((5, 0.15), (6, 0.141), (7, 0.131), (8, 0.121), (9, 0.111), (10, 0.1)),
            language="fr",
        ),
        FineWebQuality(
            line_punct_thr=0.1,
            short_line_thr=999.0,
            char_duplicates_ratio=0.1,
            new_line_ratio=0.185,
            language="fr",
        ),
        GopherQuality(
            min_avg_word_length=2,
            max_avg_word_length=11,
            max_non_alpha_words_ratio=0.812,
            stop_words=(
                "de", "la", "le", "et", "à", "en", "l'", "des", "du", "les", "est", "d'", "un", "une", "il", "dans",
                "par", "au",
            ),
            language="fr",
        ),
        MinHash(language="fr"),
        ReplacePii(),
    ),
)  # fmt: skip
