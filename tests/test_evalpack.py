import hashlib
import json
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athena import evalpack
from athena.errors import BadInput, Misconfigured, NotFound, TooLarge
from athena.evalpack import (
    ClozeItem,
    EvalDocument,
    PackInfo,
    PackShelf,
    check_revealed,
    current,
    load_pack,
    read_info,
    write_pack,
)
from athena.judge.assess import Bench
from athena.protocol import canonical_json

DOCUMENTS = [
    EvalDocument(id=f"{domain}-{number}", domain=domain, text=f"text {number} of {domain}")
    for domain in ("web", "code")
    for number in range(6)
]
CLOZE = [
    ClozeItem(id=f"c-{d.id}", domain=d.domain, context=d.text, choices=(" one", " two", " three"), answer=1)
    for d in DOCUMENTS
]


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_pack_comes_back_as_it_was_written(tmp_path):
    written = write_pack(tmp_path / "a", "p", DOCUMENTS, CLOZE, version=3, activation_block=5, expiry_block=9)
    read = load_pack(tmp_path / "a")
    assert (read.info, read.documents, read.cloze) == (written.info, written.documents, written.cloze)
    assert read.hash == written.hash
    write_pack(tmp_path / "b", "p", DOCUMENTS[::-1], CLOZE[::-1], version=3, activation_block=5, expiry_block=9)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_the_hash_is_of_everything(tmp_path):
    changed = CLOZE[0].model_copy(update={"answer": 2})
    packs = [
        write_pack(tmp_path / "0", "p", DOCUMENTS),
        write_pack(tmp_path / "1", "p", DOCUMENTS[1:]),
        write_pack(tmp_path / "2", "p", DOCUMENTS, CLOZE),
        write_pack(tmp_path / "3", "p", DOCUMENTS, [changed, *CLOZE[1:]]),
        write_pack(tmp_path / "4", "p", DOCUMENTS, version=2),
        write_pack(tmp_path / "5", "p", DOCUMENTS, expiry_block=7),
        write_pack(tmp_path / "6", "p", DOCUMENTS, sealed="a" * 64),
    ]
    assert len({pack.hash for pack in packs}) == len(packs)


def test_a_pack_without_cloze_items_has_no_file_of_them(tmp_path):
    write_pack(tmp_path, "p", DOCUMENTS)
    assert set(bytes_of(tmp_path)) == {"documents.jsonl", "pack.json"}
    pack = load_pack(tmp_path)
    assert pack.cloze == () and pack.draw_cloze(b"seed", 4) == []


def test_a_pack_json_may_leave_out_what_has_a_default(tmp_path):
    pack = write_pack(tmp_path, "p", DOCUMENTS)
    short = {name: pack.info.model_dump()[name] for name in ("format", "name", "domains", "documents", "sha256")}
    (tmp_path / "pack.json").write_text(json.dumps(short, indent=2))
    assert load_pack(tmp_path).hash == pack.hash


def test_a_draw_takes_as_many_of_every_domain(tmp_path):
    pack = write_pack(tmp_path, "p", DOCUMENTS, CLOZE)
    drawn = pack.draw_cloze(b"seed", 4)
    assert [item.domain for item in drawn] == ["code"] * 4 + ["web"] * 4
    assert len({item.id for item in drawn}) == 8
    assert drawn == pack.draw_cloze(b"seed", 4) != pack.draw_cloze(b"other", 4)
    assert len(pack.draw_cloze(b"seed", 99)) == len(CLOZE)
    assert [item.id.removeprefix("c-") for item in drawn] != [document.id for document in pack.draw(b"seed", 4)]


def test_quotable_texts_hold_the_right_choices(tmp_path):
    pack = write_pack(tmp_path, "p", DOCUMENTS[:1], CLOZE[:1])
    assert list(pack.texts()) == ["text 0 of web", "text 0 of web two"]


