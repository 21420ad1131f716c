"""Gate 3: a set that claims the canonical recipe is what the canonical recipe makes."""

from __future__ import annotations

import itertools
from collections.abc import Set

import numpy.typing as npt
import pyarrow as pa

from athena.judge.evidence import Evidence
from athena.judge.verdicts import failed, passed
from athena.protocol import Verdict
from athena.refine.text.minhash import buckets, signature

GATE = "completeness"
Bucket = tuple[int, bytes]


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
    lacking = [_buckets(hashes) for hashes in missing["minhash"].to_pylist()]
    wanted = set[Bucket]().union(*lacking)
    present = _proven(_at(evidence.canonical.undecided, evidence.drawn.table), wanted)
    for path in itertools.takewhile(lambda path: path != evidence.warc, evidence.case.task.shard.warc_paths):
        present |= _proven(evidence.rows.of_warc(path).table, wanted)
    return [o for o, found in zip(missing["warc_offset"].to_pylist(), lacking, strict=True) if not found & present]


def _at(offsets: Set[int], table: pa.Table) -> pa.Table:
    return table.filter(pa.array([offset in offsets for offset in table["warc_offset"].to_pylist()], pa.bool_()))


def _proven(table: pa.Table, wanted: set[Bucket]) -> set[Bucket]:
    """Those of the wanted buckets that rows have by their texts. The miner wrote the column of signatures itself: it
    only says where to look."""
    found = set[Bucket]()
    for batch in table.select(["minhash", "text"]).to_batches(max_chunksize=1024):
        for claimed, text in zip(batch["minhash"].to_pylist(), batch["text"], strict=True):
            if wanted & _buckets(claimed):
                found |= wanted & _buckets(signature(text.as_py()))
    return found


def _buckets(of: npt.ArrayLike | None) -> set[Bucket]:
    return set() if of is None else {(i, bucket.tobytes()) for i, bucket in enumerate(buckets(of))}
