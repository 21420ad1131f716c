"""Gate 2: sampled rows are derived again from the crawl's own bytes."""

from __future__ import annotations

from typing import Any, Literal

from athena import draw
from athena.errors import BadInput
from athena.judge.evidence import Evidence
from athena.judge.gates.containment import containment, placeholder_share
from athena.judge.verdicts import failed, passed
from athena.protocol import Verdict
from athena.refine.recipe import Document
from athena.refine.records import MAX_RECORD_BYTES, Record, parse_record, visible_text

GATE = "provenance"
_IDENTITY = ("record_id", "url", "date", "payload_digest")

Finding = Literal["exact", "contained", "altered", "fabricated"]


def check(evidence: Evidence) -> Verdict:
    """Samples rows by the seed block; more of them once one is not where it says.

    A row whose byte range holds another record, or none, fails the set: no honest recipe makes one. A row whose text
    is not in its page counts against `max_altered_share`. Raises Unavailable where the crawl does not answer.
    """
    rules = evidence.rules.gates
    order = draw.sample(evidence.seed("provenance"), evidence.rows.count, rules.provenance_rows_on_suspicion)
    findings: dict[str, int] = {}
    examples: list[dict[str, Any]] = []
    checked = 0
    for row in evidence.rows.at(order):
        if checked >= rules.provenance_rows and not examples:
            break
        finding, reason = _examine(row, evidence)
        checked += 1
        findings[finding] = findings.get(finding, 0) + 1
        if finding in ("altered", "fabricated"):
            examples.append({"warc_path": row["warc_path"], "offset": row["warc_offset"], "reason": reason})
        if finding == "fabricated":
            return failed(GATE, f"fabricated row: {reason}", checked=checked, examples=examples[-1:])
    altered = findings.get("altered", 0)
    if altered > max(1, rules.max_altered_share * checked) or (altered and altered == checked):
        return failed(GATE, "text that is not in its page", checked=checked, altered=altered, examples=examples[:5])
    return passed(GATE, checked=checked, **findings)


def _examine(row: dict[str, Any], evidence: Evidence) -> tuple[Finding, str]:
    offset, length = row["warc_offset"], row["warc_length"]
    if not 0 < length <= MAX_RECORD_BYTES or offset < 0:
        return "fabricated", f"impossible byte range {offset}+{length}"
    try:
        record = parse_record(evidence.crawl.read_range(row["warc_path"], offset, length), row["warc_path"], offset)
    except BadInput as error:
        return "fabricated", error.message
    for name in _IDENTITY:
        if row[name] != getattr(record, name):
            return "fabricated", f"the record has another {name}"
    return _compare(row["text"], record, evidence)


def _compare(text: str, record: Record, evidence: Evidence) -> tuple[Finding, str]:
    """Containment first: it costs a tenth of an extraction, and either is proof enough."""
    rules = evidence.rules.gates
    if placeholder_share(text) <= rules.max_placeholder_share:
        share = containment(text, _page(record))
        if share >= rules.min_containment:
            return "contained", ""
        reason = f"{share:.2f} of its shingles are in the page, in order"
    else:
        reason = "mostly placeholders"
    derived = evidence.canonical_recipe.process(record)
    if isinstance(derived, Document) and derived.row["text"] == text:
        return "exact", ""
    return "altered", reason


def _page(record: Record) -> str:
    """The page's visible text; none where it has no charset or too much markup: no recipe gets text out of it."""
    try:
        return visible_text(record)
    except BadInput:
        return ""