def forge(folder, lines, cloze_lines=(), **changes):
    """A pack whose pack.json matches its files, whatever they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    body, cloze = (b"".join(line + b"\n" for line in part) for part in (lines, cloze_lines))
    info = {
        "format": "athena-eval-pack/1", "name": "p", "domains": ["code", "web"], "documents": len(lines),
        "sha256": hashlib.sha256(body).hexdigest(), "cloze": len(cloze_lines),
        "cloze_sha256": hashlib.sha256(cloze).hexdigest() if cloze else None, **changes,
    }  # fmt: skip
    (folder / "documents.jsonl").write_bytes(body)
    (folder / "cloze.jsonl").write_bytes(cloze)
    (folder / "pack.json").write_text(json.dumps(info))


GOOD = [document.canonical() for document in DOCUMENTS]
GOOD_CLOZE = [item.canonical() for item in CLOZE]


def without(noun, **changes):
    return canonical_json({**noun.model_dump(mode="json"), **changes})


@pytest.mark.parametrize(
    ("lines", "cloze", "changes"),
    [
        ([*GOOD, GOOD[0]], [], {}),
        (GOOD, [*GOOD_CLOZE, GOOD_CLOZE[0]], {}),
        ([*GOOD[1:], b"not json"], [], {}),
        ([*GOOD[1:], b"[" * 100_000], [], {}),
        ([*GOOD[1:], b'{"id":"x","domain":"web","text":"\\ud800"}'], [], {}),
        ([*GOOD[1:], b'{"id":"x","domain":"web","text":"\xff"}'], [], {}),
        ([*GOOD[1:], without(DOCUMENTS[0], extra=1)], [], {}),
        ([*GOOD[1:], without(DOCUMENTS[0], domain="No Domain")], [], {}),
        ([*GOOD[1:], without(DOCUMENTS[0], text="")], [], {}),
        ([*GOOD[1:], without(DOCUMENTS[0], text="x" * (2**20 + 1))], [], {}),
        (GOOD[6:], [], {}),
        (GOOD, [*GOOD_CLOZE[1:], without(CLOZE[0], domain="other")], {}),
        (GOOD, [*GOOD_CLOZE[1:], without(CLOZE[0], answer=3)], {}),
        (GOOD, [*GOOD_CLOZE[1:], without(CLOZE[0], answer=-1)], {}),
        (GOOD, [*GOOD_CLOZE[1:], without(CLOZE[0], choices=[" a", " a"])], {}),
        (GOOD, [*GOOD_CLOZE[1:], without(CLOZE[0], choices=[f" {i}" for i in range(9)])], {}),
        (GOOD, GOOD_CLOZE, {"cloze_sha256": None}),
        (GOOD, GOOD_CLOZE, {"cloze_sha256": "0" * 64}),
        (GOOD, [], {"cloze": 1}),
        (GOOD, [], {"documents": 5}),
        (GOOD, [], {"documents": 0}),
        (GOOD, [], {"domains": ["web", "code"]}),
        (GOOD, [], {"format": "athena-eval-pack/2"}),
        (GOOD, [], {"version": 0}),
        (GOOD, [], {"activation_block": -1}),
        (GOOD, [], {"activation_block": 7, "expiry_block": 7}),
        (GOOD, [], {"half": "sealed", "sealed": "0" * 64}),
        (GOOD, [], {"extra": 1}),
        ([without(DOCUMENTS[0], domain="cloze-web")], [], {"domains": ["cloze-web"]}),
    ],
    ids=lambda value: None,
)
def test_what_is_no_pack_is_refused(tmp_path, lines, cloze, changes):
    forge(tmp_path, lines, cloze, **changes)
    with pytest.raises(BadInput):
        load_pack(tmp_path)


def test_other_bytes_than_promised_are_refused(tmp_path):
    write_pack(tmp_path, "p", DOCUMENTS, CLOZE)
    for name in ("documents.jsonl", "cloze.jsonl"):
        whole = (tmp_path / name).read_bytes()
        for damaged in (whole[:-1], whole + b"\n", whole.replace(b"text 1", b"text 2"), b""):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(BadInput, match=r"does not match pack\.json"):
                load_pack(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(NotFound, match=name):
            load_pack(tmp_path)
        (tmp_path / name).write_bytes(whole)
    load_pack(tmp_path)


@pytest.mark.parametrize(
    ("name", "cap"),
    [("pack.json", "MAX_INFO_BYTES"), ("documents.jsonl", "MAX_PACK_BYTES"), ("cloze.jsonl", "MAX_CLOZE_BYTES")],
)
def test_files_over_their_caps_are_not_read(tmp_path, monkeypatch, name, cap):
    write_pack(tmp_path, "p", DOCUMENTS, CLOZE)
    monkeypatch.setattr(evalpack, cap, (tmp_path / name).stat().st_size - 1)
    with pytest.raises(TooLarge, match=name):
        load_pack(tmp_path)


def test_where_there_is_no_pack(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(NotFound, match="no evaluation pack"):
            load_pack(folder)


def test_parts_that_make_no_pack_are_not_written(tmp_path):
    for documents, cloze in ((DOCUMENTS[:1] * 2, []), ([], []), (DOCUMENTS[:1], CLOZE)):
        with pytest.raises(BadInput):
            write_pack(tmp_path, "p", documents, cloze)
    assert list(tmp_path.iterdir()) == []


def info(**changes):
    return PackInfo(**{"name": "p", "domains": ("web",), "documents": 1, "sha256": "0" * 64, **changes})


BLOCKS = st.tuples(st.integers(0, 20), st.none() | st.integers(1, 20), st.integers(1, 3))


@given(packs=st.lists(BLOCKS, min_size=1, max_size=4, unique=True), block=st.integers(0, 25))
def test_all_who_hold_the_same_packs_use_the_same_one(packs, block):
    infos = [
        info(version=version, activation_block=start, expiry_block=None if length is None else start + length)
        for start, length, version in packs
    ]
    if not any(found.in_use(block) for found in infos):
        with pytest.raises(Misconfigured, match=f"block {block}"):
            current(infos, block)
        return
    chosen = current(infos, block)
    assert chosen.in_use(block)
    assert all(found.activation_block <= chosen.activation_block for found in infos if found.in_use(block))
    assert all(current(order, block) == chosen for order in permutations(infos))


def test_a_pack_is_in_use_from_its_first_block_on_until_it_expires():
    first, second = info(expiry_block=10), info(version=2, activation_block=10)
    assert [current([second, first], block).version for block in (0, 9, 10, 99)] == [1, 1, 2, 2]
    early, patch = info(version=2, activation_block=4), info(version=3, activation_block=4)
    assert [current([first, early, patch], block).version for block in (3, 4)] == [1, 3]
    with pytest.raises(Misconfigured, match="next pack"):
        current([info(half="sealed"), first], 10)


def test_a_shelf_takes_up_a_pack_that_is_laid_in_later(tmp_path):
    first = write_pack(tmp_path / "one", "p", DOCUMENTS, expiry_block=10)
    write_pack(tmp_path / "one-sealed", "p", DOCUMENTS[:6], half="sealed", expiry_block=10)
    shelf = PackShelf(tmp_path)
    assert shelf.at(9).hash == first.hash and shelf.at(9) is shelf.at(0)
    with pytest.raises(Misconfigured):
        shelf.at(10)
    second = write_pack(tmp_path / "two", "p", DOCUMENTS[6:], version=2, activation_block=10)
    assert shelf.at(10).hash == second.hash
    assert shelf.at(9) is shelf.at(0)
    (tmp_path / "two" / "documents.jsonl").write_bytes(b"")
    with pytest.raises(BadInput):
        PackShelf(tmp_path).at(10)


def test_a_shelf_may_be_one_pack(tmp_path):
    pack = write_pack(tmp_path / "one", "p", DOCUMENTS)
    assert PackShelf(tmp_path / "one").at(10**6).hash == pack.hash
    with pytest.raises(NotFound):
        PackShelf(tmp_path / "two").at(0)


def test_a_shelf_of_too_many_packs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(evalpack, "MAX_PACKS", 2)
    for number in range(3):
        write_pack(tmp_path / str(number), "p", DOCUMENTS)
    with pytest.raises(TooLarge):
        PackShelf(tmp_path).infos()


def test_a_case_is_judged_by_the_pack_of_its_seed_block(tmp_path):
    old = write_pack(tmp_path / "old", "p", DOCUMENTS, expiry_block=10)
    new = write_pack(tmp_path / "new", "p", DOCUMENTS[6:], version=2, activation_block=10)
    others = {"hub": None, "crawl": None, "rules": None, "validator": "", "workdir": tmp_path, "events": None}
    bench = Bench(pack=old, packs=PackShelf(tmp_path), workers=None, **others)
    assert [bench.pack_at(block).hash for block in (9, 10)] == [old.hash, new.hash]
    assert Bench(pack=old, workers=None, **others).pack_at(10) is old


def test_the_revealed_half_must_be_the_promised_one(tmp_path):
    sealed = write_pack(tmp_path / "sealed", "p", DOCUMENTS[:6], half="sealed", expiry_block=9)
    public = write_pack(tmp_path / "public", "p", DOCUMENTS[6:], expiry_block=9, sealed=sealed.hash)
    check_revealed(public, load_pack(tmp_path / "sealed"))
    other = write_pack(tmp_path / "other", "p", DOCUMENTS[1:6], half="sealed", expiry_block=9)
    with pytest.raises(BadInput, match="was promised"):
        check_revealed(public, other)
    with pytest.raises(BadInput, match="promises no"):
        check_revealed(other, sealed)
    assert read_info(tmp_path / "public").sealed == sealed.hash
