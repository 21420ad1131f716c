"""`athena audit` against a server that is honest, one that rewrites its history, and one that favours a friend."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import pytest
from bittensor.sp_core import Keypair

from athena.audit import GENESIS, link_hash
from athena.chain.client import Head
from athena.errors import Unavailable
from athena.leasing import lease_positions
from athena.protocol import Shard, Task
from athena.wire import EventHead, LedgerEvent, TaskView

HOTKEYS = [Keypair.create_from_uri(f"//{name}").ss58_address for name in ("a", "b", "c")]
NUM_TASKS = 5
BLOCK = 100
BLOCK_HASH = "0x" + "ab" * 32
TASKS = [
    Task(shard=Shard(crawl="LOCAL-t", warc_paths=(f"{i}.warc.gz",)), rule_version="1", opened_block=90)
    for i in range(NUM_TASKS)
]
VIEWS = [
    TaskView(id=task.id, task=task, position=i, copies=1, open_slots=1, audited=None, closed=False)
    for i, task in enumerate(TASKS)
]


def linked(changes: list[tuple[str, dict[str, Any]]]) -> list[LedgerEvent]:
    chain, previous = [], GENESIS
    for sequence, (kind, body) in enumerate(changes, 1):
        at = sequence * 60_000_000
        previous = link_hash(previous, sequence, at, kind, body)
        chain.append(LedgerEvent(sequence=sequence, at=at, kind=kind, body=body, hash=previous))
    return chain


def history(*, skip: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """Three miners claim one task each; the server skips that many tasks that were due to the last."""
    ids = "\n".join(task.id for task in TASKS)
    changes = [
        (
            "imported",
            {
                "crawl": "LOCAL-t", "block": 90, "first_position": 0, "tasks": NUM_TASKS, "copies": 1,
                "rule_version": "1", "sha256": hashlib.sha256(ids.encode()).hexdigest(),
            },
        )
    ]  # fmt: skip
    taken: set[int] = set()
    for fencing, hotkey in enumerate(HOTKEYS, 1):
        draws = enumerate(lease_positions(BLOCK_HASH, hotkey, NUM_TASKS))
        free = (draw for draw in draws if draw[1] not in taken)
        distinct = {position: index for index, position in reversed(list(islice(free, 50)))}
        position, index = sorted(distinct.items(), key=lambda draw: draw[1])[skip if fencing == 3 else 0]
        taken.add(position)
        body = {
            "task": TASKS[position].id, "hotkey": hotkey, "lease": f"{fencing:032x}", "fencing": fencing,
            "block": BLOCK, "listed": NUM_TASKS, "draw_index": index, "audit": False, "copies": 1,
            "coldkey": f"cold{fencing}",
        }  # fmt: skip
        changes.append(("leased", body))
    return changes


def tell(server, chain: list[LedgerEvent]) -> None:
    server.events = chain
    last = chain[-1] if chain else None
    server.nouns["events/head"] = EventHead(sequence=last.sequence if last else 0, hash=last.hash if last else GENESIS)
    server.lists["tasks"] = VIEWS


@pytest.fixture
def chain(server) -> list[LedgerEvent]:
    chain = linked(history())
    tell(server, chain)
    return chain


def test_the_chain_is_verified_and_its_head_shown(athena, chain):
    code, out, _ = athena("audit", "log")
    assert code == 0
    assert f"head     4 {chain[-1].hash}" in out
    assert "5 imported" in out and "3 active" in out
    code, out, _ = athena("audit", "log", "--json")
    assert json.loads(out) == {"sequence": 4, "hash": chain[-1].hash}


def test_an_empty_chain_is_a_chain(athena, server):
    tell(server, [])
    assert json.loads(athena("audit", "log", "--json")[1]) == {"sequence": 0, "hash": GENESIS}


def test_a_saved_chain_goes_on_where_it_ended(athena, server, chain, tmp_path):
    file = tmp_path / "deep" / "events.jsonl"
    tell(server, chain[:3])
    assert athena("audit", "log", "--save", str(file))[0] == 0
    assert file.read_bytes() == b"".join(event.canonical() + b"\n" for event in chain[:3])
    tell(server, chain)
    server.asked.clear()
    assert athena("audit", "log", "--save", str(file))[0] == 0
    assert file.read_bytes() == b"".join(event.canonical() + b"\n" for event in chain)
    assert [target for target in server.asked if "events?" in target] == ["/v1/events?after=2&limit=500"]
    assert athena("audit", "log", "--save", str(file))[0] == 0, "with nothing new"


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_file_that_a_kill_cut_off_goes_on(athena, chain, tmp_path, cut):
    file = tmp_path / "events.jsonl"
    athena("audit", "log", "--save", str(file))
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert athena("audit", "log", str(file))[0] == 0, "the last line is left out, or is whole"
    assert athena("audit", "log", "--save", str(file))[0] == 0
    assert file.read_bytes() == whole


def test_a_saved_file_needs_no_server(athena, server, chain, tmp_path):
    file = tmp_path / "events.jsonl"
    athena("audit", "log", "--save", str(file))
    server.asked.clear()
    code, out, _ = athena("audit", "log", str(file), "--json")
    assert (code, json.loads(out)["sequence"], server.asked) == (0, 4, [])
    assert athena("audit", "log", str(file), "--save", str(file))[0] == 2
    assert athena("audit", "log", str(tmp_path / "none"))[0] == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:1] + lines[2:], "event 2 is missing"),
        (lambda lines: [lines[0], lines[1].replace(b'"fencing":1', b'"fencing":9'), *lines[2:]], "event 2 does not"),
        (lambda lines: [*lines[:2], b"\x1b[2J\n", *lines[2:]], "line 3"),
        (lambda lines: [*lines[:2], b"x" * (2**20 + 1) + b"\n"], "line 3"),
    ],
)
def test_a_changed_file_is_refused(athena, chain, tmp_path, change, said):
    file = tmp_path / "events.jsonl"
    athena("audit", "log", "--save", str(file))
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    code, out, err = athena("audit", "log", str(file))
    assert (code, out) == (2, "")
    assert said in err and "\x1b" not in err


@pytest.mark.parametrize("from_event", [1, 2, 3, 4])
@pytest.mark.parametrize("grown", [0, 1])
def test_rewritten_history_is_found_out(athena, server, chain, tmp_path, from_event, grown):
    """With right hashes all along: only who kept the chain can tell."""
    file = tmp_path / "events.jsonl"
    assert athena("audit", "log", "--save", str(file))[0] == 0
    changes = history()
    kind, body = changes[from_event - 1]
    changes[from_event - 1] = (kind, body | {"note": "other"})
    changes += [("unbanned", {"coldkey": "x", "by": "key:1"})] * grown
    tell(server, linked(changes))
    assert athena("audit", "log")[0] == 0
    kept = file.read_bytes()
    code, out, err = athena("audit", "log", "--save", str(file))
    assert (code, out) == (2, "")
    assert f"rewrote its history from event {from_event} on" in err
    assert file.read_bytes() == kept


def test_a_history_that_was_cut_is_found_out(athena, server, chain, tmp_path):
    file = tmp_path / "events.jsonl"
    athena("audit", "log", "--save", str(file))
    tell(server, chain[:2])
    code, _, err = athena("audit", "log", "--save", str(file))
    assert code == 2 and "rewrote its history from event 3 on" in err
    server.events = chain  # says that the chain ends at 2, yet shows more
    code, _, err = athena("audit", "log", "--save", str(file))
    assert code == 2 and "ends at 2" in err


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (EventHead(sequence=9, hash="a" * 64), "event 5 is missing"),
        (EventHead(sequence=4, hash="a" * 64), "event 4 is not the one"),
        (EventHead(sequence=-1, hash="a" * 64), "ends at -1"),
    ],
)
def test_a_head_that_is_not_the_chains(athena, server, chain, head, said):
    server.nouns["events/head"] = head
    code, out, err = athena("audit", "log")
    assert (code, out) == (2, "") and said in err


def test_a_broken_chain_is_named(athena, server, chain):
    server.events = [*chain[:2], chain[2].model_copy(update={"at": 1}), chain[3]]
    code, _, err = athena("audit", "log")
    assert code == 2 and "event 3 does not follow" in err


def test_what_cannot_be_is_named(athena, server):
    changes = history()
    tell(server, linked([*changes, changes[-1]]))
    code, _, err = athena("audit", "log")
    assert code == 2 and "event 5: " in err


def test_honest_draws_are_due(athena, chain):
    code, out, _ = athena("audit", "draw", "--block", str(BLOCK), "--block-hash", BLOCK_HASH)
    assert code == 0
    assert "3 of 3 leases were due" in out
    assert out.count("yes") == 3


@pytest.mark.parametrize("by", [("--lease", f"{3:032x}"), ("--hotkey", HOTKEYS[2], "--block", str(BLOCK))])
def test_one_lease_is_explained_draw_by_draw(athena, chain, by):
    code, out, _ = athena("audit", "draw", *by, "--block-hash", BLOCK_HASH)
    assert code == 0
    index = chain[3].body["draw_index"]
    assert f"among {NUM_TASKS} tasks" in out and out.count("taken") == 1
    assert out.count("skipped") + out.count("drawn before") == index
    code, out, _ = athena("audit", "draw", *by, "--block-hash", BLOCK_HASH, "--json")
    (line,) = map(json.loads, out.splitlines())
    assert line["due"] is True
    assert [draw["index"] for draw in line["draws"]] == list(range(index + 1))


def test_a_lease_that_was_not_due_fails_the_command(athena, server):
    tell(server, linked(history(skip=1)))
    for options, num_due in (((), 2), (("--lease", f"{3:032x}"), 0), (("--json",), 2)):
        options = (*options, "--block", str(BLOCK), "--block-hash", BLOCK_HASH)
        code, out, err = athena("audit", "draw", *options)
        assert code == 1
        assert ("NOT DUE: this free task was skipped" in out) != ("--json" in options)
        assert err == f"{num_due} of {num_due + 1} leases were due to their hotkeys\n"
    assert [json.loads(line)["due"] for line in out.splitlines()] == [True, True, False]


@dataclass
class FakeChain:
    """Knows the hash of one block."""

    network: str
    netuid: int
    asked: ClassVar[list[int]] = []
    closed: ClassVar[int] = 0

    def head(self, number: int) -> Head:
        self.asked.append(number)
        if self.network == "ws://away":
            raise Unavailable("no node")
        assert (self.network, self.netuid) == ("ws://node", 7)
        return Head(number, BLOCK_HASH)

    def close(self) -> None:
        FakeChain.closed += 1


def test_block_hashes_come_from_the_chain(athena, chain, monkeypatch):
    monkeypatch.setattr("athena.chain.client.Chain", FakeChain)
    assert athena("audit", "draw", "--network", "ws://node", "--netuid", "7")[0] == 0
    assert FakeChain.asked == [BLOCK], "each block once"
    code, _, err = athena("audit", "draw", "--network", "ws://away")
    assert code == 75 and "no node" in err
    assert FakeChain.closed == 2


def test_another_block_hash_makes_other_draws(athena, chain):
    code, _, err = athena("audit", "draw", "--block", str(BLOCK), "--block-hash", "0x" + "cd" * 32)
    assert code == 1 and "of 3 leases were due" in err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--block-hash", BLOCK_HASH], 2),
        (["--block", str(BLOCK), "--block-hash", "0x12"], 2),
        (["--block", "-1"], 2),
        (["--lease", "f" * 32, "--block-hash", BLOCK_HASH], 1),
        (["--block", "7", "--block-hash", BLOCK_HASH], 1),
        (["--server", "nowhere"], 78),
        (["--save", "/dev/null/x"], 78),
    ],
)
def test_mistakes_are_named(athena, chain, options, code):
    ended, out, err = athena("audit", "draw", *options)
    assert (ended, out) == (code, "")
    assert err and "Traceback" not in err


def test_tasks_other_than_the_imported_ones_are_refused(athena, server, chain):
    server.lists["tasks"] = [VIEWS[0], *VIEWS[:-1]]
    code, _, err = athena("audit", "draw", "--block", str(BLOCK), "--block-hash", BLOCK_HASH)
    assert code == 2 and "position 1" in err


def test_help_teaches_by_example(athena, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("log", "draw"):
        code, text, _ = athena("audit", name, "--help")
        assert code == 0 and f"Example: athena audit {name} --" in text
