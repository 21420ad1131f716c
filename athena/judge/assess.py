"""One commitment in, one score sheet out: the gates in order, the proxy comparison, then the units."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import pyarrow.parquet as pq

from athena.crawl import Crawl
from athena.durable import write_file
from athena.errors import BadInput, NotFound
from athena.evalpack import EvalPack, PackShelf
from athena.events import EventLog
from athena.hub import Hub
from athena.judge import score
from athena.judge.evidence import Case, Evidence, Rival, Rows, noting_undecided
from athena.judge.gates import (
    completeness,
    contamination,
    copies,
    duplicates,
    form,
    known,
    language,
    privacy,
    provenance,
    screens,
)
from athena.judge.gates.form import dataset_folder
from athena.judge.known import KnownRelease
from athena.judge.proxy.arms import ProxyWorkers
from athena.judge.proxy.comparison import Comparison, compare
from athena.judge.public_work import PublicWork, public_work
from athena.judge.rules import Rules
from athena.judge.verdicts import failed, guarded, passed
from athena.optout import LeftOut, left_out
from athena.protocol import MAX_RIVALS_ON_SHEET, Arm, Basis, RivalRef, ScoreSheet, Verdict
from athena.refine.manifest import ROW_SCHEMA
from athena.refine.recipe import Recipe, load_recipe
from athena.refine.run import refine_warc
from athena.wire import OptOut

__all__ = ["Bench", "Case", "Rival", "assess", "dataset_folder"]

Gates = tuple[tuple[str, Callable[[Evidence], Verdict]], ...]

# Form comes before these, the proxy after them: cheap first, and each may rely on the ones before it.
GATES: Gates = (
    (provenance.GATE, provenance.check),
    (completeness.GATE, completeness.check),
    (duplicates.GATE, duplicates.check),
    (copies.GATE, copies.check),
    (known.GATE, known.check),
    (contamination.GATE, contamination.check),
    (privacy.GATE, privacy.check),
    (language.GATE, language.check),
    (screens.GATE, screens.check),
)
PROXY = "proxy"


@dataclass(frozen=True)
class Bench:
    """A validator's instruments. `validator` is its hotkey; `workdir` keeps all that a restart would have to redo.

    `workers` train proxy models; whoever makes a bench closes it. Without workers nothing is compared. `opt_outs`
    gives the list of domains that asked to be left out, as the task server tells it now. `gates` are run in order.
    `known` are filters of public releases, which submissions may not repeat; `base` is the checkpoint that the rules
    name, where they name one. What is made for a case, and can be made again, lies in `scratch`, by default in
    `workdir`. Where evaluation packs follow one another, `pack_at` takes them from `packs`.
    """

    hub: Hub
    crawl: Crawl
    pack: EvalPack
    rules: Rules
    validator: str
    workdir: Path
    events: EventLog
    workers: ProxyWorkers | None = field(default_factory=ProxyWorkers)
    opt_outs: Callable[[], Sequence[OptOut]] = tuple
    gates: Gates = GATES
    known: tuple[KnownRelease, ...] = ()
    scratch: Path | None = None
    base: Path | None = None
    packs: PackShelf | None = None

    def pack_at(self, block: int) -> EvalPack:
        """The pack that cases with this seed block are judged by. Raises Misconfigured where none is in use then."""
        return self.packs.at(block) if self.packs is not None else self.pack

    def close(self) -> None:
        if self.workers is not None:
            self.workers.close()

    @property
    def made(self) -> Path:
        """The folder of refined rows and arms."""
        return self.scratch or self.workdir

    @cached_property
    def canonical_recipe(self) -> Recipe:
        return load_recipe(self.rules.canonical_recipe)

    @cached_property
    def public_recipes(self) -> tuple[Recipe, ...]:
        return tuple(map(load_recipe, self.rules.gates.public_recipes))

    @cached_property
    def raw_recipe(self) -> Recipe:
        return load_recipe(self.rules.raw_recipe)

    def refined(self, path: str, recipe: Recipe, left_out: LeftOut) -> Rows:
        """The rows that a recipe makes of a WARC file; kept on disk. Raises what the crawl raises."""
        name = hashlib.sha256(f"{recipe.hash} {left_out.digest} {path}".encode()).hexdigest()
        file = self.made / "refined" / f"{name}.parquet"
        if not file.exists():
            sink = io.BytesIO()
            result = refine_warc(path, recipe, self.crawl, left_out=left_out)
            pq.write_table(noting_undecided(result.table, result.undecided), sink)
            write_file(file, sink.getvalue())
        return Rows(pq.read_table(file))

    def public_work(self, path: str, places: Sequence[tuple[int, int]]) -> list[PublicWork | None]:
        """What public recipes make of the records at these (offset, length). Raises what the crawl raises."""
        return public_work(self.crawl, path, places, self.public_recipes)

    def rival_rows(self, rival: Rival) -> Rows:
        """Rows of an earlier dataset; none if its files do not hold what they promise. Raises Unavailable."""
        try:
            return form.read_folder(rival.folder, self.rules.gates).rows
        except BadInput:
            return Rows(ROW_SCHEMA.empty_table())


def assess(case: Case, bench: Bench, compared: Callable[[Comparison], None] = lambda _: None) -> ScoreSheet:
    """Judges one commitment. Never raises for a miner's or a service's fault: the sheet's outcome says what happened.

    fail: a gate found a fault of the dataset. none: this validator could not tell (a service or this machine failed,
    or its canaries came out of order) and should try again later. pass: `units` and, where something could be
    compared, `effect` are set. Where proxies ran, `compared` is told what they measured: more than a sheet holds.
    """
    bench.events.emit("judge.start", task=case.task.id, hotkey=case.hotkey)
    assessment = _Assessment(case, bench)
    sheet = assessment.run()
    if assessment.comparison is not None:
        compared(assessment.comparison)
    found = sheet.effect
    bench.events.emit(
        "judge.done", task=case.task.id, hotkey=case.hotkey, outcome=sheet.outcome, units=sheet.units,
        effect=found and found.mean, low=found and found.low, high=found and found.high,
        reason=next((v.reason for v in sheet.gates if v.outcome != "pass"), ""),
    )  # fmt: skip
    return sheet


class _Stopped(Exception):
    """A gate did not pass; its verdict is the last one."""


class _Assessment:
    """The state of one call of `assess`: what the sheet will say."""

    def __init__(self, case: Case, bench: Bench) -> None:
        self._case, self._bench = case, bench
        self._verdicts: list[Verdict] = []
        self.comparison: Comparison | None = None

    def run(self) -> ScoreSheet:
        with contextlib.suppress(_Stopped):
            evidence = self._open()
            for gate, check in self._bench.gates:
                self._take(guarded(gate, partial(check, evidence)))
            if self._bench.workers is not None:
                self._take(guarded(PROXY, partial(self._compare, evidence, self._bench.workers)))
        return self._sheet()

    def _take(self, verdict: Verdict) -> None:
        """Notes a verdict. Raises _Stopped unless it is a pass."""
        self._verdicts.append(verdict)
        self._bench.events.emit(
            "judge.gate", task=self._case.task.id, hotkey=self._case.hotkey, gate=verdict.gate,
            outcome=verdict.outcome, reason=verdict.reason,
        )  # fmt: skip
        if verdict.outcome != "pass":
            raise _Stopped

    def _open(self) -> Evidence:
        """The evidence, once the form gate passed."""
        bench, opened, excluded = self._bench, list[form.Opened](), list[LeftOut]()

        def check() -> Verdict:
            try:
                opened.append(form.open_dataset(self._case, bench.hub, bench.workdir, bench.rules.gates))
            except (BadInput, NotFound) as error:
                return failed(form.GATE, error.message)
            excluded.append(left_out(bench.opt_outs(), self._case.issued_block))
            return passed(form.GATE, rows=opened[0].manifest.rows)

        self._take(guarded(form.GATE, check))
        return Evidence(
            case=self._case,
            rules=bench.rules,
            manifest=opened[0].manifest,
            rows=opened[0].rows,
            crawl=bench.crawl,
            pack=bench.pack,
            canonical_recipe=bench.canonical_recipe,
            left_out=excluded[0],
            refined=lambda path: bench.refined(path, bench.canonical_recipe, excluded[0]),
            rival_rows=bench.rival_rows,
            public_work=bench.public_work,
            known=bench.known,
        )

    def _compare(self, evidence: Evidence, workers: ProxyWorkers) -> Verdict:
        """The proxy's verdict: its canaries'. Keeps the comparison for the sheet."""
        bench = self._bench
        self.comparison = compare(
            evidence,
            raw=lambda path: bench.refined(path, bench.raw_recipe, evidence.left_out),
            workers=workers,
            folder=bench.made / "arms",
            finished=self._arm_done,
            base=bench.base,
        )
        return self.comparison.canaries or passed(PROXY, compared=False)

    def _arm_done(self, arm: Arm, done: int, total: int) -> None:
        self._bench.events.emit(
            "judge.proxy", task=self._case.task.id, hotkey=self._case.hotkey, arm=arm.name, seed=arm.seed, done=done,
            total=total, bpb=score.mean(arm.bits_per_byte),
        )  # fmt: skip

    def _sheet(self) -> ScoreSheet:
        case, bench, compared = self._case, self._bench, self.comparison
        outcome = self._verdicts[-1].outcome
        measured = compared.measured if compared is not None else ()
        yielded = compared.yield_ratio if compared is not None else 0.0
        time = case.time_factor(bench.rules.pay)
        weighed = outcome == "pass"
        return ScoreSheet(
            task_id=case.task.id,
            hotkey=case.hotkey,
            dataset=case.commitment.dataset,
            validator=bench.validator,
            rule_version=bench.rules.version,
            eval_pack=bench.pack.hash,
            issued_block=case.issued_block,
            commit_block=case.commit_block,
            seed_block=case.seed_block,
            outcome=outcome,
            gates=tuple(self._verdicts),
            arms=compared.arms if compared is not None else (),
            effect=score.effect(measured, bench.rules.pay, case.seed("bootstrap")) if weighed and measured else None,
            yield_ratio=yielded,
            time_factor=time,
            units=score.units(len(case.task.shard.warc_paths), yielded, time) if weighed else 0.0,
            basis=_basis(case),
        )


def _basis(case: Case) -> Basis:
    refs = [
        RivalRef(commitment=rival.commitment, commit_block=rival.commit_block)
        for rival in sorted(case.rivals, key=lambda rival: (rival.commit_block, rival.hotkey))
        if rival.commitment is not None
    ]
    return Basis(
        shard=case.task.shard,
        opened_block=case.task.opened_block,
        deadline_block=case.deadline_block,
        median_blocks=case.median_blocks,
        block_hash=case.block_hash,
        reference_hash=case.reference_hash,
        num_rivals=len(case.rivals),
        rivals=tuple(refs[-MAX_RIVALS_ON_SHEET:]),
    )
