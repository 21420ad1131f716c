"""Whether the text is language at all, and in the languages that the rules ask for."""

from __future__ import annotations

import zlib

from athena import draw
from athena.judge.evidence import Evidence
from athena.judge.rules import GateRules
from athena.judge.verdicts import failed, passed
from athena.protocol import Verdict
from athena.refine.text.language import identify

GATE = "language"
MAX_CHARS = 100_000
"""Of a row: bounds the time of one page."""
_MIN_BYTES = 1_000  # of shorter text, zlib makes little and fastText guesses, whatever it is
_UNLABELLED = "und"


def check(evidence: Evidence) -> Verdict:
    """Of drawn rows: share of text in other languages, of text that is no language, and of rows with a false label.

    The proxy prices text in other languages, so only a set that is nearly all of them fails. Shares of text are by
    characters, since the language of a short text is a guess. A row may go without a label: `und`.
    """
    rules = evidence.rules.gates
    chars = foreign = noise = labelled = false = 0
    for row in evidence.rows.at(draw.sample(evidence.seed("language"), evidence.rows.count, rules.content_rows)):
        text = row["text"][:MAX_CHARS]
        scores = identify(text)
        chars += len(text)
        if max(scores.get(language, 0.0) for language in rules.languages) < rules.min_language_score:
            foreign += len(text)
        if is_noise(text, max(scores.values(), default=0.0), rules):
            noise += len(text)
        if row["language"] != _UNLABELLED:
            labelled += 1
            claimed = scores.get(row["language"], 0.0)
            false += not abs(claimed - row["language_score"]) <= rules.language_score_tolerance  # NaN is false, too
    found = {
        "foreign_share": foreign / max(1, chars),
        "noise_share": noise / max(1, chars),
        "false_label_share": false / max(1, labelled),
    }
    if found["noise_share"] > rules.max_noise_share:
        return failed(GATE, "text that is no language", **found)
    if found["foreign_share"] > rules.max_foreign_share:
        return failed(GATE, f"text in other languages than {', '.join(rules.languages)}", **found)
    if found["false_label_share"] > rules.max_false_label_share:
        return failed(GATE, "the language column is not true", **found)
    return passed(GATE, **found)


def is_noise(text: str, score: float, rules: GateRules) -> bool:
    """Whether a text is no prose, as fill, base64 and random characters are not; never one of under 1,000 bytes.

    `score` is the probability of its likeliest language. zlib shrinks noise by far more or far less than any prose.
    """
    raw = text.encode("utf-8", "replace")
    if len(raw) < _MIN_BYTES:
        return False
    ratio = len(zlib.compress(raw)) / len(raw)
    return score < rules.min_any_language_score or not (
        rules.min_compression_ratio <= ratio <= rules.max_compression_ratio
    )
