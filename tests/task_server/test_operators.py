"""What the server's operator may change, by whom it is asked, and what follows from it."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import closing

import pytest

from athena.audit import replay, verify_chain
from athena.chain.wallets import hotkey_of
from athena.errors import BadInput, Conflict, Forbidden, NotFound, Unauthorized
from athena.wire import IDEMPOTENCY_KEY, AskOptOut, Ban
from task_server.operators import SCOPES, Operators
from task_server.settings import TaskServerSettings
from task_server.store import open_store
from task_server.transaction import Asked

_numbers = itertools.count(1)


def asked(digest: str = "") -> Asked:
    return Asked("key:1", f"key-{next(_numbers):08d}", digest)


@pytest.fixture
def operate(serve):
    """Sends an operator's request to a new server, with a key of all scopes unless another is given."""
    service = serve(num_tasks=4)
    everything = service.operators.create_key(SCOPES, "all")

    def send(path: str, body: dict | None = None, *, key: str = everything, idempotency_key: str | None = None):
        headers = {"authorization": f"Bearer {key}", IDEMPOTENCY_KEY: idempotency_key or asked().key}
        return service.http.post(f"/v1/operator/{path}", json=body or {}, headers=headers)

    send.service = service
    return send


@pytest.fixture
def operators(ledger_url, held_clock, open_tasks):
    with closing(open_store(ledger_url, held_clock)) as store:
        open_tasks(store, 1)
        yield Operators(store, TaskServerSettings())


def named(operators: Operators, key: str, scope: str = "bans") -> str:
    return asyncio.run(operators.named(key, scope))


def test_a_key_is_good_for_its_scopes_until_it_is_revoked(operators):
    key = operators.create_key(("bans", "tasks"), "of the night shift")
    key_id = key.split("_")[1]
    assert named(operators, key) == named(operators, key, "tasks") == f"key:{key_id}"
    with pytest.raises(Forbidden, match="scope crawls"):
        named(operators, key, "crawls")
    for wrong in (key[:-1], key + "x", f"ath_{key_id}_", key_id, "", "ath_", "ath__", f"ath_{key_id}_{key_id}", "é_ü"):
        with pytest.raises(Unauthorized):
            named(operators, wrong)
    operators.revoke_key(key_id)
    with pytest.raises(Unauthorized):
        named(operators, key)
    with pytest.raises(NotFound):
        operators.revoke_key(key_id)


def test_only_the_hash_of_a_key_is_kept(operators):
    key = operators.create_key(("bans",), "note")
    (kept,) = operators.list_keys()
    assert (kept.scopes, kept.note, kept.revoked_at) == ("bans", "note", None)
    secret = key.split("_", 2)[2]
    assert all(secret not in str(value) for value in kept.model_dump().values())


def test_a_closed_task_is_leased_no_more_and_its_holders_are_told(operate, submission_for):
    service = operate.service
    with service.client(service.wallet("miner")) as client, service.client(service.wallet("other")) as other:
        (lease,) = client.claim()
        assert not client.heartbeat(lease, {}).cancel
        for _ in range(2):
            reply = operate(f"tasks/{lease.task.id}/close")
            assert (reply.status_code, reply.json()["closed"], reply.json()["open_slots"]) == (200, True, 0)
        assert client.heartbeat(lease, {}).cancel
        client.release(lease)
        assert lease.task.id not in {another.task.id for another in other.claim(9)}
        assert [event.kind for event in client.events()].count("closed") == 1
    assert operate(f"tasks/{'0' * 32}/close").status_code == 404


def test_work_on_a_closed_task_that_comes_in_time_is_paid_and_late_work_is_not(operate, submission_for):
    service = operate.service
    with service.client(service.wallet("prompt")) as prompt, service.client(service.wallet("slow")) as slow:
        (intime,) = prompt.claim()
        (late,) = slow.claim()
        for lease in (intime, late):
            assert operate(f"tasks/{lease.task.id}/close").status_code == 200
        assert prompt.submit(submission_for(intime)).accepted
        service.clock.advance(301)
        view = slow.submit(submission_for(late))
        assert (view.late, view.accepted) == (True, False)


def test_a_ban_stops_all_of_a_coldkeys_writes_until_it_is_lifted(operate, submission_for, sheet_by):
    service = operate.service
    left, right = (service.wallet(name, coldkey="banned person", permit=True) for name in ("left", "right"))
    other = service.wallet("other")
    coldkey = service.chain.member(hotkey_of(left)).coldkey
    with service.client(left) as client, service.client(right) as hand, service.client(other) as honest:
        (lease,) = client.claim()
        (theirs,) = honest.claim()
        assert operate("bans", {"coldkey": coldkey, "reason": "copies"}).json()["reason"] == "copies"
        for write in (
            client.claim,
            hand.claim,
            lambda: client.heartbeat(lease, {}),
            lambda: client.release(lease),
            lambda: client.submit(submission_for(lease)),
            lambda: hand.post_sheet(sheet_by(right, theirs)),
        ):
            with pytest.raises(Forbidden, match="copies"):
                write()
        assert honest.claim() == [theirs]
        assert client.miner(lease.hotkey).ban == "copies"
        assert operate("bans", {"coldkey": coldkey, "reason": None}).status_code == 200
        assert client.claim() == [lease]
        events = list(client.events())
    assert verify_chain(events).sequence == len(events)
    assert [event.kind for event in events][-2:] == ["banned", "unbanned"]
    assert replay(events).bans == {}


