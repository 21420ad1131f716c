"""Gate 2: sampled rows are derived again from the crawl's own bytes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from athena import draw
from athena.errors import BadInput, Unavailable
from athena.judge.evidence import Evidence
from athena.judge.gates.containment import containment, placeholder_share
from athena.judge.rules import GateRules
from athena.judge.verdicts import failed, passed
from athena.protocol import Verdict
from athena.refine.pool import Pool
from athena.refine.recipe import Document
from athena.refine.records import MAX_RECORD_BYTES, Record, parse_record, visible_text
from athena.refine.worker import NO_VERDICT

GATE = "provenance"
_IDENTITY = ("record_id", "url", "date", "payload_digest")


@dataclass(frozen=True)
class Finding:
    """What became of a row. `outside` is the share of its text that is not in its page, 0 where canonical work has it
    or the row is fabricated.

    undecided: not in its page, and this machine could not tell whether the canonical recipe makes it.
    """

    kind: Literal["exact", "contained", "altered", "fabricated", "undecided"]
    reason: str = ""
    outside: float = 0.0


class _Tally:
    """Findings so far."""

    def __init__(self, rules: GateRules) -> None:
        self._rules = rules
        self.counts: dict[str, int] = {}
        self.examples: list[dict[str, Any]] = []
        self._chars = self._outside = self._undecided = 0.0

    @property
    def checked(self) -> int:
        return sum(self.counts.values())

    @property
    def outside_share(self) -> float:
        """Of the text of all rows: few long ones may hold more of it than many short ones."""
        return self._outside / max(1.0, self._chars)

    @property
    def is_suspicious(self) -> bool:
        return bool(self.examples) or self.outside_share > self._rules.max_outside_share

    @property
    def is_enough(self) -> bool:
        """Whether the sample is drawn, or rows that speak against the set are too many for any sample.

        A row that cannot be decided costs two minutes, so that only as few of those are tried.
        """
        most = max(1.0, self._rules.max_altered_share * self._rules.provenance_rows_on_suspicion)
        if max(self._count("altered"), self._count("undecided")) > most:
            return True
        return self.checked >= self._rules.provenance_rows and not self.is_suspicious

    def add(self, row: dict[str, Any], finding: Finding) -> None:
        self.counts[finding.kind] = self._count(finding.kind) + 1
        self._chars += len(row["text"])
        if finding.kind == "undecided":
            self._undecided += len(row["text"]) * finding.outside
        else:
            self._outside += len(row["text"]) * finding.outside
        if finding.kind not in ("exact", "contained"):
            place = {"warc_path": row["warc_path"], "offset": row["warc_offset"]}
            self.examples.append({**place, "reason": finding.reason})

    def verdict(self) -> Verdict:
        """Raises Unavailable where rows that could not be decided would decide."""
        altered, undecided, checked = self._count("altered"), self._count("undecided"), self.checked
        found = {"checked": checked, "outside_share": self.outside_share}
        if self._are_too_many(altered):
            return failed(GATE, "text that is not in its page", **found, altered=altered, examples=self.examples[:5])
        if self._are_too_many(altered + undecided):
            raise Unavailable(f"{undecided} rows could not be derived again")
        if self.outside_share > self._rules.max_outside_share:
            return failed(GATE, "too much text that is not in its pages", **found, examples=self.examples[:5])
        if self._outside + self._undecided > self._rules.max_outside_share * self._chars:
            raise Unavailable(f"{undecided} rows with much of the text could not be derived again")
        return passed(GATE, **found, **self.counts)

    def _count(self, kind: str) -> int:
        return self.counts.get(kind, 0)

    def _are_too_many(self, rows: int) -> bool:
        return rows > max(1.0, self._rules.max_altered_share * self.checked) or bool(rows and rows == self.checked)


def check(evidence: Evidence) -> Verdict:
    """Samples rows by the seed block; more of them once one is not where it says, or text is missing in the pages.

    A row whose byte range holds another record, or none, fails the set: no honest recipe makes one. A row whose text
    is not in its page counts against `max_altered_share`, and what rows say beyond their pages, all text taken
    together, against `max_outside_share`. Raises Unavailable where the crawl does not answer.
    """
    rules = evidence.rules.gates
    tally = _Tally(rules)
    order = _drawn(evidence, rules.provenance_rows_on_suspicion)
    with Pool(evidence.canonical_recipe) as pool:
        for row in evidence.rows.at(order):
            if tally.is_enough:
                break
            finding = _examine(row, evidence, pool)
            tally.add(row, finding)
            if finding.kind == "fabricated":
                reason = f"fabricated row: {finding.reason}"
                return failed(GATE, reason, checked=tally.checked, examples=tally.examples[-1:])
    return tally.verdict()


def _drawn(evidence: Evidence, most: int) -> list[int]:
    """Up to `most` distinct rows, half of them drawn by rows and half by characters: what is paid is text, and few long
    rows would hide among many short ones. Of rows of one length, one draw is like the other."""
    by_row = draw.sample(evidence.seed("provenance"), evidence.rows.count, most)
    ends = np.cumsum(pc.utf8_length(evidence.rows.table["text"]).to_numpy())
    seed, chars = evidence.seed("provenance", "text"), int(ends[-1]) if len(ends) else 0
    places = [draw.integer(seed, number) % chars for number in range(most if chars else 0)]
    by_text = np.searchsorted(ends, places, side="right").tolist()
    mixed = (index for pair in zip_longest(by_text, by_row) for index in pair if index is not None)
    return list(dict.fromkeys(mixed))[:most]


def _examine(row: dict[str, Any], evidence: Evidence, pool: Pool) -> Finding:
    offset, length = row["warc_offset"], row["warc_length"]
    if not 0 < length <= MAX_RECORD_BYTES or offset < 0:
        return Finding("fabricated", f"impossible byte range {offset}+{length}")
    try:
        record = parse_record(evidence.crawl.read_range(row["warc_path"], offset, length), row["warc_path"], offset)
    except BadInput as error:
        return Finding("fabricated", error.message)
    for name in _IDENTITY:
        if row[name] != getattr(record, name):
            return Finding("fabricated", f"the record has another {name}")
    return _compare(row["text"], record, evidence.rules.gates, pool)


def _compare(text: str, record: Record, rules: GateRules, pool: Pool) -> Finding:
    """Containment first: it costs a tenth of an extraction, and either is proof enough.

    Who made the page may have meant it to break extractors, so that runs in the pool's processes, with their limits.
    """
    share, reason = 0.0, "mostly placeholders"
    if placeholder_share(text) <= rules.max_placeholder_share:
        share = containment(text, _page(record))
        if share >= rules.min_containment:
            return Finding("contained", outside=1 - share)
        reason = f"{share:.2f} of its shingles are in the page, in order"
    [outcome] = pool.outcomes([record], lambda: None)
    if isinstance(outcome.result, Document):
        same = outcome.result.row["text"] == text
        return Finding("exact") if same else Finding("altered", reason, outside=1 - share)
    return Finding("undecided" if outcome.result.reason in NO_VERDICT else "altered", reason, outside=1 - share)


def _page(record: Record) -> str:
    """The page's visible text; none where it has no charset or too much markup: no recipe gets text out of it."""
    try:
        return visible_text(record)
    except BadInput:
        return ""
