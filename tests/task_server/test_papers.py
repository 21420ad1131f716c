"""What validators and trainers sign: who may, what counts, and what it changes. Over HTTP, on both databases."""

from __future__ import annotations

import itertools

import pytest

from athena.chain.wallets import hotkey_of, sign
from athena.errors import Conflict, Forbidden, NotFound, Unauthorized
from athena.protocol import Release, SignedRelease


@pytest.fixture
def bench(serve, submission_for, sheet_by):
    """A lease that was submitted, and validators of some stakes; gives the verdict after each of their words."""
    service = serve(num_tasks=4)
    with service.client(service.wallet("miner")) as client:
        lease, idle = client.claim(2)
        client.submit(submission_for(lease))
    units = itertools.count()  # no two sheets are the same

    def say(validator: str, outcome: str, stake: float) -> str | None:
        wallet = service.wallet(validator, permit=True, stake=stake)
        with service.client(wallet) as judge:
            judge.post_sheet(sheet_by(wallet, lease, outcome=outcome, units=next(units) / 100))
            (view,) = judge.submissions(task_id=lease.task.id)
        return view.verdict

    say.service, say.lease, say.idle = service, lease, idle
    return say


def test_the_verdict_is_by_weight_of_stake(bench):
    assert bench("small", "fail", 1.0) == "fail"
    assert bench("equal", "pass", 1.0) == "pass", "only a greater stake makes a fail"
    assert bench("great", "fail", 5.0) == "fail"
    assert bench("great", "none", 5.0) == "fail", "whoever cannot tell changes nothing"
    assert bench("great", "pass", 5.0) == "pass", "a validator's last word counts"
    assert bench("crowd", "fail", 6.5) == "fail"


def test_none_is_no_verdict(bench):
    assert bench("blind", "none", 100.0) is None
    assert bench("poor", "fail", 0.0) == "fail"


def test_a_stake_counts_as_it_was_when_the_sheet_came(bench):
    assert bench("once rich", "fail", 10.0) == "fail"
    bench.service.wallet("once rich", permit=True, stake=0.0)
    assert bench("other", "pass", 9.0) == "fail"


def test_a_sheet_is_kept_once_and_all_are_kept(bench, sheet_by):
    service, lease = bench.service, bench.lease
    wallet = service.wallet("validator", permit=True)
    sheets = [sheet_by(wallet, lease, outcome=outcome) for outcome in ("none", "fail", "pass")]
    with service.client(wallet) as judge:
        for sheet in (*sheets, sheets[1]):
            judge.post_sheet(sheet)
        assert judge.sheets(task_id=lease.task.id) == sheets
        (view,) = judge.submissions(task_id=lease.task.id)
        assert view.verdict == "pass", "an old word that is repeated is no new word"
        told = [event.body for event in judge.events() if event.kind == "scored"]
    assert [(event["validator"], event["outcome"]) for event in told] == [
        (hotkey_of(wallet), outcome) for outcome in ("none", "fail", "pass")
    ]
    assert [event["sha256"] for event in told] == [sheet.sheet.digest() for sheet in sheets]


def test_a_sheet_about_a_lease_that_came_to_nothing_gives_no_verdict(bench, sheet_by, submission_for):
    service, wallet = bench.service, bench.service.wallet("validator", permit=True)
    with service.client(wallet) as judge, service.client(service.wallets("miner")) as client:
        judge.post_sheet(sheet_by(wallet, bench.idle, outcome="fail"))
        assert client.submit(submission_for(bench.idle)).verdict is None
        judge.post_sheet(sheet_by(wallet, bench.idle, outcome="none"))
        (view,) = judge.submissions(task_id=bench.idle.task.id)
        assert view.verdict == "fail", "what was said earlier counts from the first sheet after the submission"


def test_who_may_score(bench, sheet_by):
    service, lease = bench.service, bench.lease
    refused = {
        "no permit": (service.wallet("plain", stake=100.0), {}),
        "own work": (service.wallet("partner", permit=True, coldkey="miner"), {}),
        "another's name": (service.wallet("judge", permit=True), {"validator": lease.hotkey}),
    }
    for why, (wallet, fields) in refused.items():
        with service.client(wallet) as judge, pytest.raises(Forbidden):
            judge.post_sheet(sheet_by(wallet, lease, **fields))
            pytest.fail(why)
    with service.client(service.wallets("judge")) as judge:
        for unknown in ({"task_id": "0" * 32}, {"hotkey": hotkey_of(service.wallets("judge-2"))}):
            with pytest.raises(NotFound):
                judge.post_sheet(sheet_by(service.wallets("judge"), lease, **unknown))


def test_a_minimum_stake(serve, sheet_by):
    service = serve(min_validator_stake=10.0)
    with service.client(service.wallet("miner")) as client:
        (lease,) = client.claim()
    for stake, allowed in ((9.9, False), (10.0, True)):
        wallet = service.wallet("validator", permit=True, stake=stake)
        with service.client(wallet) as judge:
            if allowed:
                judge.post_sheet(sheet_by(wallet, lease))
            else:
                with pytest.raises(Forbidden, match="stake of 10"):
                    judge.post_sheet(sheet_by(wallet, lease))


def test_releases_are_kept_once_and_versions_are_final(serve):
    service = serve()
    trainer, other = service.wallet("trainer"), service.wallet("other")

    def announced(wallet, **fields) -> SignedRelease:
        release = Release(
            name="athena", version="0.1.0", files=(), parameters=1, training_tokens=1, eval_pack="e" * 64,
            bits_per_byte_before={}, bits_per_byte_after={"web": 1.25}, lineage=(), trainer=hotkey_of(wallet),
        ).model_copy(update=fields)  # fmt: skip
        return SignedRelease(release=release, signature=sign(wallet, release.canonical()))

    first, second, theirs = announced(trainer), announced(trainer, version="0.2.0"), announced(other)
    with service.client(trainer) as client, service.client(other) as rival:
        for release in (first, first, second):
            client.post_release(release)
        rival.post_release(theirs)
        with pytest.raises(Conflict, match="another release"):
            client.post_release(announced(trainer, parameters=2))
        with pytest.raises(Forbidden):
            rival.post_release(second)
        with pytest.raises(Unauthorized):
            client.post_release(announced(trainer, version="0.3.0").model_copy(update={"signature": first.signature}))
        assert client.releases() == [first, second, theirs]
        kinds = [event.kind for event in client.events()]
    assert kinds.count("announced") == 3
