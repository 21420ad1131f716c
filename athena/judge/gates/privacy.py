"""People's data in the set: pages of domains that opted out, addresses, numbers and keys that nobody masked."""

from __future__ import annotations

from collections import Counter

from athena.judge.evidence import Evidence, Rows
from athena.judge.verdicts import failed, passed
from athena.protocol import Verdict
from athena.refine.steps.anonymise import ALL, PLACEHOLDERS, spans

GATE = "privacy"
MAX_CHARS = 100_000
"""Of a row: bounds the time that one page of numbers takes."""
_REGIONS = ("US", "GB")  # where numbers without a country code are dialled, as for the step `Anonymise`


def check(evidence: Evidence) -> Verdict:
    """Pages that had to be left out, then the share of drawn rows that hold what `Anonymise` would mask.

    No row may come from a domain that had opted out when the task was leased: its miner could know. Contacts stand on
    the honest web, and the canonical recipe masks e-mail and IP addresses only: the share may be as high as
    `max_private_share`, or twice what canonical work on the drawn WARC file shows.
    """
    rules = evidence.rules.gates
    opted_out = [url for url in evidence.rows.urls() if evidence.left_out.covers(url)]
    if opted_out:
        return failed(GATE, "pages of domains that opted out", rows=len(opted_out), urls=opted_out[:3])
    share, rows_by_kind = _private(evidence.rows, evidence.seed("privacy"), rules.content_rows)
    if share > rules.max_private_share:
        expected, _ = _private(evidence.canonical, evidence.case.seed("privacy"), rules.content_rows)
        if share > 2 * expected:
            reason = "addresses, numbers or keys are not masked"
            return failed(GATE, reason, share=share, canonical_share=expected, rows_by_kind=rows_by_kind)
    return passed(GATE, share=share, rows_by_kind=rows_by_kind)


def private_kinds(text: str) -> frozenset[str]:
    """Kinds of private data in a text, of those that `Anonymise` knows. Its placeholders are none."""
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, " ")
    return frozenset(span.kind for span in spans(text[:MAX_CHARS], ALL, _REGIONS))


def _private(rows: Rows, seed: bytes, count: int) -> tuple[float, dict[str, int]]:
    """Share of rows with private data among `count` drawn ones, and how many of those have each kind."""
    rows_by_kind: Counter[str] = Counter()
    private = looked_at = 0
    for text in rows.drawn_texts(seed, count):
        kinds = private_kinds(text)
        rows_by_kind.update(kinds)
        private += bool(kinds)
        looked_at += 1
    return private / max(1, looked_at), dict(sorted(rows_by_kind.items()))
