"""Rows that a known public release already holds."""

from __future__ import annotations

from athena.judge.evidence import Evidence, Rows
from athena.judge.known import KnownRelease
from athena.judge.verdicts import failed, passed
from athena.protocol import Verdict

GATE = "known"


def check(evidence: Evidence) -> Verdict:
    """Share of sampled rows in each known release that this validator has a filter of; passes at once without one.

    Work on a crawl that is older than a release finds what the release found, and cannot be told from it: the set
    fails only where canonical work on the drawn WARC file shows less than half of its share. Raises Unavailable.
    """
    rules = evidence.rules.gates
    shares: dict[str, float] = {}
    for release in evidence.known:
        shares[release.info.sha256] = share = _share(evidence, evidence.rows, release)
        if share > rules.max_known_share:
            expected = _share(evidence, evidence.canonical, release)
            if share > 2 * expected:
                return failed(
                    GATE, f"rows of {release.info.name}", share=share, canonical_share=expected,
                    filter=release.info.sha256,
                )  # fmt: skip
    return passed(GATE, shares=dict(shares))


def _share(evidence: Evidence, rows: Rows, release: KnownRelease) -> float:
    found = [release.knows(text) for text in rows.drawn_texts(evidence.seed("known"), evidence.rules.gates.known_rows)]
    return sum(found) / len(found) if found else 0.0
