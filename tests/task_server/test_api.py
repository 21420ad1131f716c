"""The service as miners, validators, trainers and onlookers meet it: over HTTP, through the client."""

from __future__ import annotations

import pytest

from athena.chain.wallets import hotkey_of, sign
from athena.errors import BadInput, Conflict, Forbidden, NotFound, Unavailable
from athena.leasing import lease_positions
from athena.protocol import Release, SignedRelease


def test_a_lease_from_claim_to_score(serve, submission_for, sheet_by):
    service = serve(lease_seconds=60, deadline_seconds=600)
    miner, validator = service.wallet("miner"), service.wallet("validator", permit=True)
    with service.client(miner) as mining, service.client(validator) as judging:
        (lease,) = mining.claim()
        assert lease.hotkey == hotkey_of(miner)
        assert (lease.state, lease.fencing, lease.audit) == ("active", 1, False)
        assert (lease.issued_block, lease.deadline_block) == (100, 150)
        assert mining.task(lease.task.id) == lease.task

        service.clock.advance(50)
        beat = mining.heartbeat(lease, {"records": 12})
        assert (beat.expires_at - service.clock.now).total_seconds() == 60
        assert not beat.cancel

        view = mining.submit(submission_for(lease))
        assert (view.late, view.accepted, view.verdict) == (False, True, None)
        judging.post_sheet(sheet_by(validator, lease))
        assert [s.state for s in mining.leases(hotkey=lease.hotkey)] == ["submitted"]
        assert [s.sheet.units for s in judging.sheets(task_id=lease.task.id)] == [1.5]
        assert [s.verdict for s in judging.submissions(task_id=lease.task.id)] == ["pass"]
        stats = judging.stats()
        assert (stats.tasks, stats.open_tasks, stats.submissions, stats.tokens) == (8, 7, 1, 1234)
        assert stats.leases == {"active": 0, "submitted": 1, "expired": 0, "released": 0}
        assert stats.sheets == {"pass": 1, "fail": 0, "none": 0}
        record = judging.miner(lease.hotkey)
        assert (record.submissions, record.passed, record.streak, record.tokens) == (1, 1, 1, 1234)


def test_anyone_can_recompute_the_draw(serve):
    service = serve(num_tasks=20)
    with service.client(service.wallet("miner")) as client:
        (lease,) = client.claim()
        order = {view.position: view.id for view in client.tasks()}
    first = next(lease_positions(service.chain.hash_of(lease.issued_block), lease.hotkey, len(order)))
    assert order[first] == lease.task.id


def test_a_restarted_miner_finds_its_leases(serve):
    service = serve()
    miner = service.wallet("miner")
    with service.client(miner) as before:
        held = before.claim(2)
    with service.client(miner) as after:
        assert after.claim(2) == held
        assert after.claim(3)[:2] == held
        assert after.claim(1) == held[:1]


def test_no_work_is_an_empty_list_and_a_time_to_come_back(serve):
    service = serve(num_tasks=1, idle_seconds=7)
    first, second = service.wallet("first"), service.wallet("second")
    with service.client(first) as client:
        assert len(client.claim(5)) == 1
    seen = []
    with service.client(second) as client:
        client._http.event_hooks["response"].append(lambda response: seen.append(response.headers.get("retry-after")))
        assert client.claim() == []
    assert seen == ["7"]


def test_a_coldkey_gets_one_lease_of_a_task(serve):
    service = serve(num_tasks=2, replication=3)
    hands = [service.wallet(name, coldkey="one person") for name in ("left", "right")]
    tasks = []
    for hand in hands:
        with service.client(hand) as client:
            tasks += [lease.task.id for lease in client.claim(5)]
    assert len(tasks) == len(set(tasks)) == 2


def test_audit_duplicates_are_drawn_after_the_lease(serve):
    service = serve(num_tasks=1, audit_share=1.0)
    miners = [service.wallet(f"miner{i}") for i in range(4)]
    with service.client(miners[0]) as client:
        (lease,) = client.claim()
    assert service.ledger.audits_due(100) == []
    assert service.ledger.audits_due(101) == [101]
    service.ledger.settle_audits({101: service.chain.hash_of(101)}).result()
    audits = []
    for miner in miners[1:]:
        with service.client(miner) as client:
            audits += [duplicate.audit for duplicate in client.claim()]
    assert not lease.audit
    assert audits == [True, True]


def test_late_work_counts_while_there_is_room_for_it(serve, submission_for):
    service = serve(num_tasks=1, lease_seconds=60, deadline_seconds=600)
    with service.client(service.wallet("slow")) as late, service.client(service.wallet("quick")) as other:
        (lease,) = late.claim()
        service.clock.advance(61)
        assert not late.heartbeat(lease, {}).cancel
        (taken,) = other.claim()
        assert taken.fencing > lease.fencing
        assert late.heartbeat(lease, {}).cancel
        other.release(taken)
        assert not late.heartbeat(lease, {}).cancel
        view = late.submit(submission_for(lease))
        assert (view.late, view.accepted) == (True, True)
        assert other.claim() == [], "its slot is taken"


def test_late_work_without_room_is_kept_and_not_paid(serve, submission_for):
    service = serve(num_tasks=1, lease_seconds=60, deadline_seconds=600)
    with service.client(service.wallet("slow")) as late, service.client(service.wallet("quick")) as other:
        (lease,) = late.claim()
        service.clock.advance(61)
        (taken,) = other.claim()
        view = late.submit(submission_for(lease))
        assert (view.late, view.accepted) == (True, False)
        assert other.submit(submission_for(taken)).accepted, "whoever holds the slot loses nothing"
        assert late.submit(submission_for(lease)) == view
        assert [(s.hotkey, s.accepted) for s in late.submissions()] == [(lease.hotkey, False), (taken.hotkey, True)]
        assert [held.state for held in late.leases()] == ["expired", "submitted"]


