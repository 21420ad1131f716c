"""A validator's work: read commitments into the queue, judge what is due, hand out sheets, turn them into weights."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from athena.chain.client import Chain, Neuron
from athena.chain.link import StateGone
from athena.client import LedgerClient
from athena.errors import AthenaError, NotFound
from athena.judge import weights as pay_formula
from athena.judge.assess import Bench, Case, Rival, assess, dataset_folder
from athena.judge.disk import task_folder, tidy
from athena.judge.evidence import Found
from athena.judge.outbox import SheetRepository, post
from athena.judge.proxy.comparison import Comparison
from athena.judge.queue import LAST_READ, CaseQueue
from athena.judge.reading import due_blocks, read_commitments
from athena.judge.rules import rules_of
from athena.judge.sealed import SealedHalves
from athena.judge.watched import Watched
from athena.protocol import SignedSheet

log = logging.getLogger("athena.validator")
READS_AT_A_TIME = 50
POLL_SECONDS = 0.5
TEND_SECONDS = 600.0
"""Between two commits to the sheets' repository: the hub allows an account some hundred an hour, for all it does."""
STOP_SECONDS = 5.0


class Reader:
    """Reads every due block of the chain into the queue, each once, also across restarts."""

    def __init__(self, chain: Chain, ledger: LedgerClient, queue: CaseQueue, every: int) -> None:
        self._chain, self._ledger, self._queue, self._every = chain, ledger, queue, every

    def read_up_to(self, head: int) -> int:
        """How many new cases there are, after at most READS_AT_A_TIME reads: to catch up, call it again.

        Raises Unavailable; what was read before stays read. A block of whose state the node knows nothing any more is
        passed over: a later one shows most of it.
        """
        new, gone = 0, list[int]()
        due = due_blocks(self._queue.noted(LAST_READ), head, self._every)
        if len(due) > READS_AT_A_TIME:
            log.info("catching up: %d reads, from block %d to %d", len(due), due[0], due[-1])
        for block in due[:READS_AT_A_TIME]:
            commitments = list[Found]()
            try:
                commitments += read_commitments(self._chain, self._ledger, block, self._every)
            except StateGone:
                gone.append(block)
            with self._queue.at_once():  # a case's median time and reference are those of its whole block
                new += sum(map(self._enqueue, commitments))
                self._queue.note(LAST_READ, block)
        if gone:
            log.error(
                "%d reads from block %d to %d are lost to this validator: the node dropped their state; an archive "
                "node has it",
                len(gone), gone[0], gone[-1],
            )  # fmt: skip
        return new

    def _enqueue(self, found: Found) -> bool:
        try:
            rules_of(found.task.rule_version)
        except NotFound as error:
            log.error("task %s cannot be judged here: %s", found.task.id, error)
            return False
        return self._queue.enqueue(
            found.key,
            hotkey=found.hotkey,
            task_id=found.task.id,
            commit_block=found.commit_block,
            payload=found.canonical().decode(),
            due_at=time.time(),
        )


