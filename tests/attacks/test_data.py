"""Scripted cheaters: each makes a dataset that looks right and must not earn, by the gate that is meant for it."""

import hashlib
import json
import random

import pytest

from athena import draw
from athena.evalpack import EvalPack
from athena.judge.assess import dataset_folder
from athena.judge.gates.provenance import GATE as PROVENANCE
from athena.protocol import Shard, Task

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:spacy", "ignore::DeprecationWarning:weasel")


def assert_fails(sheet, gate, reason=""):
    assert sheet.outcome == "fail", sheet.gates
    assert sheet.gates[-1].gate == gate and reason in sheet.gates[-1].reason, sheet.gates[-1]
    assert sheet.units == 0.0 and sheet.effect is None


def assert_passes(sheet):
    assert sheet.outcome == "pass", sheet.gates[-1]


def test_fabricated_row(world):
    """One row at a place where no record begins."""
    rows = list(world.rows)
    rows[3] = {**rows[3], "warc_offset": rows[3]["warc_offset"] + 7}
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "fabricated")


def test_row_behind_the_end_of_the_file(world):
    rows = world.altered(lambda i, row: {**row, "warc_offset": row["warc_offset"] + 10_000_000})
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "fabricated")


def test_row_of_another_page(world):
    """The texts of two records are swapped: each is real, but not of its page."""
    rows = list(world.rows)
    rows[0] = {**rows[0], "text": rows[2]["text"], "token_count": rows[2]["token_count"]}
    rows[2] = {**rows[2], "text": world.rows[0]["text"], "token_count": world.rows[0]["token_count"]}
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "not in its page")


def test_false_url(world):
    rows = world.altered(lambda i, row: {**row, "url": "https://en.wikipedia.org/wiki/Baker"})
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "another url")


def shuffled(row, separator):
    parts = row["text"].split(separator)
    random.Random(0).shuffle(parts)
    return {**row, "text": separator.join(parts)}


def test_shuffled_words(world):
    rows = world.altered(lambda i, row: shuffled(row, " "))
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "not in its page")


def test_shuffled_sentences(world):
    """Every shingle is in the page, but not in its order."""
    rows = world.altered(lambda i, row: shuffled(row, ". "))
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "not in its page")


def test_rewritten_text(world):
    """A language model's touch: every seventh word is another one."""

    def rewrite(i, row):
        words = row["text"].split(" ")
        words[::7] = ["certainly"] * len(words[::7])
        return {**row, "text": " ".join(words)}

    assert_fails(world.judge(world.publish(world.altered(rewrite))), PROVENANCE, "not in its page")


def test_text_of_placeholders(world):
    """Placeholders are wildcards, and would match any page."""
    rows = world.altered(lambda i, row: {**row, "text": "email@example.com is the story " * 40})
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "not in its page")


def test_evaluation_text_injected(world):
    """Documents of the published pack, put where a page was."""
    leaked = [document.text for document in world.bench.pack.documents]
    rows = world.altered(lambda i, row: {**row, "text": leaked[i % len(leaked)]})
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "not in its page")


def test_pages_that_quote_the_evaluation(world):
    """By selection alone: these pages really hold evaluation text, so that only contamination can tell."""
    rows = list(world.rows[:2])
    pack = world.bench.pack
    quoted = [d.model_copy(update={"text": rows[i % 2]["text"][:900]}) for i, d in enumerate(pack.documents[:2])]
    leaking = EvalPack(pack.info, (*quoted, *pack.documents[2:]))
    assert_fails(world.judge(world.publish(rows), pack=leaking), "contamination", "quote")


def test_claims_canonical_but_keeps_the_best_rows_only(world, canonical):
    rows = [row for row in world.rows if row["warc_offset"] % 2]
    assert_fails(world.judge(world.publish(rows, recipe=canonical)), "completeness", "missing")


