"""The event chain: every change of the ledger in order, each link hashed over the one before it.

Whoever kept one hash can prove later that nothing up to it was rewritten. Anyone can replay the chain and recompute
the draws from it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from athena.errors import BadInput
from athena.leasing import lease_positions
from athena.ledger_state import Leased, LedgerState, TaskLine
from athena.protocol import canonical_json
from athena.wire import EventHead, LedgerEvent, TaskView

GENESIS = "0" * 64
"""The hash before the first event."""
START = EventHead(sequence=0, hash=GENESIS)

# Two transactions that ran at the same time began at most this far apart: none may take longer. On a server with
# several writers a claim steps over a task that another one is just writing to, and which of the two comes first in
# the chain is chance.
RACE_SECONDS = 10


def link_hash(previous: str, sequence: int, at: int, kind: str, body: Mapping[str, Any]) -> str:
    """sha256(previous hash ‖ canonical JSON of {at, body, kind, sequence}), 64 hex characters.

    `at` is the server's clock in UTC microseconds since 1970; sequences start at 1 and have no gaps.
    """
    event = {"sequence": sequence, "at": at, "kind": kind, "body": dict(body)}
    return hashlib.sha256(bytes.fromhex(previous) + canonical_json(event)).hexdigest()


def verified(events: Iterable[LedgerEvent], after: EventHead | None = None) -> Iterator[LedgerEvent]:
    """The same events, each once it is proven to be the link that follows the one before, the first follows `after`.

    Raises BadInput, naming the first bad sequence.
    """
    sequence, previous = (after or START).sequence, (after or START).hash
    for event in events:
        sequence += 1
        if event.sequence != sequence:
            raise BadInput(f"event {sequence} is missing: {event.sequence} is in its place")
        previous = link_hash(previous, sequence, event.at, event.kind, event.body)
        if event.hash != previous:
            raise BadInput(f"event {sequence} does not follow the one before it, or was changed: its hash is wrong")
        yield event


def verify_chain(events: Iterable[LedgerEvent], after: EventHead | None = None) -> EventHead:
    """The end of the chain; `after` itself where nothing follows it. Raises BadInput as `verified`."""
    head = after or START
    for event in verified(events, after):
        head = EventHead(sequence=event.sequence, hash=event.hash)
    return head


def replay(events: Iterable[LedgerEvent]) -> LedgerState:
    """What holds after events from the first on. Raises BadInput for what cannot have happened (LedgerState.apply)."""
    state = LedgerState()
    for event in events:
        state.apply(event)
    return state


def check_listing(state: LedgerState, views: Iterable[TaskView]) -> list[str]:
    """The ids of all imported tasks by position: those that the chain has the digests of.

    `views` as the server lists them. Raises BadInput for a task that is missing, or not the one that was imported.
    """
    rest = iter(views)
    ids: list[str] = []
    for batch in state.batches:
        of = batch.imported
        for view in islice(rest, of.tasks):
            stated = (view.position, view.id, view.task.opened_block, view.task.shard.crawl, view.task.rule_version)
            if stated != (len(ids), view.task.id, of.block, of.crawl, of.rule_version):
                raise BadInput(f"the task that the server lists at position {len(ids)} is another one")
            ids.append(view.id)
        if len(ids) < of.first_position + of.tasks:
            raise BadInput(f"the server lists {len(ids)} tasks; it keeps back some that it imported")
        if hashlib.sha256("\n".join(ids[of.first_position :]).encode()).hexdigest() != of.sha256:
            last = of.first_position + of.tasks - 1
            raise BadInput(f"the tasks listed at positions {of.first_position} to {last} are not those imported")
    return ids


class Writes:
    """When a chain, which must have been replayed, says that tasks were written to."""

    def __init__(self) -> None:
        self._by_task: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)

    def note(self, event: LedgerEvent) -> None:
        # Of heartbeats and sheets a draw sees nothing: they leave the task as it is.
        if event.kind in ("leased", "released", "expired", "submitted", "audited", "closed"):
            self._by_task[str(event.body["task"])].append((event.sequence, event.at))

    def beside(self, event: LedgerEvent, task: str) -> int | None:
        """The sequence of another write of `task`, at the same time as `event`."""
        for sequence, at in self._by_task.get(task, ()):
            if sequence != event.sequence and _at_once(at, event.at):
                return sequence
        return None


Reason = Literal["taken", "repeated", "held", "closed", "filled", "raced", "free", "another"]


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of a claim: the task at `position`, and why it was skipped, or that it was taken.

    repeated: drawn before. held: this hotkey or its coldkey had a lease of it. closed, filled: no slot was left.
    raced: written to at that very moment, by event `beside`. Two are faults: free, where it should have been taken;
    another, where it is not the task that was leased.
    """

    index: int
    position: int
    task: str
    reason: Reason
    beside: int | None = None

    @property
    def faulty(self) -> bool:
        return self.reason in ("free", "another")