def test_where_data_lies_is_hidden_until_the_deadline(serve, submission_for):
    service = serve(num_tasks=1, replication=2, lease_seconds=60, deadline_seconds=600)
    first, second = service.wallet("first"), service.wallet("second")
    with service.client(first) as client, service.client(second) as rival:
        (lease,) = client.claim()
        client.submit(submission_for(lease))
        service.clock.advance(300)
        rival.claim()
        service.clock.advance(400)  # past the first deadline, before the rival's
        (view,) = rival.submissions(task_id=lease.task.id)
        assert view.dataset is None
        assert view.manifest is None
        assert view.rows == 4
        service.clock.advance(201)
        (view,) = rival.submissions(hotkey=lease.hotkey)
        assert view.dataset == submission_for(lease).dataset


def test_the_same_submission_again_is_answered_and_another_refused(serve, submission_for):
    service = serve()
    with service.client(service.wallet("miner")) as client:
        (lease,) = client.claim()
        client.submit(submission_for(lease))
        client.submit(submission_for(lease))
        with pytest.raises(Conflict, match="another submission"):
            client.submit(submission_for(lease, name="other"))
        assert len(client.submissions()) == 1


def test_a_manifest_must_be_the_leases(serve, submission_for):
    service = serve()
    with service.client(service.wallet("miner")) as client:
        first, second = client.claim(2)
        submission = submission_for(first)
        for swapped in (
            submission.model_copy(update={"manifest": submission_for(second).manifest}),
            submission.model_copy(update={"dataset": submission.dataset.model_copy(update={"root": "c" * 64})}),
        ):
            with pytest.raises(BadInput, match="the manifest names"):
                client.submit(swapped)


def test_a_released_lease_can_be_leased_to_another_but_not_used(serve, submission_for):
    service = serve(num_tasks=1)
    with service.client(service.wallet("first")) as client, service.client(service.wallet("second")) as other:
        (lease,) = client.claim()
        client.release(lease)
        client.release(lease)
        assert client.claim() == []
        assert [again.task for again in other.claim()] == [lease.task]
        with pytest.raises(Conflict):
            client.submit(submission_for(lease))
        with pytest.raises(Conflict):
            client.heartbeat(lease, {})


def test_releases_are_kept_once_and_versions_are_final(serve):
    service = serve()
    trainer = service.wallet("trainer")
    release = Release(
        name="athena", version="0.1.0", files=(), parameters=1, training_tokens=1, eval_pack="e" * 64,
        bits_per_byte_before={}, bits_per_byte_after={"web": 1.25}, lineage=(), trainer=hotkey_of(trainer),
    )  # fmt: skip
    signed = SignedRelease(release=release, signature=sign(trainer, release.canonical()))
    changed = release.model_copy(update={"parameters": 2})
    with service.client(trainer) as client:
        client.post_release(signed)
        client.post_release(signed)
        with pytest.raises(Conflict, match="another release"):
            client.post_release(SignedRelease(release=changed, signature=sign(trainer, changed.canonical())))
        assert client.releases() == [signed]
    with service.client(service.wallet("impostor")) as client, pytest.raises(Forbidden):
        client.post_release(signed)


def test_lists_page_by_key(serve):
    service = serve(num_tasks=7)
    seen, cursor = [], None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = service.http.get("/v1/tasks", params=params).json()
        assert len(page["items"]) <= 3
        seen += [item["position"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == list(range(7))


def test_a_forged_cursor_is_refused(serve):
    service = serve(num_tasks=1)
    for cursor in ("", "x", "%00", "é", "dGFza3M6", "bGVhc2VzOjE=", "dGFza3M6LTE=", "dGFza3M6" + "OTk5" * 9, "A" * 65):
        reply = service.http.get("/v1/tasks", params={"cursor": cursor})
        assert (reply.status_code, reply.json()["code"]) == (422, "bad-input"), cursor


def test_leases_are_filtered_by_the_state_that_time_gives_them(serve):
    service = serve(lease_seconds=60, deadline_seconds=600)
    with service.client(service.wallet("miner")) as client:
        (lease,) = client.claim()
        assert [found.id for found in client.leases(state="active")] == [lease.id]
        service.clock.advance(61)
        assert client.leases(state="active") == []
        assert [found.state for found in client.leases(state="expired", task_id=lease.task.id)] == ["expired"]


def test_the_server_says_who_it_is_and_its_terms(serve):
    service = serve(lease_seconds=60)
    with service.client(None) as client:
        info = client.server()
        assert (info.hotkey, info.crawl, info.crawl_url) == (service.receiver, "LOCAL-test", "file:///crawl")
        assert (info.rule_version, info.lease_seconds) == ("demo-1", 60)
        with pytest.raises(NotFound):
            client.task("0" * 32)
    assert service.http.get("/healthz").json() == {"status": "ok"}
    paths = service.http.get("/openapi.json").json()["paths"]
    assert {"/v1/leases", "/v1/submissions", "/v1/sheets", "/v1/releases", "/v1/stats", "/healthz"} <= set(paths)


def test_a_stale_view_of_the_chain_stops_writes_but_not_reads(serve):
    service = serve()
    with service.client(service.wallet("miner")) as client:
        service.chain.stale = True
        with pytest.raises(Unavailable, match="view of the chain"):
            client.claim()
        assert client.stats().tasks == 8
