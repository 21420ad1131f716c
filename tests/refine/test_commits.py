"""The queue for the one commitment of a hotkey: in order of deadlines, far enough apart, and never in vain."""

import itertools
import threading
import time

import pytest

from athena.chain.client import Committed, Head
from athena.errors import AthenaError, Conflict, Unavailable
from athena.refine.work import commits
from athena.refine.work.commits import CommitQueue, Late

HOTKEY, OTHER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
READ_BLOCKS = 10


class FakeChain:
    """A block passes at every look. `away` looks fail, `broken` commits fail."""

    def __init__(self, number=1000):
        self.committed, self.number, self.away, self.broken, self.threads = [], number, 0, [], set()

    def head(self):
        self.threads.add(threading.get_ident())
        if self.away:
            self.away -= 1
            raise Unavailable("no node")
        self.number += 1
        return Head(self.number, "0x00")

    def commitments(self, block):
        last = [Committed(HOTKEY, 1, at, at, None, "sealed") for at, *_ in self.committed[-1:]]
        return [Committed(OTHER, 2, block, block, None, "sealed"), *last]

    def commit(self, text, *, sealed, reveal_in_blocks):
        if self.broken:
            raise self.broken.pop()
        self.committed.append((self.number, text, reveal_in_blocks))

    @property
    def texts(self):
        return [text for _, text, _ in self.committed]


@pytest.fixture
def chain():
    return FakeChain()


@pytest.fixture
def queue(chain, monkeypatch):
    monkeypatch.setattr(commits, "BUSY_SECONDS", 0.005)
    with CommitQueue(chain, HOTKEY, sealed=True, read_blocks=READ_BLOCKS) as queue:
        yield queue


def fine():
    """A lease that is still held."""


def together(queue, chain, wanted):
    """Commits all of (text, deadline), each from a thread of its own, the chain back once they wait; errors by text."""
    errors = {}

    def run(text, deadline):
        try:
            queue.commit(text, deadline, fine)
        except AthenaError as error:
            errors[text] = error

    chain.away = 10**6
    threads = [threading.Thread(target=run, args=pair) for pair in wanted]
    for thread in threads:
        thread.start()
    while len(queue._waiting) < len(wanted):
        time.sleep(0.001)
    chain.away = 0
    for thread in threads:
        thread.join(20)
    return errors


def test_two_read_intervals_lie_between_two_commitments_and_the_nearest_deadline_comes_first(chain, queue):
    assert together(queue, chain, [("late", 3000), ("soon", 2000), ("sooner", 1500)]) == {}
    assert chain.texts == ["sooner", "soon", "late"]
    blocks = [block for block, _, _ in chain.committed]
    assert all(after - before >= 2 * READ_BLOCKS for before, after in itertools.pairwise(blocks))
    assert all(text == "late" or block + reveal in (1500, 2000) for block, text, reveal in chain.committed)
    assert len(chain.threads) == 1


def test_who_cannot_be_in_time_is_told_at_once_and_holds_up_nobody(chain, queue):
    errors = together(queue, chain, [("a", 1012), ("b", 1020), ("c", 1045)])
    assert chain.texts == ["a", "c"] and list(errors) == ["b"] and isinstance(errors["b"], Late)
    assert chain.number < 1045


def test_work_that_is_sure_to_come_too_late_is_seen_before_it_is_finished(chain, queue):
    queue.commit("a", 2000, fine)
    queue.check(chain.number + 3 * READ_BLOCKS)
    with pytest.raises(Late):
        queue.check(chain.number + READ_BLOCKS)


def test_a_commitment_of_an_earlier_run_counts(chain, queue):
    chain.committed.append((995, "before", 1))
    queue.commit("a", 2000, fine)
    assert chain.committed[-1][0] >= 995 + 2 * READ_BLOCKS


def test_a_lost_lease_leaves_the_queue(chain, queue):
    queue.commit("a", 2000, fine)

    def lost():
        raise Conflict("cancelled")

    chain.away = 1000
    with pytest.raises(Conflict):
        queue.commit("b", 1900, lost)
    chain.away = 0
    queue.commit("c", 2000, fine)
    assert chain.texts == ["a", "c"]


def test_a_node_that_is_away_costs_time_only(chain, queue):
    chain.away = 3
    queue.commit("a", 2000, fine)
    assert chain.texts == ["a"]


@pytest.mark.parametrize("error", [Unavailable("lost"), Conflict("refused")])
def test_a_commitment_that_failed_is_its_senders_to_repeat(chain, queue, error):
    chain.broken = [error]
    with pytest.raises(type(error)):
        queue.commit("a", 2000, fine)
    queue.commit("a", 2000, fine)
    assert chain.texts == ["a"]


def test_a_fault_of_the_thread_leaves_nobody_waiting(chain, queue, monkeypatch):
    monkeypatch.setattr(chain, "head", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        queue.commit("a", 2000, fine)


def test_the_queue_ends_with_its_block(chain):
    with CommitQueue(chain, HOTKEY, sealed=True, read_blocks=READ_BLOCKS) as queue:
        pass
    until = time.monotonic() + 5
    while queue._thread.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert not queue._thread.is_alive()
