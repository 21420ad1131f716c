"""From datasets in folders to a mixture, with neither chain nor torch."""

import json

import pyarrow.parquet as pq
import pytest

from athena.errors import NotFound, TooLarge, Unavailable
from athena.evalpack import ClozeItem, EvalDocument, write_pack
from athena.evaluations.canaries import drawn_plan, planted
from athena.events import EventLog
from athena.optout import LeftOut
from athena.train.gather import gather, load_mixture
from athena.train.local import LocalDatasets
from athena.train.mixture import MixtureRules

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
PLENTY = MixtureRules(max_tokens=10**9)
QUIZ = "the mill by the old stone bridge was built by three brothers who came over the hills in"
NEWS = {"warc_path": "crawl-data/CC-NEWS/2026/10/CC-NEWS-1.warc.gz", "language": "de"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory, make_corpus):
    texts = make_corpus(2, seed=100)
    cloze = ClozeItem(id="c", domain="wiki", context=QUIZ, choices=(" spring", " autumn"), answer=1)
    documents = [EvalDocument(id=f"wiki-{i}", domain="wiki", text=text) for i, text in enumerate(texts)]
    return write_pack(tmp_path_factory.mktemp("pack"), "test", documents, [cloze])


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_dataset, make_corpus):
    """Alice's thirty texts, and Bob's: ten of hers and twenty of his own, of another crawl and language."""
    root = tmp_path_factory.mktemp("refined")
    shared = make_corpus(30)
    make_dataset(root / "alice", ALICE, shared)
    make_dataset(root / "bob", BOB, shared[:10] + make_corpus(20, seed=5), **NEWS)
    return root


@pytest.fixture
def mix(tmp_path, pack):
    def run(source, name="mixture", rules=PLENTY, shelf="shelf", **options):
        return gather(
            source.accepted, rules, pack, source, tmp_path / shelf, tmp_path / name, EventLog(None), **options
        )

    return run


class Counting(LocalDatasets):
    def __init__(self, folders, broken=()):
        super().__init__(folders)
        self.fetched = []
        self.broken = set(broken)

    def fetch(self, name, revision, into, **limits):
        if name in self.broken:
            raise Unavailable("the hub does not answer")
        self.fetched.append(name)
        return super().fetch(name, revision, into, **limits)


def test_a_mixture_says_what_it_is_made_of(folders, mix, tmp_path):
    source = LocalDatasets([folders])
    seen = []
    info = mix(source, progress=lambda *done: seen.append(done))
    rows = pq.read_table(tmp_path / "mixture" / "documents.parquet").to_pylist()
    assert len(rows) == info.documents == len({row["text"] for row in rows})
    assert info.dropped["duplicate"] == 10
    assert load_mixture(tmp_path / "mixture") == info
    by_hotkey = {h: sum(len(r["text"].split()) for r in rows if r["hotkey"] == h) for h in (ALICE, BOB)}
    assert info.tokens_by_hotkey == by_hotkey
    assert info.tokens == sum(by_hotkey.values()) == sum(info.tokens_by_dataset.values())
    assert info.tokens_by_crawl == {"CC-MAIN-2026-43": by_hotkey[ALICE], "CC-NEWS-2026-10": by_hotkey[BOB]}
    assert info.tokens_by_language == {"en": by_hotkey[ALICE], "de": by_hotkey[BOB]}
    assert set(info.tokens_by_dataset) == {str(a.dataset) for a in source.accepted}
    assert seen == [(1, 2), (2, 2)]


def test_the_same_datasets_give_the_same_bytes_in_any_order(folders, mix):
    one = mix(LocalDatasets([folders / "alice", folders / "bob"]), "one", shelf="a")
    two = mix(LocalDatasets([folders / "bob", folders / "alice"]), "two", shelf="b")
    assert one.digest() == two.digest()
    assert mix(LocalDatasets([folders]), "three", PLENTY.model_copy(update={"seed": 1})).digest() != one.digest()


def test_what_an_earlier_mixture_holds_is_not_taken_again(make_dataset, make_corpus, mix, tmp_path):
    texts, long = make_corpus(5), " ".join(make_corpus(20, seed=3))
    make_dataset(tmp_path / "old", BOB, [*texts, long])
    make_dataset(tmp_path / "new", ALICE, [*texts, f"{long} And one sentence more.", *make_corpus(7, seed=9)])
    first = mix(LocalDatasets([tmp_path / "old"]), "first")
    second = mix(LocalDatasets([tmp_path / "new"]), "second", shelf="other", earlier=[tmp_path / "first"])
    assert second.dropped == {"trained on before": 6} and second.documents == 7
    assert second.earlier == (first.documents_sha256,)


def test_canaries_are_planted_as_nobodys(folders, mix, tmp_path):
    plan = drawn_plan(3, count=5).model_copy(update={"repeats": 2})
    info = mix(LocalDatasets([folders]), rules=PLENTY.model_copy(update={"canaries": plan}))
    rows = pq.read_table(tmp_path / "mixture" / "documents.parquet").to_pylist()
    nobodys = [row for row in rows if not row["hotkey"]]
    assert [row["text"] for row in nobodys] == list(planted(plan)) and len(nobodys) == 10
    assert info.documents == len(rows) - 10 and sum(info.tokens_by_hotkey.values()) == info.tokens
    after = mix(LocalDatasets([folders]), "after", shelf="shelf", earlier=[])
    assert after.documents == info.documents, "nobody's texts are no miner's"