def test_an_opt_out_binds_work_leased_from_the_next_block_on(operate):
    listed = operate("opt-outs", {"domain": "example.org", "reason": "asked"}).json()
    assert (listed["since_block"], listed["until_block"]) == (101, None)
    operate.service.chain.block = 200
    assert operate("opt-outs", {"domain": "example.org", "reason": "again"}).json() == listed
    withdrawn = operate("opt-outs", {"domain": "example.org", "withdraw": True}).json()
    assert (withdrawn["since_block"], withdrawn["until_block"]) == (101, 201)
    assert operate("opt-outs", {"domain": "example.org", "withdraw": True}).status_code == 404
    operate.service.chain.block = 300
    assert operate("opt-outs", {"domain": "example.org"}).json()["since_block"] == 301
    with operate.service.client(None) as client:
        assert [(entry.since_block, entry.until_block) for entry in client.opt_outs()] == [(101, 201), (301, None)]
        assert replay(client.events()).opt_outs == {"example.org": [(101, 201), (301, None)]}


def test_an_opt_out_that_is_withdrawn_before_it_began_binds_nothing(operate):
    assert operate("opt-outs", {"domain": "example.org"}).status_code == 200
    withdrawn = operate("opt-outs", {"domain": "example.org", "withdraw": True}).json()
    assert (withdrawn["since_block"], withdrawn["until_block"]) == (101, 101)


def test_an_operators_request_happens_once(operate):
    first = operate("opt-outs", {"domain": "example.org"}, idempotency_key="opt-out-1")
    operate.service.chain.block = 200
    assert operate("opt-outs", {"domain": "example.org"}, idempotency_key="opt-out-1").json() == first.json()
    other = operate("opt-outs", {"domain": "example.com"}, idempotency_key="opt-out-1")
    assert (other.status_code, other.json()["code"]) == (422, "bad-input")
    another = operate.service.operators.create_key(("opt-outs",), "another operator")
    elsewhere = operate("opt-outs", {"domain": "example.com"}, key=another, idempotency_key="opt-out-1")
    assert elsewhere.status_code == 200, "keys are each operator's own"


def test_each_route_takes_its_own_scope(operate, wallets):
    bodies = {
        "crawls": ("crawls", {"crawl": "CC-MAIN-2026-43"}, 202),
        "tasks": (f"tasks/{'0' * 32}/close", {}, 404),
        "bans": ("bans", {"coldkey": hotkey_of(wallets("someone")), "reason": None}, 200),
        "opt-outs": ("opt-outs", {"domain": "example.org"}, 200),
    }
    for scope in SCOPES:
        key = operate.service.operators.create_key((scope,), "")
        for of, (path, body, status) in bodies.items():
            assert operate(path, body, key=key).status_code == (status if of == scope else 403), (scope, of)


def test_a_crawl_is_asked_for_and_imported_later(operate):
    view = operate("crawls", {"crawl": "CC-MAIN-2026-43"}).json()
    assert (view["id"], view["state"], view["failure"]) == ("CC-MAIN-2026-43", "importing", None)
    with operate.service.client(None) as client:
        assert {crawl.id: crawl.state for crawl in client.crawls()}["CC-MAIN-2026-43"] == "importing"
    refused = operate("crawls", {"crawl": "CC-MAIN-2026-43", "crawl_url": "file:///etc"})
    assert refused.status_code == 422, "no file of the server's own machine"


def test_verbs_without_a_server(operators, held_clock):
    """The rules are the ledger's, not HTTP's."""
    ban = Ban(coldkey="5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", reason="x")
    request = asked()
    first = operators.ban(request, ban).result()
    assert operators.ban(request, ban).result() == first
    with pytest.raises(BadInput):
        operators.ban(Asked(request.by, request.key, "another"), ban).result()
    with pytest.raises(NotFound):
        operators.opt_out(asked(), AskOptOut(domain="example.org", withdraw=True), 100).result()


def test_a_task_is_made_a_canary_once(operate, submission_for):
    service = operate.service
    with service.client(service.wallet("miner")) as client:
        (lease,) = client.claim()
    manifest = submission_for(lease).manifest
    service.operators.set_canary(manifest)
    with pytest.raises(Conflict):
        service.operators.set_canary(manifest)
    with pytest.raises(NotFound):
        service.operators.set_canary(manifest.model_copy(update={"task_id": "0" * 32}))
