"""The gates that a miner can look through before it commits: what is sure to fail is not worth a commitment.

Only those that need nothing of a validator's own: no evaluation pack, no other miner's data, no second refinement.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa

from athena import draw
from athena.crawl import Crawl
from athena.errors import BadInput
from athena.evalpack import EvalPack, PackInfo
from athena.judge.evidence import Case, Evidence, Rows
from athena.judge.gates import duplicates, form, language, privacy, provenance, screens
from athena.judge.rules import GateRules, Rules, rules_of
from athena.judge.verdicts import failed, guarded, passed
from athena.optout import NOTHING_LEFT_OUT
from athena.protocol import Commitment, DatasetRef, Lease, Verdict
from athena.refine.manifest import ROW_SCHEMA
from athena.refine.recipe import load_recipe

PROVENANCE_ROWS = 16
"""Derived again from the crawl, one byte range each: a fault in a fifth of the rows shows with 97 %."""
SAMPLED_ROWS = 500
"""Looked at for repetition: bounds time and memory, and a repetitive recipe shows in any sample."""

NO_PACK = EvalPack(PackInfo(name="none", domains=(), documents=1, sha256="0" * 64), ())
"""For those who judge without the network's evaluation pack: nothing quotes it."""
_NO_ROWS = Rows(ROW_SCHEMA.empty_table())

_load_canonical = lru_cache(maxsize=1)(load_recipe)


def inspect_own(dataset: Path, lease: Lease, crawl: Crawl) -> Verdict:
    """The first verdict on the miner's own dataset folder that is no pass, else the last pass.

    fail: a validator would find the same. none: a service or this machine was at fault, which says nothing of the
    dataset. The form is checked in a process of its own, as validators do; its rows wait beside the folder meanwhile.
    """
    verified = dataset.with_name(f"{dataset.name}.arrow")
    verified.unlink(missing_ok=True)  # of an earlier version of the dataset
    try:
        return guarded("inspection", partial(_inspect, dataset, lease, crawl))
    finally:
        verified.unlink(missing_ok=True)


def _inspect(dataset: Path, lease: Lease, crawl: Crawl) -> Verdict:
    rules = rules_of(lease.task.rule_version)
    try:
        opened = form.read_folder(dataset, rules.gates)
    except BadInput as error:
        return failed(form.GATE, error.message)
    if not opened.rows.count:
        return passed(form.GATE, rows=0)
    evidence = _evidence(opened, lease, crawl, rules)
    sample = replace(evidence, rows=_sampled(evidence))
    checks: tuple[tuple[str, Callable[[], Verdict]], ...] = (
        (duplicates.GATE, partial(duplicates.check, sample)),
        (privacy.GATE, partial(privacy.check, sample)),
        (language.GATE, partial(language.check, sample)),
        (screens.GATE, partial(screens.check, sample)),
        (provenance.GATE, partial(provenance.check, evidence)),  # last: it asks the crawl
    )
    verdict = passed(form.GATE, rows=opened.rows.count)
    for gate, check in checks:
        verdict = guarded(gate, check)
        if verdict.outcome != "pass":
            break
    return verdict


def _evidence(opened: form.Opened, lease: Lease, crawl: Crawl, rules: Rules) -> Evidence:
    """Evidence for the gates above, with draws that the recipe could not foresee."""
    entropy = "0x" + secrets.token_hex(32)
    reference = DatasetRef(location="file:own/dataset", revision="0" * 40, root=opened.manifest.root)
    case = Case(
        commitment=Commitment(dataset=reference, task_id=lease.task.id, hotkey=lease.hotkey),
        task=lease.task,
        issued_block=lease.issued_block,
        deadline_block=lease.deadline_block,
        commit_block=lease.issued_block,
        seed_block=lease.issued_block,
        block_hash=entropy,
        reference_hash=entropy,
    )
    return Evidence(
        case=case,
        rules=replace(rules, gates=_few_rows(rules.gates)),
        manifest=opened.manifest,
        rows=opened.rows,
        crawl=crawl,
        pack=NO_PACK,
        canonical_recipe=_load_canonical(rules.canonical_recipe),
        left_out=NOTHING_LEFT_OUT,
        refined=lambda _: _NO_ROWS,
        rival_rows=lambda _: _NO_ROWS,
        public_work=lambda *_: [],
    )


def _few_rows(gates: GateRules) -> GateRules:
    rows = min(PROVENANCE_ROWS, gates.provenance_rows)
    return replace(gates, provenance_rows=rows, provenance_rows_on_suspicion=2 * rows)


def _sampled(evidence: Evidence) -> Rows:
    rows = evidence.rows
    chosen = draw.sample(evidence.seed("inspection"), rows.count, min(SAMPLED_ROWS, rows.count))
    return Rows(rows.table.take(pa.array(sorted(chosen), type=pa.int64())))
