"""Gate 3: a set that claims the canonical recipe is what the canonical recipe makes."""

from __future__ import annotations

import itertools
from collections.abc import Set

import pyarrow as pa

from athena.judge.evidence import Evidence
from athena.judge.verdicts import failed, passed
from athena.protocol import Verdict
from athena.refine.text.minhash import buckets

GATE = "completeness"


def check(evidence: Evidence) -> Verdict:
    """Compares all records of the drawn WARC file with the validator's own refinement of it.

    Where the claim holds, both hold the same rows, but for those that the miner dropped as near-duplicates of a row
    in another file of the shard. Records that this validator could not decide speak neither for nor against. Passes at
    once for a set that claims another recipe. Raises Unavailable.
    """
    if evidence.manifest.recipe.hash != evidence.canonical_recipe.hash:
        return passed(GATE, claims_canonical=False)
    ours, theirs = evidence.canonical.by_offset, evidence.drawn.by_offset
    undecided = evidence.canonical.undecided
    extra = sorted(offset for offset, text in theirs.items() if offset not in undecided and ours.get(offset) != text)
    if extra:
        return failed(GATE, "rows that the claimed recipe does not make", rows=len(extra), offsets=extra[:5])
    missing = [offset for offset in ours if offset not in theirs]
    unexplained = _without_twin(missing, evidence)
    if len(unexplained) > evidence.rules.gates.max_incomplete_share * len(ours):
        reason = "rows are missing that the claimed recipe makes"
        return failed(GATE, reason, rows=len(unexplained), of=len(ours), offsets=unexplained[:5])
    return passed(GATE, claims_canonical=True, compared=len(ours), near_duplicates=len(missing) - len(unexplained))


def _without_twin(offsets: list[int], evidence: Evidence) -> list[int]:
    """Those of our rows that share no MinHash bucket with any row of an earlier file, or that we could not decide."""
    if not offsets:
        return []
    missing = _at(set(offsets), evidence.canonical.table)
    present: set[tuple[int, bytes]] = set()
    for path in itertools.takewhile(lambda path: path != evidence.warc, evidence.case.task.shard.warc_paths):
        present |= _buckets(evidence.rows.of_warc(path).table)
    present |= _buckets(_at(evidence.canonical.undecided, evidence.drawn.table))
    twins = [bool(_buckets(missing.slice(i, 1)) & present) for i in range(missing.num_rows)]
    return [o for o, twin in zip(missing["warc_offset"].to_pylist(), twins, strict=True) if not twin]


def _at(offsets: Set[int], table: pa.Table) -> pa.Table:
    return table.filter(pa.array([offset in offsets for offset in table["warc_offset"].to_pylist()], pa.bool_()))


def _buckets(table: pa.Table) -> set[tuple[int, bytes]]:
    found: set[tuple[int, bytes]] = set()
    for signature in table["minhash"].to_pylist():
        if signature is not None:
            found.update((i, bucket.tobytes()) for i, bucket in enumerate(buckets(signature)))
    return found
