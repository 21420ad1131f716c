"""The query commands against a small server on loopback: what they ask, what they show, how they fail."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime

import pytest

from athena import cli_records
from athena.cli_output import json_line
from athena.protocol import Effect, Lease, ScoreSheet, Shard, SignedSheet, Task
from athena.wire import DatasetView, MinerView, Standing, TaskView

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
VALIDATOR = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DATASET = {"location": "hf:org/data", "revision": "a" * 40, "root": "b" * 64}
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\n[bold]x[/bold]"


def task_of(i: int) -> Task:
    return Task(shard=Shard(crawl="LOCAL-t", warc_paths=(f"{i}.warc.gz",)), rule_version="1", opened_block=i)


def view_of(i: int, **fields) -> TaskView:
    task = task_of(i)
    terms = {"copies": 1, "open_slots": 1, "audited": None, "closed": False} | fields
    return TaskView(id=task.id, task=task, position=i, **terms)


LEASE = Lease(
    id="a" * 32, task=task_of(0), hotkey=HOTKEY, state="active", fencing=7, draw_index=3, issued_at=NOW,
    heartbeat_at=NOW, expires_at=NOW, deadline_at=NOW, issued_block=4_201_337, deadline_block=4_201_999,
)  # fmt: skip
SHEET = SignedSheet(
    sheet=ScoreSheet(
        task_id=task_of(0).id, hotkey=HOTKEY, dataset=DATASET, validator=VALIDATOR, rule_version="1",
        eval_pack="b" * 64, issued_block=1, commit_block=2, seed_block=3, outcome="pass", gates=(), units=3.5,
        effect=Effect(mean=0.0123, low=-0.001, high=0.02, by_domain={}),
    ),
    signature="c" * 128,
)  # fmt: skip
MINER = MinerView(
    hotkey=HOTKEY, coldkey=VALIDATOR, leases={"active": 1, "submitted": 2}, submissions=2, passed=1, failed=1,
    records=10, rows=5, tokens=1234, quota=16, streak=1, ban=None,
)  # fmt: skip
STANDING = Standing(rank=1, hotkey=HOTKEY, units=12.5, effect=0.01, submissions=2, tokens=1234)
SET = DatasetView(
    dataset=DATASET, task_id=task_of(0).id, hotkey=HOTKEY, submitted_at=NOW, verdict="pass", rows=5, tokens=1234
)


def problem(status: int, code: str, detail: str = "what happened") -> tuple[int, dict[str, str], bytes]:
    body = {"title": "t", "status": status, "detail": detail, "code": code, "remedy": "what to do"}
    return status, {"content-type": "application/problem+json"}, json.dumps(body).encode()


@pytest.fixture(autouse=True)
def _filled(server) -> None:
    server.lists = {
        "tasks": [view_of(i) for i in range(5)],
        "leases": [LEASE],
        "sheets": [SHEET],
        "miners": [MINER],
        "leaderboard": [STANDING],
        "datasets": [SET],
    }
    server.nouns = {
        f"tasks/{task_of(0).id}": view_of(0),
        f"leases/{LEASE.id}": LEASE,
        f"miners/{HOTKEY}": MINER,
    }


@pytest.mark.parametrize(
    ("command", "shown", "nouns"),
    [
        ("tasks", (task_of(4).id, "LOCAL-t", "position"), [view_of(i) for i in range(5)]),
        ("leases", (LEASE.id, HOTKEY, "active", "4201337", "2026-11-21 12:00:00"), [LEASE]),
        ("scores", (HOTKEY, VALIDATOR, "pass", "3.5", "+0.0123 [-0.0010, +0.0200]"), [SHEET]),
        ("miners", (HOTKEY, "16", "1234"), [MINER]),
        ("miners --top", (HOTKEY, "12.5", "0.01"), [STANDING]),
        ("datasets", ("hf:org/data", "a" * 40, "pass", "1234"), [SET]),
    ],
)
def test_each_command_shows_a_table_or_lines_of_json(athena, command, shown, nouns):
    code, table, _ = athena(*command.split())
    assert code == 0
    assert all(text in table for text in shown), table
    assert len(table.splitlines()) == 1 + len(nouns), "one line each, unbroken where no terminal is"
    code, lines, _ = athena(*command.split(), "--json")
    assert code == 0
    assert [type(noun).model_validate_json(line) for noun, line in zip(nouns, lines.splitlines(), strict=True)] == nouns
    assert [line.encode() for line in lines.splitlines()] == [noun.canonical() for noun in nouns]


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("tasks --crawl LOCAL-t --open", "/v1/tasks?crawl=LOCAL-t&open=true&limit=500"),
        (f"tasks --task {task_of(0).id}", f"/v1/tasks/{task_of(0).id}"),
        (
            f"leases --hotkey {HOTKEY} --task {'0' * 32} --state expired",
            f"/v1/leases?hotkey={HOTKEY}&task_id={'0' * 32}&state=expired&limit=500",
        ),
        (f"leases --lease {LEASE.id}", f"/v1/leases/{LEASE.id}"),
        (
            f"scores --hotkey {HOTKEY} --task {'0' * 32} --validator {VALIDATOR}",
            f"/v1/sheets?task_id={'0' * 32}&hotkey={HOTKEY}&validator={VALIDATOR}&limit=50",
        ),
        (f"miners --hotkey {HOTKEY}", f"/v1/miners/{HOTKEY}"),
        (f"datasets --hotkey {HOTKEY}", f"/v1/datasets?hotkey={HOTKEY}&limit=500"),
    ],
)
def test_options_become_filters(athena, server, command, target):
    assert athena(*command.split())[0] == 0
    assert server.asked[0] == target


def test_the_limit_is_kept_and_said(athena, server):
    for options in ((), ("--json",)):
        code, out, err = athena("tasks", "--limit", "3", *options)
        assert code == 0
        assert task_of(2).id in out and task_of(3).id not in out
        assert "the first 3 tasks" in err
        assert "the first" not in athena("tasks", "--limit", "5", *options)[2]
    server.asked.clear()
    athena("tasks", "--limit", "1")
    assert len(server.asked) == 1, "no page is read that is not shown"


def test_nothing_is_said_to_be_nothing(athena, server):
    server.lists["tasks"] = []
    assert athena("tasks") == (0, "", "no tasks\n")
    assert athena("tasks", "--json") == (0, "", "no tasks\n")


def test_another_server_is_named_by_the_option(athena, server, monkeypatch):
    monkeypatch.setenv("ATHENA_TASK_SERVER", "http://127.0.0.1:1")
    assert athena("leases", "--server", server.url)[0] == 0


def test_what_a_server_sends_cannot_act_on_the_terminal(athena, server):
    hotkey = "5" + EVIL
    server.lists["miners"] = [MINER.model_copy(update={"ban": EVIL, "hotkey": hotkey})]
    _, table, _ = athena("miners")
    _, line, _ = athena("miners", "--json")
    for text in (table, line):
        assert "owned" in text and "[bold]x[/bold]" in text
        assert all(character.isprintable() or character == "\n" for character in text), repr(text)
    assert len(table.splitlines()) == 2 and len(line.splitlines()) == 1
    assert json.loads(line)["ban"] == EVIL, "JSON says the same, escaped"


def test_canonical_json_stays_canonical():
    noun = MINER.model_copy(update={"ban": 'späße 中文 "quoted" \\ \t \U0001f600'})
    assert json_line(noun).encode() == noun.canonical()


@pytest.mark.parametrize("command", ["tasks", "scores"])
@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (problem(404, "not-found", f"gone {EVIL}"), 1),
        (problem(422, "bad-input"), 2),
        (problem(429, "rate-limited"), 1),
        (problem(500, "internal"), 75),
        (problem(503, "unavailable"), 75),
        ((200, {}, b"<html>"), 2),
        ((200, {}, b'{"items": [{}], "next": null}'), 2),
        ((200, {}, b'{"items": [], "next": "more"}'), 2),
        ((200, {}, b'{"items": ' + b"[" * 5000), 2),
        ((200, {"content-encoding": "gzip"}, b"\x1b[2J"), 75),
        ((502, {}, b"<html>\x1b[2J"), 75),
        ((302, {"location": "http://127.0.0.1:1/"}, b""), 2),
    ],
)
def test_a_failing_server_ends_a_command_in_order(athena, server, command, reply, code):
    server.reply = reply
    for options in ((), ("--json",)):
        ended, out, err = athena(*command.split(), *options)
        assert (ended, out) == (code, "")
        assert err.startswith("athena: ") and "Traceback" not in err
        assert all(character.isprintable() or character == "\n" for character in err), repr(err)


def test_numbers_that_no_ledger_holds(athena, server):
    line = MINER.model_dump_json().replace("1234", "9" * 4000)
    server.reply = (200, {}, f'{{"items": [{line}], "next": null}}'.encode())
    assert athena("miners")[0] in (0, 2)
    code, _, err = athena("miners", "--json")
    assert code == 2 and "canonical" in err


def test_a_server_that_is_away(athena, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("ATHENA_TASK_SERVER", f"http://127.0.0.1:{port}")
    code, _, err = athena("tasks")
    assert code == 75 and "no answer from 127.0.0.1" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("leases --state lost", 2),
        ("tasks --limit 0", 2),
        (f"tasks --task {'0' * 32} --open", 2),
        (f"leases --lease {'0' * 32} --hotkey {HOTKEY}", 2),
        (f"miners --top --hotkey {HOTKEY}", 2),
        ("tasks --task ../stats", 2),
        ("leases --lease x", 2),
        ("miners --hotkey x", 2),
        ("tasks --server nowhere", 78),
        (f"tasks --task {'0' * 32}", 1),
    ],
)
def test_mistakes_are_named(athena, arguments, code):
    ended, out, err = athena(*arguments.split())
    assert (ended, out) == (code, "")
    assert err


def test_help_teaches_by_example(athena, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command in cli_records.COMMANDS:
        code, text, _ = athena(command.__name__, "--help")
        assert code == 0
        assert f"Example: athena {command.__name__} --" in text
        assert "--json" in text and "--server" in text and "--limit" in text
