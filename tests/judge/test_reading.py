"""What counts as a commitment: read alike by all, whatever else lies on the chain."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena.chain.client import Committed, Head, Neuron
from athena.chain.link import StateGone
from athena.errors import Unavailable
from athena.judge.evidence import Found
from athena.judge.queue import LAST_READ, CaseQueue
from athena.judge.reading import CATCH_UP_BLOCKS, due_blocks, read_commitments
from athena.judge.rules import BLOCKS_PER_DAY, rules_of
from athena.judge.work import READS_AT_A_TIME, Reader, weights_now
from athena.protocol import Commitment, DatasetRef, Lease, ScoreSheet, Shard, SignedSheet, Task

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
NOBODY = "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM"  # the all-zero key
OWNER = "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y"
TASK = Task(shard=Shard(crawl="CC-MAIN-2026-43", warc_paths=("a.warc.gz",)), rule_version="demo-1", opened_block=1)
EVERY = 10


def lease(hotkey, state="active", task=TASK):
    now = datetime(2026, 11, 21, tzinfo=UTC)
    return Lease(
        id="1" * 32, task=task, hotkey=hotkey, state=state, fencing=1, issued_at=now, heartbeat_at=now, expires_at=now,
        deadline_at=now, issued_block=5, deadline_block=500,
    )  # fmt: skip


def commitment(hotkey, task=TASK):
    ref = DatasetRef(location="hf:org/name", revision="a" * 40, root="b" * 64)
    return Commitment(dataset=ref, task_id=task.id, hotkey=hotkey)


def committed(hotkey, text, *, commit_block=11, visible_block=15):
    return Committed(hotkey, 1, commit_block, visible_block, text, "revealed")


class FakeChain:
    """A chain as of any block: fixed entries, everyone registered at `since`."""

    def __init__(self, entries, since=0):
        self.entries, self.since, self.away = entries, since, False

    def head(self, number):
        return Head(number, "0x" + f"{number:064x}")

    def neurons(self, block=None):
        hotkeys = (OWNER, ALICE, BOB)
        return [Neuron(uid, key, key, 1.0, False, 0.0, self.since, 0) for uid, key in enumerate(hotkeys)]

    def commitments(self, block):
        if self.away:
            raise Unavailable("no node")
        return self.entries


class FakeLedger:
    def __init__(self, *leases):
        self._leases = leases

    def leases(self, *, hotkey=None, task_id=None, state=None):
        return [
            lease
            for lease in self._leases
            if hotkey in (None, lease.hotkey) and task_id in (None, lease.task.id) and state in (None, lease.state)
        ]


def read(entries, *leases, block=20, since=0):
    return list(read_commitments(FakeChain(entries, since), FakeLedger(*leases), block, EVERY))


def test_a_commitment_is_read_with_the_blocks_it_depends_on():
    (found,) = read([committed(ALICE, commitment(ALICE).encode())], lease(ALICE))
    assert (found.issued_block, found.commit_block, found.seed_block, found.deadline_block) == (5, 11, 20, 500)
    assert found.block_hash == "0x" + f"{20:064x}" and found.task == TASK


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "still sealed"),
        ("ath1|nonsense", "malformed"),
        (commitment(BOB).encode(), "copied from another hotkey"),
        ("x" * 400, "too long"),
    ],
)
def test_anything_else_is_left_out_and_spoils_nothing(text, reason):
    entries = [committed(ALICE, text), committed(BOB, commitment(BOB).encode())]
    assert [f.commitment.hotkey for f in read(entries, lease(ALICE), lease(BOB))] == [BOB]


def test_what_rests_on_no_lease_is_left_out():
    other = Task(shard=TASK.shard, rule_version="demo-1", opened_block=2)
    assert read([committed(ALICE, commitment(ALICE).encode())], lease(BOB), lease(ALICE, task=other)) == []


def test_a_commitment_from_before_its_signer_registered_is_left_out():
    assert read([committed(ALICE, commitment(ALICE).encode())], lease(ALICE), since=12) == []


@pytest.mark.parametrize(("block", "taken"), [(500, 1), (501, 0)])
def test_a_commitment_after_the_deadline_is_left_out(block, taken):
    entries = [committed(ALICE, commitment(ALICE).encode(), commit_block=block, visible_block=block)]
    assert len(read(entries, lease(ALICE), block=510)) == taken


@pytest.mark.parametrize(("visible", "blocks"), [(10, [20]), (15, [20]), (19, [20]), (20, [30])])
def test_every_commitment_is_taken_at_one_block_after_it_became_visible(visible, blocks):
    entries = [committed(ALICE, commitment(ALICE).encode(), visible_block=visible)]
    assert [block for block in (10, 20, 30, 40) if read(entries, lease(ALICE), block=block)] == blocks


@given(last=st.integers(0, 500).map(lambda n: n * EVERY), ahead=st.integers(0, 2 * CATCH_UP_BLOCKS))
def test_due_blocks_are_the_multiples_that_follow(last, ahead):
    blocks = due_blocks(last, last + ahead, EVERY)
    assert all(block % EVERY == 0 and last < block <= last + ahead for block in blocks)
    assert len(blocks) == min(ahead // EVERY, CATCH_UP_BLOCKS // EVERY)
    assert not blocks or blocks[-1] + EVERY > last + ahead


@pytest.fixture
def queue(tmp_path):
    queue = CaseQueue(tmp_path / "queue.sqlite")
    yield queue
    queue.close()


def test_a_read_that_failed_is_done_again_and_a_done_one_is_not(queue):
    chain = FakeChain([committed(ALICE, commitment(ALICE).encode())])
    reader = Reader(chain, FakeLedger(lease(ALICE)), queue, EVERY)
    chain.away = True
    with pytest.raises(Unavailable):
        reader.read_up_to(25)
    chain.away = False
    assert reader.read_up_to(25) == 1
    assert reader.read_up_to(25) == 0
    assert Reader(chain, FakeLedger(lease(ALICE)), queue, EVERY).read_up_to(29) == 0


def test_a_validator_that_was_away_for_days_reads_all_of_them(queue):
    """A bounded number of reads at a time."""
    every, days = 100, 6
    texts = {block: commitment(ALICE).encode() for block in (4000, 40_000)}

    class Days(FakeChain):
        def commitments(self, block):
            self.reads.append(block)
            return [committed(ALICE, text, commit_block=at - 3, visible_block=at - 1) for at, text in texts.items()]

    chain = Days([])
    chain.reads = []
    long = lease(ALICE).model_copy(update={"deadline_block": 50_000})
    reader = Reader(chain, FakeLedger(long), queue, every)
    queue.note(LAST_READ, 1000)
    head = 1000 + days * BLOCKS_PER_DAY
    counts = []
    while queue.noted(LAST_READ) < head:
        before = len(chain.reads)
        reader.read_up_to(head)
        counts.append(len(chain.reads) - before)
    assert chain.reads == list(range(1100, head + 1, every)) and max(counts) == READS_AT_A_TIME
    (payload,) = queue.payloads()  # the same dataset again is the same case
    assert Found.model_validate_json(payload).seed_block == 4000


def test_blocks_whose_state_the_node_has_dropped_are_passed_over_and_told(queue, caplog):
    class Pruned(FakeChain):
        def commitments(self, block):
            if block < 60:
                raise StateGone("dropped")
            return self.entries

    entries = [committed(ALICE, commitment(ALICE).encode(), commit_block=12, visible_block=75)]
    queue.note(LAST_READ, 10)
    assert Reader(Pruned(entries), FakeLedger(lease(ALICE)), queue, EVERY).read_up_to(100) == 1
    assert queue.noted(LAST_READ) == 100
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "4 reads from block 20 to 50" in told and "archive" in told


def test_a_block_is_read_as_a_whole_or_not_at_all(queue, monkeypatch):
    """A case never meets half of the commitments that were read beside it."""
    entries = [committed(key, commitment(key).encode()) for key in (ALICE, BOB)]
    reader = Reader(FakeChain(entries), FakeLedger(lease(ALICE), lease(BOB)), queue, EVERY)

    def killed(name, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(queue, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            reader.read_up_to(20)
    assert list(queue.payloads()) == []
    assert reader.read_up_to(20) == 2


def test_rules_that_this_version_does_not_know_are_not_judged(queue):
    strange = Task(shard=TASK.shard, rule_version="99", opened_block=1)
    chain = FakeChain([committed(ALICE, commitment(ALICE, strange).encode())])
    assert Reader(chain, FakeLedger(lease(ALICE, task=strange)), queue, EVERY).read_up_to(20) == 0


def settle(queue, hotkey, outcome, units=0.0):
    queue.enqueue(f"{hotkey}-{outcome}", hotkey=hotkey, task_id=TASK.id, commit_block=11, payload="{}", due_at=0.0)
    sheet = ScoreSheet(
        task_id=TASK.id, hotkey=hotkey, dataset=commitment(hotkey).dataset, validator=OWNER, rule_version="demo-1",
        eval_pack="0" * 64, issued_block=5, commit_block=11, seed_block=20, outcome=outcome, gates=(), units=units,
    )  # fmt: skip
    queue.settle(f"{hotkey}-{outcome}", SignedSheet(sheet=sheet, signature="0" * 128), now=0.0)


def weights(queue, *leases, block=30, owner=OWNER):
    return weights_now(queue, FakeLedger(*leases), FakeChain([]).neurons(), owner, "demo-1", block)


def test_no_weights_before_the_first_verdict(queue):
    assert weights(queue) is None
    settle(queue, ALICE, "none")
    assert weights(queue) is None


def test_verified_work_is_paid_by_its_units(queue):
    settle(queue, ALICE, "pass", units=3.0)
    settle(queue, BOB, "pass", units=1.0)
    assert weights(queue) == pytest.approx({ALICE: 0.75, BOB: 0.25})


@pytest.mark.parametrize(("owner", "paid"), [(BOB, BOB), (OWNER, OWNER), (NOBODY, OWNER)], ids=("bob", "uid-0", "none"))
def test_where_nobody_earns_the_owner_gets_all_and_uid_0_where_there_is_none(queue, owner, paid):
    settle(queue, ALICE, "fail")
    assert weights(queue, owner=owner) == {paid: 1.0}


def test_what_hardly_weighs_any_more_is_not_looked_at(queue):
    settle(queue, ALICE, "pass", units=3.0)
    last = 11 + rules_of("demo-1").pay.memory_blocks
    assert weights(queue, block=last) == {ALICE: 1.0}
    assert weights(queue, block=last + 1) is None


def test_where_nobody_earns_the_weight_goes_to_uid_0(queue):
    settle(queue, ALICE, "fail")
    assert weights(queue) == {OWNER: 1.0}


def test_an_expired_lease_counts_against_its_miner_and_an_active_one_does_not(queue):
    settle(queue, ALICE, "pass", units=1.0)
    settle(queue, BOB, "pass", units=1.0)
    other = Task(shard=TASK.shard, rule_version="demo-1", opened_block=2)
    assert weights(queue, lease(BOB, task=other)) == pytest.approx({ALICE: 0.5, BOB: 0.5})
    punished = weights(queue, lease(BOB, "expired", other))
    assert punished.get(BOB, 0.0) < 0.5
