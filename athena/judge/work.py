"""A validator's work: read commitments into the queue, judge what is due, post the sheets, turn them into weights."""

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

from athena.chain.client import Chain, Neuron
from athena.client import LedgerClient
from athena.errors import AthenaError, NotFound, RateLimited, Unavailable
from athena.judge import weights as pay_formula
from athena.judge.assess import Bench, Case, Rival, assess, dataset_folder
from athena.judge.evidence import Found
from athena.judge.queue import CaseQueue, Entry
from athena.judge.reading import due_blocks, read_commitments
from athena.judge.rules import rules_of
from athena.protocol import SignedSheet

log = logging.getLogger("athena.validator")
LAST_READ = "last_read_block"


class Reader:
    """Reads every due block of the chain into the queue, each once, also across restarts."""

    def __init__(self, chain: Chain, ledger: LedgerClient, queue: CaseQueue, every: int) -> None:
        self._chain, self._ledger, self._queue, self._every = chain, ledger, queue, every

    def read_up_to(self, head: int) -> int:
        """How many new cases there are. Raises Unavailable; what was read before stays read."""
        new = 0
        for block in due_blocks(self._queue.noted(LAST_READ), head, self._every):
            for found in read_commitments(self._chain, self._ledger, block, self._every):
                new += self._enqueue(found)
            self._queue.note(LAST_READ, block)
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


class Judge(threading.Thread):
    """Judges due cases one after the other in a thread of its own, so that reading and weights never wait for it.

    What ended the thread stands in `failure`, which is to be watched.
    """

    def __init__(self, queue_file: Path, bench: Bench, ledger: LedgerClient, sign: Callable[[bytes], str]) -> None:
        super().__init__(name="judge", daemon=True)
        self._queue_file, self._bench, self._ledger, self._sign = queue_file, bench, ledger, sign
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with closing(CaseQueue(self._queue_file)) as queue, closing(self._bench):
                while True:
                    self.post(queue)
                    if not self.judge_next(queue):
                        time.sleep(0.5)
        except Exception as error:  # the outermost loop of this thread: the main loop ends the process with it
            log.exception("the judge stopped")
            self.failure = error

    def judge_next(self, queue: CaseQueue) -> bool:
        """Judges the case that is due next and stores its sheet; False when none is."""
        entry = queue.due(time.time())
        if entry is None:
            return False
        case = self._case(queue, entry)
        sheet = assess(case, replace(self._bench, rules=rules_of(case.task.rule_version)))
        queue.settle(entry.key, SignedSheet(sheet=sheet, signature=self._sign(sheet.canonical())), now=time.time())
        log.info("task %s of %s: %s", case.task.id[:8], case.hotkey, sheet.outcome)
        return True

    def post(self, queue: CaseQueue) -> None:
        """Posts the sheets that the task server does not have yet; what it cannot take now stays for the next time."""
        for key, signed in queue.unposted():
            try:
                self._ledger.post_sheet(signed)
            except (Unavailable, RateLimited) as error:
                log.warning("sheets stay here for now: %s", error)
                return
            except AthenaError as error:  # refused for good: the weights count all the same
                log.error("the task server refuses the sheet of %s: %s", key, error)
            queue.mark_posted(key)

    def _case(self, queue: CaseQueue, entry: Entry) -> Case:
        """The case with what the queue knows of others by its seed block: rivals, and the task's median time.

        Only of what pay still remembers, so that work does not grow for ever.
        """
        found = Found.model_validate_json(entry.payload)
        since = found.commit_block - rules_of(found.task.rule_version).pay.memory_blocks
        known = [Found.model_validate_json(payload) for payload in queue.payloads(since)]
        same_task = [k for k in known if k.task == found.task and k.seed_block <= found.seed_block]
        times = [k.commit_block - k.issued_block for k in same_task]
        first = min(same_task, key=lambda k: k.seed_block)
        rivals = (
            Rival(dataset_folder(self._bench.workdir, k.commitment), k.hotkey, k.commit_block, k.task.id)
            for k in known
            if k.hotkey != found.hotkey and k.commit_block < found.commit_block
        )
        return Case(
            **dict(found),
            reference_hash=first.block_hash,
            rivals=tuple(rival for rival in rivals if rival.folder.exists()),
            median_blocks=int(statistics.median(times)),
        )


def weights_now(
    queue: CaseQueue, ledger: LedgerClient, neurons: list[Neuron], rule_version: str, block: int
) -> Mapping[str, float] | None:
    """What the pay formula says at `block`, by hotkey; None before the first verdict.

    Expired leases count as abandoned. Where nobody earns, all weight goes to uid 0, which burns it.
    """
    rules = rules_of(rule_version)
    since = block - rules.pay.memory_blocks
    history: dict[str, list[pay_formula.Judged]] = defaultdict(list)
    for signed in queue.sheets(since):
        history[signed.sheet.hotkey].append(pay_formula.judged(signed.sheet, rules))
    if all(entry.outcome == "none" for entries in history.values() for entry in entries):
        return None
    for lease in ledger.leases(state="expired"):
        entries = history[lease.hotkey]
        if lease.deadline_block >= since and all(entry.task_id != lease.task.id for entry in entries):
            entries.append(pay_formula.abandoned(lease.task.id, lease.deadline_block, rules))
    registered = {neuron.hotkey: neuron.registered_block for neuron in neurons}
    payout = pay_formula.pay(history, rules, now_block=block, registered=registered)
    return {neurons[0].hotkey: 1.0} if payout.burn else payout.weights