class Judge:
    """Judges due cases, `cases` at a time, each in a thread of its own; another thread hands out what they found.

    Cases that share WARC files are judged one after the other, in the order of their commitments: each meets the
    earlier datasets that it is held against, and takes over the arms of its task. What ended a thread stands in
    `failure`, which is to be watched. As a context manager, it starts and stops.
    """

    def __init__(
        self,
        queue_file: Path,
        bench: Bench,
        ledger: LedgerClient,
        sign: Callable[[bytes], str],
        *,
        cases: int = 1,
        sheets: SheetRepository | None = None,
        max_bytes: int | None = None,
        sealed: SealedHalves | None = None,
    ) -> None:
        self._queue_file, self._bench, self._ledger, self._sign = queue_file, bench, ledger, sign
        self._sheets, self._max_bytes, self._sealed = sheets, max_bytes, sealed
        self._threads = [Watched(f"judge-{number}", self._judge_cases) for number in range(1, cases + 1)]
        self._threads.append(Watched("sheets", self._hand_out))
        self._stopping = threading.Event()
        self._claiming = threading.Lock()
        self._in_work: dict[str, Found] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads. What they were in the middle of is durable, and done by the next start."""
        self._stopping.set()
        self._bench.close()  # ends the workers, so that the threads that wait for them return
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def failure(self) -> Exception | None:
        return next((thread.failure for thread in self._threads if thread.failure is not None), None)

    def judge_next(self, queue: CaseQueue) -> bool:
        """Judges the case that is due next and stores its sheet; False when none is that nobody else has in work."""
        claimed = self._claim(queue)
        if claimed is None:
            return False
        case, bench = claimed
        try:
            comparisons = list[Comparison]()
            sheet = assess(case, bench, comparisons.append)
            if self._stopping.is_set() and sheet.outcome == "none":
                return False  # cut short by the stop: no fault that would put the case off
            if self._sealed is not None:
                for comparison in comparisons:
                    self._sealed.hear(queue, case, bench, sheet, comparison)
            queue.settle(case.key, SignedSheet(sheet=sheet, signature=self._sign(sheet.canonical())), now=time.time())
            log.info("task %s of %s: %s", case.task.id[:8], case.hotkey, sheet.outcome)
        finally:
            self._in_work.pop(case.key)
        return True

    def post(self, queue: CaseQueue) -> None:
        """Posts the sheets that the task server does not have yet."""
        post(queue, self._ledger)

    def tend(self, queue: CaseQueue) -> None:
        """What is due now and then: room on the disk, sheets to the hub. What fails is tried again the next time."""
        try:
            if self._max_bytes is not None:
                self._tidy(queue, self._max_bytes)
            if self._sheets is not None and (published := self._sheets.publish(queue)):
                log.info("%d score sheets are on the hub", published)
        except (AthenaError, OSError) as error:
            log.error("score sheets are not on the hub yet, or the disk is not tidy: %s", error)

    def _tidy(self, queue: CaseQueue, max_bytes: int) -> None:
        oldest = (queue.noted(LAST_READ) or 0) - self._bench.rules.pay.memory_blocks
        used = tidy(self._bench.workdir, queue, oldest_block=oldest, max_bytes=max_bytes)
        cases = {outcome or "open": count for outcome, count in queue.counts().items()}
        self._bench.events.emit("validator.state", cases=cases, disk_bytes=used)

    def _judge_cases(self) -> None:
        with CaseQueue(self._queue_file) as queue:
            while not self._stopping.is_set():
                if not self.judge_next(queue):
                    self._stopping.wait(POLL_SECONDS)

    def _hand_out(self) -> None:
        with CaseQueue(self._queue_file) as queue:
            tend_at = time.monotonic()
            while not self._stopping.wait(POLL_SECONDS):
                self.post(queue)
                if time.monotonic() >= tend_at:
                    self.tend(queue)
                    tend_at = time.monotonic() + TEND_SECONDS

    def _claim(self, queue: CaseQueue) -> tuple[Case, Bench] | None:
        """The next case that shares neither WARC file nor dataset with one in work, and what it is judged with."""
        with self._claiming:
            with closing(queue.waiting(time.time())) as entries:
                waiting = (Found.model_validate_json(entry.payload) for entry in entries)
                found = next((found for found in waiting if self._is_free(found)), None)
            if found is None:
                return None
            queue.begin(found.key, now=time.time())
            try:
                bench = self._bench_of(found)
            except AthenaError as error:  # of this machine; the case is due again later
                log.error("task %s of %s waits: %s", found.task.id[:8], found.hotkey, error)
                return None
            case = self._case(queue, found)
            self._in_work[found.key] = found
            return case, bench

    def _is_free(self, found: Found) -> bool:
        files, dataset = set(found.task.shard.warc_paths), found.commitment.dataset
        return all(
            files.isdisjoint(other.task.shard.warc_paths) and dataset != other.commitment.dataset
            for other in list(self._in_work.values())
        )

    def _bench_of(self, found: Found) -> Bench:
        """Raises NotFound and Misconfigured where rules or pack are not here."""
        rules, pack = rules_of(found.task.rule_version), self._bench.pack_at(found.seed_block)
        return replace(self._bench, rules=rules, pack=pack, scratch=task_folder(self._bench.workdir, found.task.id))

    def _case(self, queue: CaseQueue, found: Found) -> Case:
        """The case with what the queue knows of others by its seed block: rivals, and the task's median time.

        Only of what pay still remembers, so that work does not grow for ever.
        """
        since = found.commit_block - rules_of(found.task.rule_version).pay.memory_blocks
        known = [Found.model_validate_json(payload) for payload in queue.payloads(since)]
        same_task = [k for k in known if k.task == found.task and k.seed_block <= found.seed_block]
        times = [k.commit_block - k.issued_block for k in same_task]
        first = min(same_task, key=lambda k: k.seed_block)
        rivals = (
            Rival(dataset_folder(self._bench.workdir, k.commitment), k.hotkey, k.commit_block, k.task.id, k.commitment)
            for k in known
            if found.may_copy(k)
        )
        return Case(
            **dict(found),
            reference_hash=first.block_hash,
            rivals=tuple(rival for rival in rivals if rival.folder.exists()),
            median_blocks=int(statistics.median(times)),
        )


def weights_now(
    queue: CaseQueue, ledger: LedgerClient, neurons: list[Neuron], owner: str, rule_version: str, block: int
) -> Mapping[str, float] | None:
    """What the pay formula says at `block`, by hotkey; None before the first verdict.

    Expired leases count as abandoned. Where nobody earns, all weight goes to `owner`, the hotkey of the subnet's owner:
    the chain burns what that would get. Where it is not registered, uid 0 stands in.
    """
    rules = rules_of(rule_version)
    since = block - rules.pay.memory_blocks
    history: dict[str, list[pay_formula.Judged]] = defaultdict(list)
    for signed in queue.sheets(since):
        judged = pay_formula.judged(signed.sheet, rules_of(signed.sheet.rule_version))
        history[signed.sheet.hotkey].append(judged)
    if all(entry.outcome == "none" for entries in history.values() for entry in entries):
        return None
    for lease in ledger.leases(state="expired"):
        entries = history[lease.hotkey]
        if lease.deadline_block >= since and all(entry.task_id != lease.task.id for entry in entries):
            entries.append(pay_formula.abandoned(lease.task.id, lease.deadline_block, rules))
    registered = {neuron.hotkey: neuron.registered_block for neuron in neurons}
    payout = pay_formula.pay(history, rules, now_block=block, registered=registered)
    return {owner if owner in registered else neurons[0].hotkey: 1.0} if payout.burn else payout.weights
