"""How many leases a coldkey may take: its record decides, and there is no way round it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from athena.chain.wallets import hotkey_of
from athena.errors import RateLimited
from task_server.quota import DAY_MICROS, Account, QuotaSpent

NEW = Account.opened("cold", 4, 0)


def test_an_allowance_refills_evenly_up_to_a_days_quota():
    spent = NEW.charged().charged().charged().charged()
    assert spent.allowance == 0
    with pytest.raises(QuotaSpent) as caught:
        spent.charged()
    assert caught.value.retry_after_seconds == 86_400 / 4
    quarter = DAY_MICROS // 4
    assert spent.refilled(quarter).charged().allowance == 0
    assert spent.refilled(quarter // 2).refilled(quarter) == spent.refilled(quarter)
    assert spent.refilled(10 * DAY_MICROS).allowance == 4
    assert spent.refilled(-quarter) == spent, "a clock that steps back takes nothing away"


def test_a_pass_doubles_the_quota_and_a_failure_takes_one_off():
    better = NEW.rewarded(100)
    assert (better.quota, better.allowance, better.streak) == (8, 8.0, 1)
    assert replace(NEW, quota=60).rewarded(100).quota == 100
    assert replace(NEW, quota=120).rewarded(100).quota == 120, "a limit that was lowered takes nothing away"
    worse = better.punished()
    assert (worse.quota, worse.allowance, worse.streak) == (7, 7.0, 0)
    assert replace(NEW, quota=1).punished().quota == 1, "there is always a way back"


def claims(client, count: int) -> int:
    """How many leases the claim got; none if the quota is spent."""
    try:
        return len(client.claim(count))
    except RateLimited:
        return 0


def test_a_spent_quota_says_when_to_come_back(serve):
    service = serve(num_tasks=9, initial_quota=3)
    wallet = service.wallet("miner")
    with service.client(wallet) as client:
        for lease in client.claim(9):
            client.release(lease)
        with pytest.raises(RateLimited, match="3 leases a day") as caught:
            client.claim()
        assert caught.value.retry_after_seconds == 86_400 / 3
        service.clock.advance(86_400 / 3)
        assert len(client.claim(9)) == 1


def test_what_is_held_is_shown_whatever_the_quota(serve):
    service = serve(num_tasks=9, initial_quota=3)
    with service.client(service.wallet("miner")) as client:
        held = client.claim(9)
        assert len(held) == 3
        assert client.claim(9) == held


def test_more_keys_give_no_more_work(serve):
    service = serve(num_tasks=20, initial_quota=3)
    hands = [service.wallet(f"hand-{i}", coldkey="one person") for i in range(4)]

    def grab(wallet) -> int:
        with service.client(wallet, retry_seconds=0.0) as client:
            return claims(client, 2)

    with ThreadPoolExecutor(8) as pool:
        leased = sum(pool.map(grab, [*hands, *hands]))  # each claim under an idempotency key of its own
    with service.store.read() as session:
        assert session.connection().exec_driver_sql("SELECT count(*) FROM lease").scalar() == 3
    assert leased >= 3, "what a hotkey holds is shown again"


def test_a_restart_forgets_nothing(serving, ledger_url, held_clock):
    for allowed in (3, 0):
        with (
            serving(ledger_url, held_clock, num_tasks=20, initial_quota=3) as service,
            service.client(service.wallet("miner")) as client,
        ):
            assert claims(client, 3) == allowed
            for lease in client.leases(state="active"):
                client.release(lease)


def test_validators_raise_a_quota_and_expiry_lowers_it(serve, submission_for, sheet_by):
    service = serve(num_tasks=20, initial_quota=4, max_quota=6, lease_seconds=60, deadline_seconds=600)
    validator = service.wallet("validator", permit=True)
    miner = service.wallet("miner")

    def standing() -> tuple[int, int]:
        service.clock.advance(5)  # miners' records are counted every few seconds
        record = client.miner(hotkey_of(miner))
        return record.quota, record.streak

    with service.client(miner) as client, service.client(validator) as judge:
        first, second, third, _ = client.claim(4)
        client.submit(submission_for(first))
        judge.post_sheet(sheet_by(validator, first))
        assert standing() == (6, 1)
        client.submit(submission_for(second))
        judge.post_sheet(sheet_by(validator, second, outcome="none"))
        assert standing() == (6, 1)
        judge.post_sheet(sheet_by(validator, second, outcome="fail"))
        assert standing() == (5, 0)
        client.release(third)
        assert standing() == (5, 0), "what is given back costs nothing"
        service.clock.advance(60)
        client.claim(1)
        assert standing() == (4, 0), "one lease ran out"


def test_a_canary_tells_what_no_validator_has_seen_yet(serve, submission_for):
    service = serve(num_tasks=3, initial_quota=4)
    miner = service.wallet("miner")
    with service.client(miner) as client:
        good, bad, other = client.claim(3)
        known = {lease.id: submission_for(lease).manifest for lease in (good, bad, other)}
        service.operators.set_canary(known[good.id].model_copy(update={"hotkey": "5" * 48, "root": "c" * 64}))
        service.operators.set_canary(known[bad.id].model_copy(update={"rows": 3}))
        recipe = known[other.id].recipe.model_copy(update={"hash": "d" * 64})
        service.operators.set_canary(known[other.id].model_copy(update={"recipe": recipe, "rows": 1}))
        quotas = []
        for lease in (good, other, bad):
            view = client.submit(submission_for(lease))
            assert "canary_passed" not in view.model_dump(), "nobody is told which tasks are canaries"
            service.clock.advance(5)
            quotas.append(client.miner(lease.hotkey).quota)
    assert quotas == [4, 4, 3], "another recipe meets the same records, and keeps other rows"


def test_a_task_goes_to_more_miners_if_its_first_one_is_new(serve, submission_for, sheet_by):
    service = serve(num_tasks=1, new_miner_copies=2, trusted_after=1)
    miners = [service.wallet(f"miner-{i}") for i in range(4)]
    leased = []
    for wallet in miners:
        with service.client(wallet) as client:
            leased += client.claim()
    assert len(leased) == 3
    view = service.http.get(f"/v1/tasks/{leased[0].task.id}").json()
    assert (view["copies"], view["open_slots"]) == (3, 0)


def test_a_task_of_a_trusted_miner_needs_no_more(serve, submission_for, sheet_by):
    service = serve(num_tasks=2, new_miner_copies=2, trusted_after=1)
    validator, miner = service.wallet("validator", permit=True), service.wallet("miner")
    with service.client(miner) as client, service.client(validator) as judge:
        (first,) = client.claim()
        client.submit(submission_for(first))
        judge.post_sheet(sheet_by(validator, first))
        (second,) = client.claim()
        assert [client.task_view(lease.task.id).copies for lease in (first, second)] == [3, 1]
