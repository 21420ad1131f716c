"""`athena runs` over a table with runs in every state, as a person at a shell meets it."""

import json
import os
import re
import time
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from athena.cli import app
from athena.errors import BadInput, Conflict, NotFound
from athena.train.runs_record import RunSpec
from athena.train.runs_table import RUNS_FILE, RunTable

STEPS = 60


def write_metrics(folder, steps, *, slope=0.5, tokens=1000):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "at": 1e9 + step, "pid": 1, "event": "step", "step": step, "loss": 9.0 - slope * step**0.5, "lr": 0.01,
            "gradient_norm": 1.0, "tokens": step * tokens, "seconds": 0.5,
        }
        for step in range(1, steps + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut off by a ki')


@pytest.fixture
def state(tmp_path):
    """Runs "fast" (done), "slow" (failed), "waiting" (queued)."""
    with RunTable(tmp_path / RUNS_FILE) as table:
        for name, lr in (("fast", 0.02), ("slow", 0.01), ("waiting", 0.01)):
            config = {"preset": "tiny", "lr": lr, "steps": STEPS, "optimizer": {"name": "muon"}}
            table.add(RunSpec(name=name, folder=str(tmp_path / name), config=config), now=1.0)
        for name, steps, slope in (("fast", STEPS, 0.6), ("slow", STEPS // 2, 0.4)):
            os.close(table.claim(("cpu:0",), now=2.0).lock)
            write_metrics(tmp_path / name, steps, slope=slope)
            if name == "fast":
                table.finish(name, now=3.0, step=steps)
            else:
                table.fail(name, "diverged: \x1b[31mloss nan", now=3.0, step=steps)
    return tmp_path


def ask(state, *words):
    environment = {"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["runs", *words, "--state", str(state)], env=environment)


def test_list_shows_every_run_and_nothing_acts_on_the_terminal(state):
    shown = ask(state, "list")
    assert shown.exit_code == 0, shown.output
    rows = {line.split()[0]: line for line in shown.output.splitlines()[1:]}
    assert "done" in rows["fast"] and "60/60" in rows["fast"] and "2000" in rows["fast"]
    assert "failed" in rows["slow"] and "diverged" in rows["slow"] and "\x1b" not in shown.output
    assert "queued" in rows["waiting"] and "needs 1" in rows["waiting"]


def test_show_as_json_is_one_object(state):
    (line,) = ask(state, "show", "slow", "--json").output.splitlines()
    found = json.loads(line)
    assert (found["state"], found["step"], found["steps"]) == ("failed", 30, 60)
    assert found["tokens_per_second"] == pytest.approx(2000)
    table = ask(state, "show", "slow").output
    assert "config.lr" in table and "0.01" in table


def test_compare_is_at_equal_tokens_and_names_what_differs(state):
    found = json.loads(ask(state, "compare", "fast", "slow", "--json").output)
    assert found["tokens"] == 30_000
    fast, slow = found["runs"]
    assert fast["loss"] < slow["loss"] and fast["last_loss"] < fast["loss"]
    assert found["differing"] == {"lr": ["0.02", "0.01"]}
    shown = ask(state, "compare", "fast", "slow").output
    assert "loss at 30,000 tokens" in shown and "differs in" in shown
    assert isinstance(ask(state, "compare", "fast", "fast").exception, BadInput)
    assert isinstance(ask(state, "compare", "fast", "gone").exception, NotFound)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_curves_are_one_page_that_loads_and_runs_nothing(state, tmp_path):
    ask(state, "compare", "fast", "slow", "--html", str(tmp_path / "a.html"))
    ask(state, "compare", "fast", "slow", "--html", str(tmp_path / "b.html"))
    content = (tmp_path / "a.html").read_text("utf-8")
    assert content == (tmp_path / "b.html").read_text("utf-8")
    page = Page(content)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "img", "iframe", "a"} & set(names)
    assert not re.search(r"https?://|url\(", content)
    lines = [attributes for tag, attributes in page.tags if tag == "polyline"]
    assert len(lines) == 6  # two runs, three quantities
    pairs = [tuple(map(float, pair.split(","))) for pair in lines[0]["points"].split()]
    assert all(0 <= x <= 640 and 0 <= y <= 220 for x, y in pairs) and pairs[0][1] < pairs[-1][1]
    assert "\x1b" not in content and "diverged" in content


def test_a_page_of_runs_without_a_step_says_so(state, tmp_path):
    ask(state, "show", "waiting", "--html", str(tmp_path / "a.html"))
    assert "None of them has made a step yet" in (tmp_path / "a.html").read_text("utf-8")


def test_cancel_and_resume_change_the_state(state):
    assert "waiting is cancelled" in ask(state, "cancel", "waiting").output
    assert isinstance(ask(state, "cancel", "fast").exception, Conflict)
    assert "slow is queued" in ask(state, "resume", "slow").output
    assert isinstance(ask(state, "resume", "fast").exception, Conflict)
    assert isinstance(ask(state, "branch", "fast").exception, BadInput)


def test_add_queues_a_folder_with_its_plan(tmp_path):
    (tmp_path / "muon").mkdir()
    (tmp_path / "muon" / "plan.json").write_text('{"steps": 7}')
    where = str(tmp_path / "muon")
    assert "muon is queued" in ask(tmp_path, "add", where, "--devices", "2").output
    assert "in the table already" in ask(tmp_path, "add", where, "--devices", "2").output
    found = json.loads(ask(tmp_path, "show", "muon", "--json").output)
    assert (found["state"], found["steps"], found["devices_wanted"]) == ("queued", 7, 2)
    assert isinstance(ask(tmp_path, "add", where, "--name", "Not A Name").exception, BadInput)


def test_work_runs_what_is_queued_and_ends(tmp_path, monkeypatch):
    code = "import pathlib, sys; print('no such plan'); sys.exit(3)"
    monkeypatch.setattr("athena.train.scheduler.command_of", lambda run: ["python3", "-c", code])
    with RunTable(tmp_path / RUNS_FILE) as table:
        table.add(RunSpec(name="a", folder=str(tmp_path / "a")), now=time.time())
    shown = ask(tmp_path, "work", "--devices", "cpu:1", "--until-done")
    assert "a is running on cpu:0" in shown.output and "a is failed, step 0: no such plan" in shown.output
    assert "a is failed" in ask(tmp_path, "watch").output


def test_where_no_trainer_ran_there_are_no_runs(tmp_path):
    assert isinstance(ask(tmp_path, "list").exception, NotFound)
