"""Kill -9 every process once, while it holds unfinished work: the loop completes, nothing is lost or leased twice.

The crawl is read over HTTP, as Common Crawl would be, and the release that comes out is whole.
"""

import os
import random
import signal
import time
from collections import Counter

import pytest

pytestmark = pytest.mark.timeout(900)


def unfinished(events, begun, ended):
    """The keys of `begun` events that no `ended` event has closed yet."""
    open_work = {}
    for event in events:
        key = (event.get("task"), event.get("hotkey"))
        if event["event"] in begun:
            open_work[key] = event
        elif event["event"] in ended:
            open_work.pop(key, None)
    return open_work


def miner_works(demo, room):
    refining = {"miner.refining"}
    return unfinished(demo.events(room), refining, {"miner.submitted", "miner.lost"})


def server_works(demo, room):
    return unfinished(demo.events(room), {"server.leased"}, {"server.submitted"})


def chain_works(demo, room):
    """Sealed commitments that are on chain and not revealed yet."""
    sealed, revealed = 0, 0
    for event in demo.events(room):
        sealed += event["event"] == "devchain.extrinsic" and event["ok"] and "set_commitment" in event["call"]
        revealed += event["event"] == "devchain.revealed"
    return range(sealed - revealed)


def validator_works(demo, room):
    return unfinished(demo.events(room), {"judge.start"}, {"judge.done"})


def trainer_works(demo, room):
    steps = demo.events(room, "train.step")
    return [step for step in steps[-1:] if step["step"] < step["total"] and not demo.events(room, "trainer.released")]


ROOMS = [
    ("miner-canon", miner_works),
    ("miner-strict", miner_works),
    ("server", server_works),
    ("miner-lazy", miner_works),
    ("chain", chain_works),
    ("validator-1", validator_works),
    ("validator-2", validator_works),
    ("trainer", trainer_works),
]


def test_kill_each_process_once_in_the_middle_of_its_work(demo, is_alive, over_http, check_release):
    rng = random.Random(20261121)
    run = demo(*over_http)
    killed = {}
    for room, works in ROOMS:
        run.wait_until(lambda room=room, works=works: works(run, room), f"{room} at work")
        time.sleep(rng.uniform(0.0, 0.3))
        pid = run.children()[room]
        held = len(works(run, room))
        os.kill(pid, signal.SIGKILL)
        assert held, f"{room} had finished before it was killed"
        killed[room] = pid
        run.wait_until(lambda room=room, pid=pid: run.children()[room] != pid, f"restart of {room}")
    assert run.finish() == 0, run.output()
    assert not any(is_alive(pid) for pid in killed.values())

    leased = run.events("server", "server.leased")
    assert all(n == 1 for n in Counter((e["task"], e["hotkey"]) for e in leased).values()), "a task was leased twice"
    assert len({e["fencing"] for e in leased}) == len(leased)
    summary = run.summary()
    tasks = {lease["task"] for lease in summary["leases"]}
    assert len(summary["leases"]) == 3 * len(tasks)
    assert {lease["state"] for lease in summary["leases"]} == {"submitted"}
    for validator in ("validator-1", "validator-2"):
        done = {(e["task"], e["hotkey"]) for e in run.events(validator, "judge.done") if e["outcome"] != "none"}
        assert len(done) == len(summary["leases"]), f"{validator} lost a submission"
    assert summary["release"]["training_tokens"] > 0
    check_release(run.out / "release")
