"""What everyone may read: lists walked page by page, filters, what is hidden, what is counted, and what is cached."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count

import pytest
from bittensor.sp_core import Keypair
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text, update

from athena.audit import START
from athena.errors import BadInput
from athena.protocol import DatasetRef, Effect, Lease, Release, ScoreSheet, SignedRelease, SignedSheet
from athena.wire import AskOptOut
from task_server import paging
from task_server.crawl import Opening, import_crawl
from task_server.paging import PageRequest, Walk
from task_server.records import Records
from task_server.results import Results
from task_server.standings import Standings
from task_server.tables import ReleaseRow, SheetRow, SubmissionRow
from task_server.transaction import Asked, Write

CRAWL = "LOCAL-test"
SIGNATURE = "5e" * 64
DEADLINE_SECONDS = 600
IMMUTABLE = "public, max-age=31536000, immutable"


def address(name: str) -> str:
    return str(Keypair.create_from_uri(f"//{name}").ss58_address)


@dataclass
class World:
    """A ledger that miners and validators fill, without the signatures."""

    service: object
    open_tasks: object
    submission_for: object
    numbers: count

    def __post_init__(self):
        store, clock = self.service.store, self.service.clock
        self.records, self.results, self.standings = (
            Records(store, clock),
            Results(store, clock),
            Standings(store, clock),
        )

    def write(self, name: str) -> Write:
        hotkey = address(name)
        caller = self.service.chain.neurons.get(hotkey) or self.service.chain.register(hotkey, address(f"{name}//cold"))
        return Write(caller, Asked(hotkey, uuid.uuid4().hex, "0" * 64), next(self.numbers))

    def claim(self, name: str, num_more: int = 1) -> list[Lease]:
        held = len(self.list(self.records.leases, hotkey=address(name), task_id=None, state="active"))
        wanted = self.service.ledger.claim(self.write(name), held + num_more, self.service.chain.head())
        return list(wanted.result().value.leases)[held:]

    def submit(self, name: str, lease: Lease) -> None:
        self.service.ledger.submit(self.write(name), self.submission_for(lease)).result()

    def score(self, lease: Lease, validator: str, units=1.0, effect=None, outcome="pass") -> SignedSheet:
        sheet = ScoreSheet(
            task_id=lease.task.id, hotkey=lease.hotkey, validator=address(validator), rule_version="demo-1",
            dataset=DatasetRef(location="file:org/data", revision="a" * 40, root="b" * 64), eval_pack="b" * 64,
            issued_block=100, commit_block=next(self.numbers), seed_block=102, outcome=outcome, gates=(), units=units,
            effect=effect if effect is None else Effect(mean=effect, low=effect, high=effect, by_domain={}),
        )  # fmt: skip
        signed = SignedSheet(sheet=sheet, signature=SIGNATURE)
        self.insert(SheetRow, lambda now: SheetRow.of(signed, stake=1.0, received_at=now))
        return signed

    def release(self) -> None:
        release = Release(
            name="athena", version=f"0.{next(self.numbers)}.0", files=(), parameters=1, training_tokens=1,
            eval_pack="e" * 64, bits_per_byte_before={}, bits_per_byte_after={}, lineage=(), trainer=address("trainer"),
        )  # fmt: skip
        signed = SignedRelease(release=release, signature=SIGNATURE)
        self.insert(ReleaseRow, lambda now: ReleaseRow.of(signed, received_at=now))

    def insert(self, row, make) -> None:
        self.do(lambda tx: tx.insert_new(row, **make(tx.now).model_dump(exclude={"sequence"})))

    def do(self, act):
        return self.service.store.submit(act).result()

    def list(self, pages, limit=500, **filters) -> list[dict]:
        items, cursor = [], None
        while True:
            listed = pages(PageRequest(limit, cursor), **filters)
            listed = listed[0] if isinstance(listed, tuple) else listed
            page = json.loads(listed.json)
            assert page["items"] or page["next"] is None
            items += page["items"]
            if (cursor := page["next"]) is None:
                return items


@pytest.fixture
def world(serve, open_tasks, submission_for) -> World:
    service = serve(
        num_tasks=12, replication=3, initial_quota=1000, max_quota=1000, deadline_seconds=DEADLINE_SECONDS,
        lease_seconds=DEADLINE_SECONDS, requests_per_minute=100_000, audit_share=0.0,
    )  # fmt: skip
    return World(service, open_tasks, submission_for, count(1))


@pytest.fixture
def busy(world) -> World:
    """Leases in every state, submissions past their deadline, sheets, releases."""
    for name in ("alice", "bob", "carol"):
        first, second, third, fourth = world.claim(name, 4)
        world.submit(name, first)
        world.submit(name, second)
        world.service.ledger.release(world.write(name), third.id, third.fencing).result()
        for validator in ("vera", "victor"):
            world.score(first, validator)
        world.release()
        assert fourth.state == "active"
    world.service.clock.advance(DEADLINE_SECONDS)
    world.service.ledger.tidy().result()
    return world


def lists_of(world: World):
    """Every list: how to read it, and the key that it is in the order of."""
    records, results = world.records, world.results
    nobody = {"hotkey": None, "task_id": None}
    return {
        "crawls": (lambda request: records.crawls(request), lambda item: item["id"]),
        "shards": (lambda request: records.shards(request, crawl=CRAWL), lambda item: item["sequence"]),
        "tasks": (lambda request: records.tasks(request, crawl=None, is_open=None), lambda item: item["position"]),
        "leases": (lambda request: records.leases(request, **nobody, state=None), lambda item: item["fencing"]),
        "submissions": (lambda request: results.submissions(request, **nobody), lambda item: item["lease_id"]),
        "datasets": (
            lambda request: results.datasets(request, hotkey=None),
            lambda item: (item["task_id"], item["hotkey"]),
        ),
        "sheets": (
            lambda request: results.sheets(request, **nobody, validator=None),
            lambda item: item["sheet"]["commit_block"],
        ),
        "releases": (lambda request: results.releases(request), lambda item: item["release"]["version"]),
        "events": (lambda request: records.events(request, after=0), lambda item: item["sequence"]),
        "miners": (lambda request: world.standings.miners(request)[0], lambda item: item["hotkey"]),
    }


def test_a_walk_meets_every_item_once_and_in_order_while_the_ledger_grows(busy):
    world = busy
    lists = lists_of(world)
    names = (f"miner{number}" for number in count())

    def grow(what: str) -> None:
        if what == "tasks":
            world.open_tasks(world.service.store, len(world.list(lists["tasks"][0])) + 3, replication=3)
        elif what == "leases":
            name = next(names)
            for lease in world.claim(name, 2)[:1]:
                world.submit(name, lease)
                world.score(lease, "vera")
        elif what == "release":
            world.release()
        world.service.clock.advance(4)

    @settings(max_examples=25, deadline=None, database=None)
    @given(st.sampled_from(sorted(lists)), st.data())
    def walk(name, data):
        pages, key = lists[name]
        before = [key(item) for item in world.list(pages)]
        seen, cursor = [], None
        while True:
            listed = pages(PageRequest(data.draw(st.integers(1, 12)), cursor))
            seen += [key(json.loads(item)) for item in listed.items]
            if listed.next is None:
                break
            cursor = listed.next
            if len(seen) < 40:
                grow(data.draw(st.sampled_from(("nothing", "nothing", "nothing", "tasks", "leases", "release"))))
        assert len(seen) == len(set(seen))
        after = {key(item) for item in world.list(pages)}
        stayed = [item for item in before if item in after]  # a dataset is hidden while others refine its shard
        assert [item for item in seen if item in set(stayed)] == stayed
        if name not in ("miners", "datasets"):  # these may come in anywhere
            assert seen[: len(before)] == before

    walk()


def test_pages_of_any_size_make_the_same_list(busy):
    for name, (pages, _) in lists_of(busy).items():
        whole = busy.list(pages)
        assert whole, name
        for limit in (1, 2, 5, len(whole)):
            assert busy.list(pages, limit) == whole, name


def test_tasks_are_filtered_by_crawl_and_by_what_is_open(world):
    service, records = world.service, world.records

    def positions(**filters):
        wanted = {"crawl": None, "is_open": None} | filters
        return [item["position"] for item in world.list(records.tasks, 5, **wanted)]

    (lease,) = world.claim("alice")
    closed = records.task(lease.task.id)
    service.operators.close_task(Asked("key:test", "close-it", "0" * 64), closed.id).result()
    filled = next(view for view in map(json.loads, records.tasks(PageRequest(), crawl=None, is_open=True).items))
    world.do(lambda tx: tx.connection.execute(text("UPDATE task SET slots = 0 WHERE id = :id"), {"id": filled["id"]}))
    shut = sorted((closed.position, filled["position"]))
    assert positions() == list(range(12))
    assert positions(is_open=False) == shut
    assert positions(is_open=True) == [position for position in range(12) if position not in shut]
    assert positions(crawl=CRAWL) == list(range(12))
    assert positions(crawl=CRAWL, is_open=False) == shut
    assert positions(crawl="LOCAL-other") == positions(crawl="LOCAL-other", is_open=True) == []
    assert service.http.get("/v1/tasks", params={"open": "false"}).json()["items"][0]["position"] == shut[0]


def test_two_crawls_that_were_imported_at_the_same_time_are_told_apart(world):
    def grow(crawl: str, num_files: int) -> None:
        opening = Opening(
            crawl=crawl, crawl_url="file:///crawl", warcs_per_shard=2, rule_version="demo-1", replication=1,
            opened_block=90,
        )  # fmt: skip
        files = [f"crawl-data/{crawl}/segments/0/warc/{number:05d}.warc.gz" for number in range(num_files)]
        import_crawl(world.service.store, files, opening)

    for num_files in (4, 8):
        for crawl in ("LOCAL-one", "LOCAL-two"):
            grow(crawl, num_files)
    found = {}
    for crawl in (CRAWL, "LOCAL-one", "LOCAL-two"):
        tasks = world.list(world.records.tasks, 2, crawl=crawl, is_open=True)
        assert {item["task"]["shard"]["crawl"] for item in tasks} == {crawl}
        found[crawl] = [item["position"] for item in tasks]
        shards = world.list(world.records.shards, 2, crawl=crawl)
        assert [item["shard"] for item in shards] == [item["task"]["shard"] for item in tasks]
    assert sorted(chain.from_iterable(found.values())) == list(range(20))
    assert [item["id"] for item in world.list(world.records.crawls)] == ["LOCAL-one", "LOCAL-test", "LOCAL-two"]


def test_leases_are_filtered_by_the_state_that_time_gives_them(busy):
    alice = address("alice")

    def ids(**filters):
        wanted = {"hotkey": None, "task_id": None, "state": None} | filters
        found = world.list(world.records.leases, 2, **wanted)
        assert wanted["state"] in (None, *{item["state"] for item in found}) or not found
        return [item["fencing"] for item in found]

    world = busy
    (active,) = world.claim("alice")
    world.service.clock.advance(DEADLINE_SECONDS - 1)
    (later,) = world.claim("bob")
    assert ids(state="active") == [active.fencing, later.fencing]
    world.service.clock.advance(1)  # alice's has run out; no write has recorded it
    assert ids(state="active") == [later.fencing]
    for of in ({}, {"hotkey": alice}, {"task_id": active.task.id}, {"hotkey": alice, "task_id": active.task.id}):
        everything = ids(**of)
        parts = {state: ids(state=state, **of) for state in ("active", "submitted", "expired", "released")}
        assert sorted(chain.from_iterable(parts.values())) == everything
        assert active.fencing in parts["expired"]
    assert len(ids(hotkey=alice, state="submitted")) == 2
    assert len(ids(hotkey=alice, state="released")) == 1
    assert ids(hotkey=address("nobody")) == []
    assert world.records.lease(active.id).state == "expired"


def test_sheets_are_filtered_by_miner_task_and_validator(world):
    leases = {name: world.claim(name, 2) for name in ("alice", "bob")}
    sheets = [
        world.score(lease, validator) for name in leases for lease in leases[name] for validator in ("vera", "victor")
    ]
    for hotkey in (None, address("alice")):
        for task_id in (None, leases["alice"][0].task.id):
            for validator in (None, address("victor")):
                found = world.list(world.results.sheets, 1, hotkey=hotkey, task_id=task_id, validator=validator)
                expected = [
                    signed.model_dump(mode="json")
                    for signed in sheets
                    if hotkey in (None, signed.sheet.hotkey)
                    and task_id in (None, signed.sheet.task_id)
                    and validator in (None, signed.sheet.validator)
                ]
                assert found == expected


def test_a_cursor_is_good_for_its_own_list_and_filters_only(busy):
    http = busy.service.http
    cursors = {
        path: http.get(path, params={"limit": 1}).json()["next"]
        for path in ("/v1/tasks", "/v1/leases", "/v1/shards", "/v1/sheets", "/v1/events", "/v1/miners")
    }
    for path in cursors:
        for origin, cursor in cursors.items():
            reply = http.get(path, params={"cursor": cursor, "limit": 2})
            assert (reply.status_code == 200) == (origin == path), (origin, path)
            assert reply.status_code in (200, 422)
    for params in ({"open": "true"}, {"crawl": CRAWL}):
        reply = http.get("/v1/tasks", params={"cursor": cursors["/v1/tasks"], **params})
        assert (reply.status_code, reply.json()["code"]) == (422, "bad-input")
    assert http.get("/v1/tasks", params={"cursor": cursors["/v1/tasks"], "limit": 3}).status_code == 200


def test_no_forged_cursor_is_a_fault(busy):
    lists = lists_of(busy) | {"leaderboard": (lambda request: busy.standings.leaderboard(request)[0], None)}
    filters = {"shards": {"crawl": CRAWL}, "tasks": {"crawl": None, "open": None}, "datasets": {"hotkey": None}}
    nobody = {"hotkey": None, "task_id": None}
    filters |= {"leases": nobody | {"state": None}, "submissions": nobody, "sheets": nobody | {"validator": None}}
    keys = st.one_of(
        st.text(st.characters(codec="ascii")), st.sampled_from(("-1", "9" * 18, "9" * 19, "nan x", "inf ", "²"))
    )

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.sampled_from(sorted(lists)), keys, st.text(max_size=60))
    def forge(name, key, cursor):
        sealed = Walk(name, PageRequest(), **filters.get(name, {}))._sealed(key)
        for forged in (sealed, cursor):
            try:
                lists[name][0](PageRequest(5, forged))
            except BadInput:
                continue
            assert forged == sealed

    forge()


def test_what_others_wrote_ends_a_page_early(busy, monkeypatch):
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 3000)
    everyone = {"hotkey": None, "task_id": None}
    for pages, filters in ((busy.results.sheets, everyone | {"validator": None}), (busy.results.submissions, everyone)):
        page = pages(PageRequest(500), **filters)
        assert 1 <= len(page.items) < 6
        assert page.next is not None
        assert sum(len(item) for item in page.items) < 6000
        assert len(busy.list(pages, **filters)) == 6
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 1)
    assert len(busy.results.sheets(PageRequest(500), **everyone, validator=None).items) == 1


def test_data_is_hidden_until_the_last_deadline_of_its_task(world):
    def shown():
        (view,) = world.list(world.results.submissions, hotkey=address("alice"), task_id=None)
        listed = world.list(world.results.datasets, hotkey=address("alice"))
        assert (view["dataset"] is not None) == (view["manifest"] is not None) == bool(listed)
        return bool(listed)

    (lease,) = world.claim("alice")
    world.submit("alice", lease)
    world.service.clock.advance(DEADLINE_SECONDS - 1)
    held = next(found for found in world.claim("bob", 12) if found.task == lease.task)
    world.service.clock.advance(1)
    assert not shown(), "bob could still copy it"
    world.service.clock.advance(DEADLINE_SECONDS - 2)
    assert not shown()
    world.service.clock.advance(1)
    assert shown()
    world.submit("bob", held)
    assert [item["hotkey"] for item in world.list(world.results.datasets, 1, hotkey=None)] == [
        lease.hotkey,
        held.hotkey,
    ]
    world.do(lambda tx: tx.connection.execute(update(SubmissionRow).values(accepted=False)))
    assert world.list(world.results.datasets, hotkey=None) == []
    assert len(world.list(world.results.submissions, hotkey=None, task_id=None)) == 2


def test_the_leaderboard_is_the_sum_of_the_medians_of_last_words(world):
    (a_first, a_second), (b_first,), (c_first,), (d_first,) = (
        world.claim(name, num) for name, num in (("alice", 2), ("bob", 1), ("carol", 1), ("dora", 1))
    )
    world.score(a_first, "vera", units=9.0)
    world.score(a_first, "vera", units=1.0, effect=0.25)  # the last word of one validator stands
    world.score(a_first, "vera", outcome="none")  # and stands, whatever it could not tell afterwards
    world.score(a_first, "victor", units=2.0, effect=0.125)
    world.score(a_first, "vincent", units=30.0, effect=-0.5)
    world.score(a_second, "vera", units=1.0)
    world.score(a_second, "victor", units=2.0, effect=0.5)
    world.score(b_first, "vera", units=3.5)
    world.score(c_first, "vera", units=32.0, effect=8.0)
    world.score(d_first, "vera", outcome="none", units=5.0)
    world.submit("dora", d_first)
    board = world.list(lambda request: world.standings.leaderboard(request), 1)
    names = {address(name): name for name in ("alice", "bob", "carol", "dora")}
    tied = sorted(("alice", "bob"), key=address)
    ranked = [(names[item["hotkey"]], item["units"], item["effect"]) for item in board]
    pay = {"alice": ("alice", 3.5, 0.3125), "bob": ("bob", 3.5, None)}
    assert ranked == [("carol", 32.0, 8.0), *(pay[name] for name in tied), ("dora", 0.0, None)]
    assert [item["rank"] for item in board] == [1, 2, 3, 4]
    assert [item["tokens"] for item in board] == [0, 0, 0, 1234]


def test_totals_and_records_are_counted_every_few_seconds(busy):
    http, clock = busy.service.http, busy.service.clock
    clock.advance(10)
    first = http.get("/v1/stats")
    assert first.headers["age"] == "0"
    stats = first.json()
    assert stats["leases"] == {"active": 0, "submitted": 6, "expired": 3, "released": 3}
    assert (stats["tasks"], stats["submissions"], stats["sheets"]["pass"], stats["releases"]) == (12, 6, 6, 3)
    assert (stats["records"], stats["rows"], stats["tokens"]) == (60, 24, 6 * 1234)
    assert stats["events"] == busy.records.event_head().sequence
    busy.claim("alice")
    clock.advance(2)
    kept = http.get("/v1/stats")
    assert (kept.json(), kept.headers["age"]) == (stats, "2")
    clock.advance(2)
    fresh = http.get("/v1/stats")
    assert (fresh.json()["leases"]["active"], fresh.headers["age"]) == (1, "0")
    clock.advance(DEADLINE_SECONDS)
    assert http.get("/v1/stats").json()["leases"] == {"active": 0, "submitted": 6, "expired": 4, "released": 3}
    assert http.get("/v1/miners").headers["age"] == http.get("/v1/leaderboard").headers["age"] == "0"


def test_a_miners_record_has_its_coldkeys_quota_streak_and_ban(busy):
    alice = address("alice")
    miners = {item["hotkey"]: item for item in busy.list(lambda request: busy.standings.miners(request), 1)}
    assert sorted(miners) == sorted(address(name) for name in ("alice", "bob", "carol"))
    record = miners[alice]
    assert record["coldkey"] == address("alice//cold")
    assert record["leases"] == {"active": 0, "submitted": 2, "expired": 1, "released": 1}
    assert (record["submissions"], record["passed"], record["failed"], record["rows"]) == (2, 0, 0, 8)
    assert (record["quota"], record["streak"], record["ban"]) == (999, 0, None)
    busy.do(lambda tx: tx.connection.execute(update(SubmissionRow).values(verdict="pass", tokens=2**62)))
    busy.do(lambda tx: tx.connection.execute(text("UPDATE account SET ban = 'copied'")))
    busy.service.clock.advance(4)
    changed = busy.service.http.get(f"/v1/miners/{alice}").json()
    assert (changed["passed"], changed["tokens"], changed["ban"]) == (2, 2**63, "copied")
    assert busy.standings.stats()[0].tokens == 6 * 2**62, "no sum overflows"
    missing = busy.service.http.get(f"/v1/miners/{address('nobody')}")
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")


def test_one_of_each_is_found_by_its_id(busy):
    http = busy.service.http
    task = http.get("/v1/tasks", params={"limit": 1}).json()["items"][0]
    shard = http.get("/v1/shards", params={"limit": 1}).json()["items"][0]
    lease = http.get("/v1/leases", params={"limit": 1}).json()["items"][0]
    for path, item in (("tasks", task), ("shards", shard), ("leases", lease)):
        assert http.get(f"/v1/{path}/{item['id']}").json() == item
        missing = http.get(f"/v1/{path}/{'0' * 32}")
        assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
        assert http.get(f"/v1/{path}/nonsense").status_code == 422
    crawl = http.get(f"/v1/crawls/{CRAWL}").json()
    assert [crawl] == http.get("/v1/crawls").json()["items"]
    assert (crawl["state"], crawl["failure"]) == ("open", None)
    assert http.get("/v1/crawls/LOCAL-none").status_code == 404


def test_the_event_chain_is_read_after_any_link(busy):
    http = busy.service.http
    head = http.get("/v1/events/head").json()
    events = busy.list(busy.records.events, 7, after=0)
    assert [item["sequence"] for item in events] == list(range(1, head["sequence"] + 1))
    assert events[-1]["hash"] == head["hash"]
    page = http.get("/v1/events", params={"after": 3, "limit": 2}).json()
    assert [item["sequence"] for item in page["items"]] == [4, 5]
    further = http.get("/v1/events", params={"after": 3, "limit": 2, "cursor": page["next"]}).json()
    assert [item["sequence"] for item in further["items"]] == [6, 7]
    beyond = http.get("/v1/events", params={"after": 2**53 - 1}).json()
    assert beyond == {"items": [], "next": None}
    assert http.get("/v1/events", params={"after": 2**63}).status_code == 422


def test_a_chain_without_events_begins_at_its_start(serve):
    service = serve(num_tasks=0)
    assert service.http.get("/v1/events/head").json() == START.model_dump(mode="json")
    assert service.http.get("/v1/stats").json()["events"] == 0
    assert service.http.get("/v1/leaderboard").json() == {"items": [], "next": None}


def test_the_opt_out_list_keeps_what_was_withdrawn(serve):
    service = serve()
    for number, (domain, withdraw) in enumerate((("a.org", False), ("b.org", False), ("a.org", True))):
        wish = AskOptOut(domain=domain, reason="asked", withdraw=withdraw)
        service.operators.opt_out(Asked("key:test", f"key-{number}", "0" * 64), wish, 100 + number).result()
    domains = service.http.get("/v1/opt-outs").json()["domains"]
    assert [(entry["domain"], entry["until_block"]) for entry in domains] == [("a.org", 103), ("b.org", None)]


def test_a_page_that_never_changes_may_be_kept_for_ever(busy):
    http, clock = busy.service.http, busy.service.clock

    def kept(path, **params):
        reply = http.get(path, params=params)
        assert reply.status_code == 200
        assert reply.headers["cache-control"] in (IMMUTABLE, "no-cache")
        return reply.headers["cache-control"] == IMMUTABLE

    for path in ("/v1/shards", "/v1/events", "/v1/sheets", "/v1/releases"):
        assert kept(path, limit=2)
        assert not kept(path, limit=500), "the last page grows"
    for path in ("/v1/tasks", "/v1/leases", "/v1/submissions", "/v1/datasets", "/v1/miners", "/v1/crawls"):
        assert not kept(path, limit=1)
    (lease,) = busy.claim("alice")
    whole = len(busy.list(busy.results.sheets, hotkey=None, task_id=None, validator=None))
    for validator in ("vera", "victor"):
        busy.score(lease, validator)
    assert not kept("/v1/sheets", limit=whole + 1), "one that was given a number before may yet be committed"
    clock.advance(61)
    assert kept("/v1/sheets", limit=whole + 1)


def test_what_did_not_change_is_not_sent_again(busy):
    http = busy.service.http
    for path in ("/v1/tasks?limit=3", "/v1/shards?limit=2", "/v1/stats", "/v1/server", "/v1/events/head"):
        reply = http.get(path)
        tag = reply.headers["etag"]
        assert tag.startswith('"')
        for known in (tag, f'"other", W/{tag}', "*"):
            again = http.get(path, headers={"if-none-match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
            assert again.headers["cache-control"] == reply.headers["cache-control"]
            assert "content-type" not in again.headers
        assert http.get(path, headers={"if-none-match": '"other"'}).content == reply.content
    before = http.get("/v1/leases").headers["etag"]
    busy.claim("alice")
    assert http.get("/v1/leases", headers={"if-none-match": before}).status_code == 200


BIG = ("shard", "warc", "task", "lease", "submission", "sheet", "event", "release")


@contextmanager
def statements(engine):
    """What a block asks the database, each with its parameters."""
    asked = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def reads_of(world: World):
    """Every list under every combination of its filters."""
    records, results, page = world.records, world.results, PageRequest(3)
    lease = json.loads(records.leases(PageRequest(1), hotkey=None, task_id=None, state=None).items[0])
    hotkey, task_id, validator = lease["hotkey"], records.lease(lease["id"]).task.id, address("vera")
    for crawl in (None, CRAWL):
        yield lambda crawl=crawl: records.shards(page, crawl=crawl)
        for is_open in (None, True, False):
            yield lambda crawl=crawl, is_open=is_open: records.tasks(page, crawl=crawl, is_open=is_open)
    for of in ({"hotkey": h, "task_id": t} for h in (None, hotkey) for t in (None, task_id)):
        for state in (None, "active", "submitted", "expired", "released"):
            yield lambda of=of, state=state: records.leases(page, **of, state=state)
        yield lambda of=of: results.submissions(page, **of)
        for by in (None, validator):
            yield lambda of=of, by=by: results.sheets(page, **of, validator=by)
    for of in (None, hotkey):
        yield lambda of=of: results.datasets(page, hotkey=of)
    yield lambda: results.releases(page)
    yield lambda: records.events(page, after=2)
    yield lambda: records.task(task_id)
    yield lambda: records.lease(lease["id"])


def test_every_list_is_read_by_index_in_a_few_queries(busy):
    engine = busy.service.store._engine
    for read in reads_of(busy):
        with statements(engine) as asked:
            read()
        assert len(asked) <= 3
        with engine.connect() as connection:
            for statement, parameters in asked:
                for step in plan(connection, statement, parameters):
                    assert not step.startswith(tuple(f"SCAN {table}" for table in BIG)), (statement, step)
                    assert not any(f"Seq Scan on {table} " in f"{step} " for table in BIG), (statement, step)


def plan(connection, statement, parameters) -> list[str]:
    """How the database goes about it; PostgreSQL shall not think that small tables are scanned faster."""
    sqlite = connection.dialect.name == "sqlite"
    cursor = connection.connection.cursor()
    if not sqlite:
        cursor.execute("SET LOCAL enable_seqscan = off")
    cursor.execute(f"{'EXPLAIN QUERY PLAN' if sqlite else 'EXPLAIN'} {statement}", parameters)
    return [row[3] if sqlite else row[0] for row in cursor.fetchall()]
