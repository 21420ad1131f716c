"""What a miner finds in its own dataset is what a validator would."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from athena.crawl import open_crawl
from athena.durable import sha256_of, write_file
from athena.errors import NotFound
from athena.events import EventLog
from athena.judge.inspection import inspect_own
from athena.protocol import FileEntry, Lease, Manifest, Shard, Task, merkle_root
from athena.refine.manifest import DATA_FILE, MANIFEST_FILE, Limits, leaves, load_dataset, parquet_writer
from athena.refine.recipe import load_recipe
from athena.refine.run import refine_task

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.fixture(scope="module")
def made(tmp_path_factory, plain_warc):
    """A crawl, a lease of its one file, and what a recipe without filters makes of it."""
    root = tmp_path_factory.mktemp("crawl")
    (root / "a.warc.gz").write_bytes(plain_warc(range(8), 60))
    shard = Shard(crawl="LOCAL-files", warc_paths=("a.warc.gz",))
    task, now = Task(shard=shard, rule_version="demo-1", opened_block=1), datetime.now(UTC)
    lease = Lease(
        id="1" * 32, task=task, hotkey=HOTKEY, state="active", fencing=1, issued_at=now, heartbeat_at=now,
        expires_at=now + timedelta(seconds=60), deadline_at=now + timedelta(hours=1), issued_block=1,
        deadline_block=1000,
    )  # fmt: skip
    crawl = open_crawl(root.as_uri())
    folder = tmp_path_factory.mktemp("work") / "dataset"
    refine_task(task, HOTKEY, load_recipe("unfiltered-1"), crawl, folder, events=EventLog(None))
    return crawl, lease, folder


@pytest.fixture
def rewritten(made, tmp_path):
    """The dataset again, well-formed, with other texts."""
    _, _, folder = made

    def write(change):
        dataset = load_dataset(folder, limits=Limits())
        texts = pa.array([change(i, t) for i, t in enumerate(dataset.table["text"].to_pylist())], pa.string())
        table = dataset.table.set_column(0, dataset.table.schema.field("text"), texts)
        out = tmp_path / "dataset"
        out.mkdir()
        with parquet_writer(out / DATA_FILE) as writer:
            writer.write_table(table, row_group_size=table.num_rows)
        entry = FileEntry(
            path=DATA_FILE, bytes=(out / DATA_FILE).stat().st_size, sha256=sha256_of(out / DATA_FILE),
            rows=table.num_rows,
        )  # fmt: skip
        root = merkle_root(leaves(table, HOTKEY))
        manifest = Manifest.model_validate({**dict(dataset.manifest), "files": (entry,), "root": root})
        write_file(out / MANIFEST_FILE, manifest.canonical())
        return out

    return write


def backwards(text):
    return " ".join(reversed(text.split()))


def test_sound_work_passes_and_leaves_nothing_behind(made):
    crawl, lease, folder = made
    verdict = inspect_own(folder, lease, crawl)
    assert (verdict.outcome, verdict.gate) == ("pass", "provenance"), verdict
    assert [path.name for path in folder.parent.iterdir()] == ["dataset"]


@pytest.mark.parametrize(
    ("gate", "change"),
    [
        ("provenance", lambda i, text: f"What page {i} never said, though it reads well: " + backwards(text)),
        ("duplicates", lambda i, text: "The same story about the harbour is told again and again by everybody here."),
        ("language", lambda i, text: f"tale{i} " * 500),
        ("privacy", lambda i, text: f"{text} Write to jane.roe@site{i}.org for the plan of the garden."),
    ],
)
def test_what_a_gate_would_refuse_is_found(made, rewritten, gate, change):
    crawl, lease, _ = made
    verdict = inspect_own(rewritten(change), lease, crawl)
    assert (verdict.gate, verdict.outcome) == (gate, "fail"), verdict


def test_a_damaged_file_fails_the_form_also_after_a_good_look(made, rewritten):
    crawl, lease, _ = made
    folder = rewritten(lambda i, text: text)
    assert inspect_own(folder, lease, crawl).outcome == "pass"
    data = folder / DATA_FILE
    data.write_bytes(data.read_bytes()[:-1] + b"X")
    verdict = inspect_own(folder, lease, crawl)
    assert (verdict.gate, verdict.outcome) == ("form", "fail")


def test_a_crawl_that_does_not_answer_says_nothing_of_the_dataset(made):
    _, lease, folder = made

    class Away:
        def read_range(self, *_):
            raise NotFound("gone")

    assert inspect_own(folder, lease, Away()).outcome == "none"


def test_rules_that_this_version_does_not_know_are_no_fault_of_the_dataset(made):
    crawl, lease, folder = made
    newer = lease.model_copy(update={"task": lease.task.model_copy(update={"rule_version": "99"})})
    assert inspect_own(folder, newer, crawl).outcome == "none"
