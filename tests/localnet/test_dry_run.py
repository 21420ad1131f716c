"""`athena miner --dry-run`: the verdicts on a sample, and nothing said to anyone."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from athena.errors import BadInput, NotFound, Unavailable
from athena.judge.assess import GATES
from athena.localnet import dry_run as rehearsal
from athena.localnet.dry_run import WouldFail, dry_run
from athena.protocol import Shard, Task
from athena.settings import MinerSettings, parse_settings

FAKER = """
from dataclasses import dataclass, replace
from typing import ClassVar
from athena.refine.steps.extraction import VisibleText
from athena.refine.steps.filters import Language
from athena.refine.recipe import Recipe

@dataclass(frozen=True)
class Invent:
    name: ClassVar[str] = "invent"

    def apply(self, page):
        return replace(page, text="What no page of the world ever said: " + page.text[::-1])

RECIPE = Recipe("faker", "1", (VisibleText(), Invent(), Language(languages=())))
"""


@pytest.fixture
def warc(tmp_path, plain_warc):
    file = tmp_path / "crawl" / "a.warc.gz"
    file.parent.mkdir()
    file.write_bytes(plain_warc(range(6), 300))
    return file


def settings(*arguments):
    fixed = ("--network=ws://127.0.0.1:1", "--dry-run", "--leases=1", "--workers=1")
    return parse_settings(MinerSettings, "miner", [*fixed, *arguments])


def rehearse(*arguments):
    """What is printed."""
    console = Console(width=200)
    with console.capture() as shown:
        dry_run(settings(*arguments), console)
    return shown.get()


def test_a_sound_recipe_passes_every_gate(warc):
    shown = rehearse(f"--dry-run-warc={warc}", "--recipe=unfiltered-1")
    assert "6 documents" in shown and "of 6 records" in shown
    assert shown.count("pass") == 1 + len(GATES), shown


def test_a_recipe_that_invents_text_is_told_what_validators_would_say(warc, tmp_path):
    recipe = tmp_path / "faker.py"
    recipe.write_text(FAKER)
    with pytest.raises(WouldFail, match="provenance: text that is not in its page"):
        rehearse(f"--dry-run-warc={warc}", f"--recipe={recipe}")


class FakeLedger:
    """A task server's public lists; every other verb is missing."""

    open_tasks = ()

    def __init__(self, url, wallet):
        assert wallet is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def tasks(self, *, only_open):
        assert only_open
        return iter(self.open_tasks)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(rehearsal, "LedgerClient", FakeLedger)
    shard = Shard(crawl="LOCAL-files", warc_paths=("a.warc.gz",))
    view = SimpleNamespace(task=Task(shard=shard, rule_version="demo-1", opened_block=1))
    monkeypatch.setattr(FakeLedger, "open_tasks", (view,))
    return FakeLedger


def test_the_sample_is_the_beginning_of_a_file_that_a_task_is_open_for(warc, server, monkeypatch):
    monkeypatch.setattr(rehearsal, "SAMPLE_BYTES", warc.stat().st_size - 100)  # the last record is cut
    shown = rehearse(f"--crawl-url={warc.parent.as_uri()}", "--recipe=unfiltered-1")
    assert "a.warc.gz" in shown and "5 documents" in shown and shown.count("pass") == 1 + len(GATES), shown


def test_a_server_without_work_has_no_sample(server, monkeypatch):
    monkeypatch.setattr(server, "open_tasks", ())
    with pytest.raises(NotFound, match="--dry-run-warc"):
        rehearse()


def test_what_could_not_be_judged_is_no_pass(warc, monkeypatch):
    def away(*_):
        raise Unavailable("no memory")

    monkeypatch.setattr("athena.judge.gates.form.read_dataset", away)
    with pytest.raises(Unavailable, match="could not be judged: form"):
        rehearse(f"--dry-run-warc={warc}", "--recipe=unfiltered-1")


def test_a_file_that_is_no_warc_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match=r"notes\.txt"):
        rehearse(f"--dry-run-warc={tmp_path / 'notes.txt'}")