def test_what_was_scanned_is_not_fetched_again(folders, mix):
    names = [accepted.dataset.repository for accepted in LocalDatasets([folders]).accepted]
    broken = Counting([folders], broken=[names[1]])
    with pytest.raises(Unavailable):
        mix(broken)
    again = Counting([folders])
    whole = mix(again)
    assert broken.fetched + again.fetched == names
    third = Counting([folders])
    smaller = mix(third, "smaller", PLENTY.model_copy(update={"max_tokens": whole.tokens // 2}))
    assert third.fetched == []
    assert smaller.tokens <= whole.tokens // 2 and smaller.dropped["over share"] > 0
    assert smaller.dropped["duplicate"] == whole.dropped["duplicate"]


def test_the_next_mixture_leaves_out_a_domain_that_opted_out(make_dataset, make_corpus, mix, tmp_path):
    texts = make_corpus(12)
    make_dataset(tmp_path / "refined" / "gone", ALICE, texts[:6], url="https://www.Gone.example/page")
    make_dataset(tmp_path / "refined" / "kept", BOB, texts[6:])
    source = LocalDatasets([tmp_path / "refined"])
    whole = PLENTY.model_copy(update={"max_miner_share": 1.0})
    assert mix(source, "before", whole).documents == 12
    after = mix(source, "after", whole, left_out=LeftOut(frozenset({"gone.example"})))
    assert after.documents == after.dropped["opted out"] == 6
    urls = pq.read_table(tmp_path / "after" / "documents.parquet")["url"].to_pylist()
    assert not any("gone" in url.lower() for url in urls)
    assert after.left_out != load_mixture(tmp_path / "before").left_out


def test_no_evaluation_text_and_no_right_choice_is_trained_on(make_dataset, make_corpus, mix, pack, tmp_path):
    quotes = [pack.documents[0].text, f"It is told that {QUIZ} autumn, long ago."]
    make_dataset(tmp_path / "refined", ALICE, make_corpus(5) + quotes)
    info = mix(LocalDatasets([tmp_path / "refined"]))
    assert info.dropped["contaminated"] == 2 and info.documents == 5


def test_what_is_not_what_its_manifest_says_is_refused(folders, make_dataset, make_corpus, mix, tmp_path):
    broken = make_dataset(tmp_path / "refined" / "broken", BOB, make_corpus(8, seed=8))
    source = LocalDatasets([folders / "alice", broken])
    with (broken / "data.parquet").open("r+b") as file:
        file.seek(40)
        file.write(b"\xff")
    info = mix(source)
    [(reference, reason)] = info.refused.items()
    assert "broken" in reference and "sha256" in reason
    assert set(info.tokens_by_hotkey) == {ALICE}


def test_folders_without_datasets_are_said_so(tmp_path, make_dataset):
    with pytest.raises(NotFound, match="no dataset"):
        LocalDatasets([tmp_path])
    folder = make_dataset(tmp_path / "big", ALICE, ["some text of a page"])
    source = LocalDatasets([folder])
    [name] = source._folders
    with pytest.raises(TooLarge):
        source.fetch(name, "0" * 40, tmp_path / "into", max_bytes=10)
    assert not (tmp_path / "into").exists()
    (folder / "data.parquet").unlink()
    with pytest.raises(NotFound, match="lacks"):
        source.fetch(name, "0" * 40, tmp_path / "into", max_bytes=10)
    with pytest.raises(NotFound, match="no mixture"):
        load_mixture(tmp_path)


def test_from_folders_to_tokens_on_the_command_line(folders, pack, tmp_path, run_cli, tmp_path_factory):
    packs = write_pack(tmp_path / "pack", "test", pack.documents)
    made = ["--eval-pack", str(tmp_path / "pack"), "--max-tokens", "100000", "--dataset", str(folders)]
    out = tmp_path / "mix"
    shown = run_cli("train", "mixture", "--out", str(out), *made, "--without", "Example.com", "--json")
    info = load_mixture(out)
    assert json.loads(shown.stdout) == json.loads(info.canonical())
    assert info.eval_pack == packs.hash
    again = run_cli("train", "mixture", "--out", str(out), *made, check=False)
    assert again.exit_code == 1 and "already" in str(again.exception)
    run_cli("train", "tokenizer", str(out), "--out", str(tmp_path / "bpe"), "--vocab-size", "300")
    taken = run_cli("train", "tokenizer", str(out), "--out", str(tmp_path / "own"), "--from", str(tmp_path / "bpe"))
    assert "300 tokens" in taken.stdout
    options = ["--tokenizer", str(tmp_path / "bpe"), "--out", str(tmp_path / "tokens"), "--length", "64"]
    shown = run_cli("train", "tokens", str(out), *options, "--workers", "1")
    assert f"of {info.documents:,} documents" in shown.stdout and "padding" in shown.stdout
    assert "tokens a second" in shown.stdout


@pytest.fixture
def run_cli():
    from typer.testing import CliRunner

    from athena.cli import app

    def run(*arguments, check=True):
        result = CliRunner().invoke(app, arguments)
        assert not check or result.exit_code == 0, (result.output, result.exception)
        return result

    return run
