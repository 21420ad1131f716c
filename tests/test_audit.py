"""The audit against a model of the ledger: what is honest passes, whatever else was done is found."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bittensor.sp_core import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import select

from athena.audit import GENESIS, START, Writes, check_draw, check_draws, check_listing, link_hash, replay, verify_chain
from athena.chain.client import Head, Neuron
from athena.errors import BadInput, Conflict
from athena.leasing import lease_positions
from athena.ledger_state import LedgerState
from athena.protocol import DatasetRef, Lease, Manifest, RecipeRef, Shard, Submission, Task
from athena.wire import EventHead, LedgerEvent, TaskView
from task_server.books import EventRow
from task_server.crawl import Opening, import_crawl
from task_server.ledger import Ledger
from task_server.operators import Operators
from task_server.settings import TaskServerSettings
from task_server.store import open_store
from task_server.tables import TaskRow
from task_server.transaction import Asked, Write

HOTKEYS = [Keypair.create_from_uri(f"//{name}").ss58_address for name in ("a", "b", "c", "d", "e")]
COLDKEY = {hotkey: f"cold{min(i, 3)}" for i, hotkey in enumerate(HOTKEYS)}  # the last two share one
SECOND = 1_000_000
STEP = 60 * SECOND  # between events: nothing happens at the same time
FIRST_BLOCK = 100
HEX64 = "b" * 64


def hash_of(block: int) -> str:
    return "0x" + hashlib.sha256(f"block {block}".encode()).hexdigest()


def linked(changes: list[tuple[int, str, dict[str, Any]]]) -> list[LedgerEvent]:
    """A chain whose hashes are right, whatever it says."""
    chain, previous = [], GENESIS
    for sequence, (at, kind, body) in enumerate(changes, 1):
        previous = link_hash(previous, sequence, at, kind, body)
        chain.append(LedgerEvent(sequence=sequence, at=at, kind=kind, body=body, hash=previous))
    return chain


@dataclass
class Slot:
    copies: int
    held: dict[str, str] = field(default_factory=dict)  # hotkey -> state of its lease
    closed: bool = False
    audit_block: int | None = None
    audited: bool = False

    @property
    def free(self) -> bool:
        taken = sum(state in ("active", "submitted") for state in self.held.values())
        return not self.closed and taken < self.copies


@dataclass
class Model:
    """An honest server, in memory: what it does, it also writes down."""

    changes: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    leases: list[tuple[int, str]] = field(default_factory=list)  # position and hotkey, by fencing token from 1 on
    late: set[int] = field(default_factory=set)
    banned: set[str] = field(default_factory=set)
    block: int = FIRST_BLOCK

    def record(self, kind: str, **body: Any) -> None:
        self.changes.append((STEP * (1 + len(self.changes)), kind, body))

    def open_tasks(self, count: int, copies: int) -> None:
        first = len(self.tasks)
        for i in range(first, first + count):
            shard = Shard(crawl="LOCAL-t", warc_paths=(f"{i}.warc.gz",))
            self.tasks.append(Task(shard=shard, rule_version="1", opened_block=self.block))
            self.slots.append(Slot(copies))
        ids = "\n".join(task.id for task in self.tasks[first:])
        self.record(
            "imported", crawl="LOCAL-t", block=self.block, first_position=first, tasks=count, copies=copies,
            rule_version="1", sha256=hashlib.sha256(ids.encode()).hexdigest(),
        )  # fmt: skip

    def claim(self, hotkey: str, *, more: int = 0, skip: int = 0) -> bool:
        """The first task that is due; a dishonest server skips some."""
        coldkey, listed = COLDKEY[hotkey], len(self.tasks)
        family = {other for other in HOTKEYS if COLDKEY[other] == coldkey}
        tried: set[int] = set()
        for index, position in enumerate(lease_positions(hash_of(self.block), hotkey, listed)):
            slot = self.slots[position]
            if position in tried or not slot.free or family & set(slot.held) or coldkey in self.banned:
                continue
            tried.add(position)
            if skip > 0:
                skip -= 1
                continue
            if slot.audit_block is None:
                slot.audit_block = self.block + 1
                slot.copies += more
            slot.held[hotkey] = "active"
            self.leases.append((position, hotkey))
            self.about(
                "leased", len(self.leases), block=self.block, listed=listed, draw_index=index, audit=False,
                copies=slot.copies, coldkey=coldkey,
            )  # fmt: skip
            return True
        return False

    def about(self, kind: str, fencing: int, **body: Any) -> None:
        position, hotkey = self.leases[fencing - 1]
        self.record(kind, task=self.tasks[position].id, hotkey=hotkey, lease=f"{fencing:032x}", fencing=fencing, **body)

    def end(self, fencing: int, kind: str) -> None:
        position, hotkey = self.leases[fencing - 1]
        if self.slots[position].held[hotkey] == "active":
            self.slots[position].held[hotkey] = kind
            self.about(kind, fencing)

    def submit(self, fencing: int) -> None:
        position, hotkey = self.leases[fencing - 1]
        slot = self.slots[position]
        late = slot.held[hotkey] == "expired"
        if slot.held[hotkey] not in ("active", "expired") or fencing in self.late:
            return
        accepted = not late or slot.free
        if accepted:
            slot.held[hotkey] = "submitted"
        else:
            self.late.add(fencing)
        self.about("submitted", fencing, late=late, accepted=accepted, rows=1, tokens=2, sha256=HEX64)

    def audit(self, position: int) -> None:
        slot = self.slots[position]
        if slot.audit_block is not None and not slot.audited:
            slot.audited = True
            slot.copies += 2
            self.record("audited", task=self.tasks[position].id, block=slot.audit_block, more=2)

    def close(self, position: int) -> None:
        if not self.slots[position].closed:
            self.slots[position].closed = True
            self.record("closed", task=self.tasks[position].id, by="key:1")

    def act(self, verb: int, choice: int) -> None:
        """One of the things that may happen, by two numbers."""
        fencing = 1 + choice % max(1, len(self.leases))
        match verb:
            case 0:
                self.block += 1
                self.open_tasks(1 + choice % 5, 1 + choice % 2)
            case 1:
                coldkey = f"cold{choice % 4}"
                if choice % 3:
                    self.banned.discard(coldkey)
                    self.record("unbanned", coldkey=coldkey, by="key:1")
                else:
                    self.banned.add(coldkey)
                    self.record("banned", coldkey=coldkey, reason="why", by="key:1")
            case 2:
                self.record("opted-out", domain="example.org", since_block=self.block, reason="", by="key:1")
                self.record("opted-in", domain="example.org", until_block=self.block + 1, by="key:1")
            case 3:
                self.close(choice % len(self.tasks))
            case 4 | 5 | 6 | 7 if not self.leases:
                self.claim(HOTKEYS[choice % 5])
            case 4:
                self.end(fencing, "released" if choice % 2 else "expired")
            case 5:
                self.submit(fencing)
            case 6:
                self.audit(self.leases[fencing - 1][0])
            case 7:
                position, hotkey = self.leases[fencing - 1]
                validator = HOTKEYS[(HOTKEYS.index(hotkey) + 1) % 5]
                self.record(
                    "scored", task=self.tasks[position].id, hotkey=hotkey, validator=validator, outcome="pass",
                    sha256=HEX64,
                )  # fmt: skip
            case _:
                self.block += choice % 2
                self.claim(HOTKEYS[choice % 5], more=choice % 2)

    @property
    def chain(self) -> list[LedgerEvent]:
        return linked(self.changes)

    @property
    def views(self) -> list[TaskView]:
        return [
            TaskView(
                id=task.id, task=task, position=i, copies=slot.copies, open_slots=0, audited=None, closed=slot.closed
            )
            for i, (task, slot) in enumerate(zip(self.tasks, self.slots, strict=True))
        ]


def model_of(acts: list[tuple[int, int]]) -> Model:
    model = Model()
    model.open_tasks(4, 1)
    for verb, choice in acts:
        model.act(verb, choice)
    return model


def draws_of(model: Model, chain: list[LedgerEvent] | None = None) -> list:
    chain = model.chain if chain is None else chain
    writes = Writes()
    for event in chain:
        writes.note(event)
    ids = check_listing(replay(chain), model.views)
    return list(check_draws(chain, wanted=lambda leased: True, block_hash=hash_of, task_ids=ids, writes=writes))


ACTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1000)), max_size=40)


@settings(deadline=None)
@given(ACTS)
def test_an_honest_history_verifies_and_replays_to_the_same_state(acts):
    model = model_of(acts)
    chain = model.chain
    assert verify_chain(chain) == EventHead(sequence=len(chain), hash=chain[-1].hash)
    state = replay(chain)
    assert state.head == verify_chain(chain)
    assert state.num_tasks == len(model.tasks)
    states = [state.leases[f"{i:032x}"].state for i in range(1, len(model.leases) + 1)]
    assert states == [model.slots[position].held[hotkey] for position, hotkey in model.leases]
    assert set(state.bans) == model.banned
    for task, slot in zip(model.tasks, model.slots, strict=True):
        line = state.tasks.get(task.id)
        assert (line is not None and line.closed) == slot.closed
        if slot.held:
            assert (line.copies, set(line.holders)) == (slot.copies, set(slot.held))
            assert (line.active + line.accepted < line.copies) == (slot.free or (slot.closed and not line.filled))


@settings(deadline=None)
@given(ACTS)
def test_honest_draws_are_due(acts):
    model = model_of(acts)
    found = draws_of(model)
    assert len(found) == len(model.leases)
    for draws in found:
        assert draws.due, draws
        assert draws.draws[-1].reason == "taken"
        assert "raced" not in {draw.reason for draw in draws.draws}


@settings(deadline=None)
@given(ACTS, st.integers(0, 39))
def test_a_chain_goes_on_from_a_head_that_was_kept(acts, cut):
    chain = model_of(acts).chain
    cut = min(cut, len(chain))
    head = verify_chain(chain[:cut])
    assert verify_chain(chain[cut:], after=head) == verify_chain(chain)
    if cut < len(chain):
        with pytest.raises(BadInput, match=f"event {cut + 1} "):
            verify_chain(chain[cut:], after=EventHead(sequence=head.sequence, hash="f" * 64))


def test_no_events_are_a_chain():
    assert verify_chain([]) == START
    assert verify_chain([], after=EventHead(sequence=7, hash=HEX64)).sequence == 7


def edited(data, event: LedgerEvent) -> LedgerEvent:
    """The event with one field changed."""
    name = data.draw(st.sampled_from(["sequence", "at", "kind", "hash", *event.body]))
    other = {"sequence": event.sequence + 1, "at": event.at + 1, "kind": event.kind + "x", "hash": "0" * 63 + "1"}
    if name in other:
        return event.model_copy(update={name: other[name]})
    value = event.body[name]
    changed = {int: lambda: value + 1, bool: lambda: not value, str: lambda: value + "1"}[type(value)]()
    return event.model_copy(update={"body": event.body | {name: changed}})


@settings(deadline=None)
@given(ACTS, st.data())
def test_any_single_change_is_found(acts, data):
    chain = model_of(acts).chain
    i = data.draw(st.integers(0, len(chain) - 1))
    match data.draw(st.sampled_from(["drop", "swap", "edit", "insert", "repeat"])):
        case "drop":
            changed = chain[:i] + chain[i + 1 :]
        case "swap":
            j = data.draw(st.integers(0, len(chain) - 1).filter(lambda j: j != i or len(chain) == 1))
            changed = chain.copy()
            changed[i], changed[j] = changed[j], changed[i]
        case "edit":
            changed = [*chain[:i], edited(data, chain[i]), *chain[i + 1 :]]
        case "insert":
            changed = [*chain[:i], chain[i].model_copy(update={"kind": "closed"}), *chain[i:]]
        case "repeat":
            changed = [*chain[: i + 1], *chain[i:]]
    if changed == chain:
        return
    # A chain that only ends earlier is a chain; it is not the one whose head was kept.
    try:
        assert verify_chain(changed) != verify_chain(chain)
        assert changed == chain[: len(changed)]
    except BadInput as error:
        first_bad = next(n for n, (a, b) in enumerate(zip(changed, [*chain, None], strict=False), 1) if a != b)
        assert f"event {first_bad} " in str(error)


T0, T1 = "0" * 32, "1" * 32
ONE, OTHER = "a" * 32, "c" * 32


def leased(task=T0, hotkey=0, lease=ONE, fencing=1, **over):
    of = {"task": task, "hotkey": HOTKEYS[hotkey], "lease": lease, "fencing": fencing}
    terms = {"block": 100, "listed": 2, "draw_index": 0, "copies": 1, "coldkey": COLDKEY[HOTKEYS[hotkey]]}
    return ("leased", of | terms | over)


def about(kind, task=T0, hotkey=0, lease=ONE, fencing=1, **more):
    return (kind, {"task": task, "hotkey": HOTKEYS[hotkey], "lease": lease, "fencing": fencing} | more)


def imported(**over):
    terms = {"crawl": "LOCAL-t", "block": 100, "first_position": 0, "tasks": 2, "copies": 1, "rule_version": "1"}
    return ("imported", terms | {"sha256": HEX64} | over)


BAN = ("banned", {"coldkey": "cold0", "reason": "why", "by": "key:1"})
CLOSED = ("closed", {"task": T0, "by": "key:1"})
AUDITED = ("audited", {"task": T0, "block": 101, "more": 2})
SCORED = {"task": T0, "hotkey": HOTKEYS[0], "validator": HOTKEYS[1], "outcome": "pass", "sha256": HEX64}
IN_TIME = about("submitted", late=False, accepted=True)
LATE = about("submitted", late=True, accepted=True)


@pytest.mark.parametrize(
    ("history", "why"),
    [
        ([leased(), leased(hotkey=1, lease=OTHER, fencing=2)], "no slot left"),
        ([leased(copies=2), leased(hotkey=0, lease=OTHER, fencing=2, copies=2)], "had a lease of task"),
        ([leased(hotkey=3, copies=2), leased(hotkey=4, lease=OTHER, fencing=2, copies=2)], "had a lease of task"),
        ([leased(), about("released"), leased(lease=OTHER, fencing=2)], "had a lease of task"),
        ([leased(), leased(task=T1, hotkey=1, lease=OTHER)], "fencing token 1 was used"),
        ([leased(), leased(task=T1, hotkey=1, fencing=2)], f"lease {ONE} was issued before"),
        ([leased(), leased(hotkey=1, lease=OTHER, fencing=2, copies=2)], "wants 1 copies, not 2"),
        ([CLOSED, leased()], "is closed"),
        ([BAN, leased()], "barred"),
        ([leased(), leased(T1, 1, OTHER, 2), leased("2" * 32, 2, "d" * 32, 3)], "only 2 tasks are listed"),
        ([about("submitted", late=False, accepted=True)], "there is no lease"),
        ([leased(), IN_TIME, IN_TIME], "has a submission already"),
        ([leased(), IN_TIME, about("expired")], "is submitted already"),
        ([leased(), IN_TIME, about("released")], "is submitted already"),
        ([leased(), about("expired"), about("released")], "is expired already"),
        ([leased(), about("released"), LATE], "is released"),
        ([leased(), LATE], "is active"),
        ([leased(), about("expired"), IN_TIME], "is expired"),
        ([leased(), about("submitted", late=False, accepted=False)], "in time is accepted"),
        ([leased(), about("expired"), leased(hotkey=1, lease=OTHER, fencing=2), LATE], "no slot left"),
        ([leased(), about("expired"), CLOSED, LATE], "no slot left"),
        ([leased(), about("submitted", fencing=2, late=False, accepted=True)], "is another one"),
        ([leased(), about("released", task=T1)], "is another one"),
        ([leased(), about("expired", hotkey=1)], "is another one"),
        ([AUDITED], "no first lease"),
        ([leased(block=107), AUDITED], "no first lease"),
        ([leased(), AUDITED, AUDITED], "audited already"),
        ([leased(), ("audited", {"task": T0, "block": 101, "more": 9})], "2 copies more"),
        ([("scored", SCORED)], "no such lease"),
        ([leased(), ("scored", SCORED | {"validator": HOTKEYS[0]})], "their own work"),
        ([CLOSED, CLOSED], "closed already"),
        ([imported()], "belong at position 2"),
        ([imported(first_position=2, block=99)], "changes earlier draws"),
        ([("opted-in", {"domain": "example.org", "until_block": 1})], "not on the opt-out list"),
        ([("rewarded\x1b[2J", {})], "not known here"),
        ([leased(fencing="1")], "no leased has such a fencing"),
        ([leased(task="x")], "no leased has such a task"),
        ([("closed", {})], "no closed has such a task"),
    ],
)
def test_what_cannot_be_is_named(history, why):
    history = [imported(), *history]
    chain = linked([(STEP * i, kind, body) for i, (kind, body) in enumerate(history)])
    verify_chain(chain)
    replay(chain[:-1])
    with pytest.raises(BadInput, match=f"event {len(chain)}: .*{re.escape(why)}") as caught:
        replay(chain)
    assert str(caught.value).isprintable()


def test_a_submission_that_comes_late_is_paid_for_while_there_is_a_slot():
    unpaid = about("submitted", late=True, accepted=False)
    for history, counts in (([LATE], (0, 1)), ([leased(hotkey=1, lease=OTHER, fencing=2), unpaid], (1, 0))):
        changes = [imported(), leased(), about("expired"), *history]
        state = replay(linked([(i, *change) for i, change in enumerate(changes)]))
        assert (state.tasks[T0].active, state.tasks[T0].accepted) == counts


def test_every_event_that_the_server_records_is_known():
    source = "".join(path.read_text() for path in (Path(__file__).parents[1] / "task_server").glob("*.py"))
    kinds = set(re.findall(r'\brecord\(\s*(?:tx,\s*)?"([a-z-]+)"', source))
    assert len(kinds) > 10
    for kind in kinds:
        state = LedgerState()
        try:
            state.apply(LedgerEvent(sequence=1, at=0, kind=kind, body={}, hash=HEX64))
        except BadInput as error:
            assert "not known" not in str(error)


def submission_of(lease: Lease) -> Submission:
    manifest = Manifest(
        task_id=lease.task.id, hotkey=lease.hotkey, rule_version="1", files=(), records=1, rows=1, rejected={},
        tokens=1, recipe=RecipeRef(name="r", version="1", hash=HEX64), root=HEX64,
    )  # fmt: skip
    dataset = DatasetRef(location="file:org/d", revision="a" * 40, root=HEX64)
    return Submission(lease_id=lease.id, fencing=lease.fencing, dataset=dataset, manifest=manifest)


@pytest.mark.parametrize("seed", range(4))
def test_what_the_server_does_passes(tmp_path, seed):
    """The ledger itself: a few miners at random on twelve tasks, two hotkeys to a coldkey."""
    rng = random.Random(seed)
    now, block, keys = [10**15], FIRST_BLOCK, itertools.count(1)
    terms = TaskServerSettings(lease_seconds=300, initial_quota=100, audit_share=0.5)
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}", clock=lambda: now[0])
    ledger, operators, leases = Ledger(store, terms), Operators(store, terms), []

    def write(hotkey: str) -> Write:
        n = next(keys)
        return Write(Neuron(0, hotkey, COLDKEY[hotkey], 1, False, 0, 1, 1), Asked(hotkey, f"{n}", f"{n}"), n)

    with closing(store):
        listing = [f"crawl-data/LOCAL-t/warc/{i:02d}.warc.gz" for i in range(12)]
        plan = {"warcs_per_shard": 1, "rule_version": "1", "replication": 1, "opened_block": 90}
        import_crawl(store, listing, Opening(crawl="LOCAL-t", crawl_url="file:///c", **plan))
        for _ in range(80):
            now[0] += rng.randrange(120) * SECOND
            block += rng.randrange(2)
            hotkey = rng.choice(HOTKEYS)
            with suppress(Conflict):
                match rng.randrange(6):
                    case 0 if leases:
                        lease = rng.choice(leases)
                        ledger.submit(write(lease.hotkey), submission_of(lease)).result()
                    case 1 if leases:
                        lease = rng.choice(leases)
                        ledger.release(write(lease.hotkey), lease.id, lease.fencing).result()
                    case 2:
                        ledger.settle_audits({due: hash_of(due) for due in ledger.audits_due(block)}).result()
                    case 3 if leases and rng.random() < 0.2:
                        asked = write(hotkey).asked
                        operators.close_task(asked, rng.choice(leases).task.id).result()
                    case _:
                        head = Head(block, hash_of(block))
                        leases += ledger.claim(write(hotkey), rng.randint(1, 3), head).result().value.leases
        with store.read() as session:
            chain = [row.view() for row in session.exec(select(EventRow).order_by(EventRow.sequence))]
            tasks = [row.id for row in session.exec(select(TaskRow).order_by(TaskRow.position))]
    assert {"leased", "expired", "submitted", "audited"} <= {event.kind for event in chain}
    assert verify_chain(chain).sequence == len(chain)
    state, writes = replay(chain), Writes()
    assert hashlib.sha256("\n".join(tasks).encode()).hexdigest() == state.batches[0].imported.sha256
    found = check_draws(chain, wanted=lambda leased: True, block_hash=hash_of, task_ids=tasks, writes=writes)
    assert all(draws.due for draws in found)


@settings(deadline=None)
@given(ACTS, st.integers(0, 4), st.integers(1, 3))
def test_a_task_that_was_not_due_is_found(acts, miner, skip):
    model = model_of([*acts, (0, 3)])
    honest = len(model.changes)
    if not model.claim(HOTKEYS[miner], skip=skip):
        return
    *rest, last = draws_of(model)
    assert all(draws.due for draws in rest)
    assert not last.due
    assert sum(draw.reason == "free" for draw in last.draws) == skip
    assert last.sequence == honest + 1


@pytest.fixture
def crowded() -> Model:
    """Two tasks of four are filled, one is closed; the last lease had to step over some of them."""
    model = model_of([])
    model.claim(HOTKEYS[0])
    model.claim(HOTKEYS[1])
    model.close(next(i for i, slot in enumerate(model.slots) if slot.free))
    model.claim(HOTKEYS[2])
    return model


@pytest.mark.parametrize(
    "lie",
    [
        {"draw_index": 0},
        {"draw_index": 500},
        {"block": 99},
        {"block": 105},
        {"listed": 3},
        {"listed": 5},
        {"listed": 0},
        {"coldkey": "cold9", "hotkey": HOTKEYS[3]},
    ],
)
def test_a_lie_about_a_draw_is_found(crowded, lie):
    at, kind, body = crowded.changes[-1]
    assert draws_of(crowded)[-1].due and body["draw_index"] > 0
    crowded.changes[-1] = (at, kind, body | lie)
    assert not draws_of(crowded)[-1].due


def test_every_skipped_draw_is_explained(crowded):
    reasons = {draw.reason for draws in draws_of(crowded) for draw in draws.draws}
    assert {"taken", "filled", "closed"} <= reasons
    model = model_of([])
    model.open_tasks(1, 9)
    for hotkey in (HOTKEYS[3], HOTKEYS[4], HOTKEYS[3], HOTKEYS[4], HOTKEYS[3]):  # one coldkey: each task once
        model.claim(hotkey)
    found = draws_of(model)
    assert len(found) == 5
    assert {"held", "repeated"} <= {draw.reason for draws in found for draw in draws.draws}


def test_what_several_writers_do_at_once_explains_a_skip():
    """The task was free, but another write held it, which comes just before or after in the chain."""
    model = model_of([])
    assert model.claim(HOTKEYS[0], skip=1)
    (draws,) = draws_of(model)
    (skipped,) = [draw for draw in draws.draws if draw.reason == "free"]
    chain = model.chain
    lease = chain[-1]
    for away, reason in ((0, "raced"), (9 * SECOND, "raced"), (-9 * SECOND, "raced"), (11 * SECOND, "free")):
        writes = Writes()
        kind, body = about("released", task=skipped.task, hotkey=1)
        writes.note(LedgerEvent(sequence=9, at=lease.at + away, kind=kind, body=body, hash=HEX64))
        ids = [task.id for task in model.tasks]
        found = check_draw(lease, replay(chain[:-1]), block_hash=hash_of(100), task_ids=ids, writes=writes)
        assert found.draws[skipped.index].reason == reason
        assert found.due == (reason == "raced")
        assert found.draws[skipped.index].beside == (9 if reason == "raced" else None)


def test_tasks_imported_at_that_very_moment_may_be_listed_or_not():
    for away, due in ((SECOND, True), (-SECOND, True), (STEP, False)):
        model = model_of([])
        assert model.claim(HOTKEYS[0])
        claim = model.changes.pop()
        model.open_tasks(3, 1)
        _, kind, body = model.changes.pop()
        model.changes += [(claim[0] + away, kind, body), claim]
        assert draws_of(model)[0].due == due


@pytest.mark.parametrize("fault", ["swap", "drop", "cut", "renumber", "rename", "none"])
def test_the_listed_tasks_are_those_that_were_imported(fault):
    model = model_of([(0, 3), (0, 2)])
    state, views = replay(model.chain), model.views
    match fault:
        case "none":
            assert check_listing(state, views) == [task.id for task in model.tasks]
            return
        case "swap":
            views[1], views[2] = (
                views[2].model_copy(update={"position": 1}),
                views[1].model_copy(update={"position": 2}),
            )
        case "drop":
            views = [view.model_copy(update={"position": i}) for i, view in enumerate(views[:1] + views[2:])]
        case "cut":
            views.pop()
        case "renumber":
            views[3] = views[3].model_copy(update={"position": 7})
        case "rename":
            views[0] = views[0].model_copy(update={"id": T0})
    with pytest.raises(BadInput, match="list"):
        check_listing(state, views)