@dataclass(frozen=True)
class Draws:
    """The draws of one lease, up to the one that took its task. `sequence`: of the event that issued it.

    `listed`: how many tasks there were to draw from at its block.
    """

    sequence: int
    leased: Leased
    listed: int
    draws: tuple[Draw, ...]

    @property
    def due(self) -> bool:
        """Whether they were drawn from the right tasks, are as many as the lease says, and each is explained."""
        return (
            self.leased.listed == self.listed
            and len(self.draws) == self.leased.draw_index + 1
            and not any(draw.faulty for draw in self.draws)
        )


def check_draw(
    event: LedgerEvent, before: LedgerState, *, block_hash: str, task_ids: Sequence[str], writes: Writes
) -> Draws:
    """Recomputes the draws of a `leased` event: whether its task was due to its hotkey.

    `before`: the state just before it, `task_ids` by position, `writes` of the whole chain.
    """
    leased = Leased.model_validate(event.body)
    listed = before.listed(leased.block)
    if any(
        batch.imported.first_position == leased.listed < listed and _at_once(batch.at, event.at)
        for batch in before.batches
    ):
        listed = leased.listed  # the claim did not yet see what was imported at that very moment
    positions = islice(lease_positions(block_hash, leased.hotkey, min(leased.listed, listed)), leased.draw_index + 1)
    seen: set[int] = set()
    draws: list[Draw] = []
    for index, position in enumerate(positions):
        task = task_ids[position]
        beside: int | None = None
        if index == leased.draw_index:
            reason: Reason = "taken" if task == leased.task else "another"
        elif position in seen:
            reason = "repeated"
        else:
            reason, beside = _skipped(event, leased, task, before.tasks.get(task), writes)
        seen.add(position)
        draws.append(Draw(index, position, task, reason, beside))
    return Draws(event.sequence, leased, listed, tuple(draws))


def check_draws(
    events: Iterable[LedgerEvent],
    *,
    wanted: Callable[[Leased], bool],
    block_hash: Callable[[int], str],
    task_ids: Sequence[str],
    writes: Writes,
) -> Iterator[Draws]:
    """The draws of every `wanted` lease of a chain, from its first event on; `block_hash` by height."""
    state = LedgerState()
    for event in events:
        if event.kind == "leased":
            leased = Leased.model_validate(event.body)
            if wanted(leased):
                yield check_draw(event, state, block_hash=block_hash(leased.block), task_ids=task_ids, writes=writes)
        state.apply(event)


def _skipped(
    event: LedgerEvent, leased: Leased, task: str, line: TaskLine | None, writes: Writes
) -> tuple[Reason, int | None]:
    if line is not None and line.known_to(leased.hotkey, leased.coldkey):
        return "held", None
    if line is not None and line.closed:
        return "closed", None
    if line is not None and line.filled:
        return "filled", None
    beside = writes.beside(event, task)
    return ("free" if beside is None else "raced"), beside


def _at_once(one: int, other: int) -> bool:
    return abs(one - other) <= RACE_SECONDS * 1_000_000