def test_claims_canonical_and_that_missing_rows_were_near_duplicates(world, canonical):
    """The rows of the first file carry signatures that pair them with the missing rows of the second."""
    first, second = ([row for row in world.rows if row["warc_path"] == path] for path in world.paths)
    lies = [{**row, "minhash": other["minhash"]} for row, other in zip(first, second, strict=False)]
    case = world.publish([*lies, *second[len(second) // 2 :]], recipe=canonical)
    hashes = (case.model_copy(update={"block_hash": f"0x{number:064x}"}) for number in range(64))
    drawing_second = next(c for c in hashes if draw.sample(c.seed("warc"), 2, 1) == [1])
    assert_fails(world.judge(drawing_second), "completeness", "missing")


def test_claims_canonical_with_rows_of_its_own(world, canonical):
    def shorten(i, row):
        return {**row, "text": row["text"].split("\n", 1)[1]}

    rows = world.altered(shorten)
    assert_fails(world.judge(world.publish(rows, recipe=canonical)), "completeness", "does not make")


def test_repeated_rows(world):
    rows = [row for row in world.rows for _ in range(2)]
    assert_fails(world.judge(world.publish(rows)), "form", "rising order")


def test_padding_inside_of_rows(world):
    """Each page's text many times over in its own row: the page holds it once."""
    rows = world.altered(lambda i, row: {**row, "text": "\n".join([row["text"]] * 5)})
    assert_fails(world.judge(world.publish(rows)), PROVENANCE, "not in its page")


def test_rows_out_of_order(world):
    rows = sorted(world.rows, key=lambda row: (row["warc_path"], -row["warc_offset"]))
    assert_fails(world.judge(world.publish(rows)), "form", "rising order")


def test_warc_files_out_of_order(world):
    rows = sorted(world.rows, key=lambda row: (row["warc_path"] == world.paths[0], row["warc_offset"]))
    assert_fails(world.judge(world.publish(rows)), "form", "shard's order")


def test_rows_of_another_shard(world):
    small = Task(shard=Shard(crawl="LOCAL-attacks", warc_paths=world.paths[:1]), rule_version="demo-1", opened_block=1)
    assert_fails(world.judge(world.publish(list(world.rows), task=small)), "form", "outside of the shard")


@pytest.mark.parametrize("opened_block", [1, 2])
def test_earlier_set_copied(world, rival_of, opened_block):
    """The same pages, leased under one task or two: the later set is the earlier one, with a row less."""
    rows = world.altered(lambda i, row: {**row, "text": row["text"].rsplit("\n", 1)[0]})
    first = world.publish(rows)
    assert_passes(world.judge(first, workers=None))
    task = Task(shard=world.task.shard, rule_version="demo-1", opened_block=opened_block)
    copy = world.publish(rows[1:], hotkey="bob", task=task)
    copy = copy.model_copy(update={"commit_block": 250, "rivals": (rival_of(first, 200),)})
    assert_fails(world.judge(copy), "copies", "earlier set")


def test_honest_overlap_on_one_shard_is_no_copy(world, canonical, rival_of):
    first = world.publish(list(world.rows), recipe=canonical)
    assert_passes(world.judge(first, workers=None))
    second = world.publish(list(world.rows), hotkey="bob", recipe=canonical)
    second = second.model_copy(update={"commit_block": 250, "rivals": (rival_of(first, 200),)})
    sheet = world.judge(second, workers=None)
    assert_passes(sheet)
    [shares] = next(v for v in sheet.gates if v.gate == "copies").evidence["rivals"].values()
    assert shares == {"equal_rows": 1.0, "texts": 0.0, "decisions": 0.0}


def test_copied_commitment(world):
    """Bob commits to alice's dataset: the rows are hers by manifest and root."""
    case = world.publish(list(world.rows))
    stolen = case.commitment.model_copy(update={"hotkey": world.publish([world.rows[0]], hotkey="bob").hotkey})
    assert_fails(world.judge(case.model_copy(update={"commitment": stolen})), "form", "another hotkey")


def test_another_root_than_committed(world):
    case = world.publish(list(world.rows))
    ref = case.commitment.dataset.model_copy(update={"root": "ab" * 32})
    commitment = case.commitment.model_copy(update={"dataset": ref})
    assert_fails(world.judge(case.model_copy(update={"commitment": commitment})), "form", "another root")


def test_root_of_other_rows(world):
    assert_fails(world.judge(world.publish(list(world.rows), root="cd" * 32)), "form", "Merkle root")


def test_false_counts(world):
    assert_fails(world.judge(world.publish(list(world.rows), tokens=10**9)), "form", "token counts")


def test_revision_that_does_not_exist(world):
    case = world.publish(list(world.rows))
    ref = case.commitment.dataset.model_copy(update={"revision": "0" * 40})
    commitment = case.commitment.model_copy(update={"dataset": ref})
    assert_fails(world.judge(case.model_copy(update={"commitment": commitment})), "form")


def test_oversized_repository_is_not_downloaded(world):
    def bloat(folder):
        with (folder / "more-data.parquet").open("wb") as file:
            file.truncate(world.bench.rules.gates.max_dataset_bytes + 1)

    case = world.publish(list(world.rows), tamper=bloat, hotkey="bob")
    assert_fails(world.judge(case), "form", "over the limit")


def test_other_files_are_never_fetched(world):
    def plant(folder):
        (folder / "data.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
        (folder / "dataset.py").write_text("raise SystemExit")

    case = world.publish(list(world.rows), tamper=plant, hotkey="carol")
    assert_passes(world.judge(case, workers=None))
    fetched = dataset_folder(world.bench.workdir, case.commitment)
    assert {path.name for path in fetched.iterdir()} == {"data.parquet", "manifest.json"}


def test_parquet_bomb(world):
    """A few kilobytes that unpack to more zeros than the rules allow."""
    rows = [{**world.rows[0], "text": "0" * (1 << 20), "warc_offset": i} for i in range(10)]
    case = world.publish(rows)
    assert_fails(world.judge(case), "form", "unpack")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 4096 + b"PAR1", b"\x80\x04."])
def test_file_that_is_no_parquet(world, content):
    def replace(folder):
        (folder / "data.parquet").write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][0] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    case = world.publish([{**row, "language": f"en-{len(content)}"} for row in world.rows], tamper=replace)
    assert_fails(world.judge(case), "form")


def test_empty_set_earns_nothing(world):
    sheet = world.judge(world.publish([]))
    assert sheet.units == 0.0 and (sheet.effect is None or sheet.effect.mean < 0)
