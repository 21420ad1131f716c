import html
import re

import pytest

from athena.evalpack import EvalDocument, load_pack
from athena.judge.words import overlap_ngrams
from athena.localnet.ground import build_pack, eval_documents, without_overlap
from athena.localnet.pages import make_pages
from athena.localnet.prose import Section, installed_prose
from athena.localnet.sources import CRAWLED, HELD_OUT


@pytest.fixture(scope="module")
def documents():
    return eval_documents(0)


def test_no_package_is_on_both_sides():
    held_out = [package for packages in HELD_OUT.values() for package in packages]
    assert not {*CRAWLED} & {*held_out} and len({*held_out}) == len(held_out)


def test_the_pool_has_at_least_eight_domains_with_enough_documents(documents):
    sizes = {domain: [len(d.text) for d in documents if d.domain == domain] for domain in HELD_OUT}
    assert len(sizes) >= 8
    assert all(len(texts) >= 30 and sum(texts) > 50_000 for texts in sizes.values())


def test_no_thirteen_words_in_a_row_are_in_both(documents):
    pool = {gram for document in documents for gram in overlap_ngrams(document.text)}
    assert pool
    for page in make_pages(3, 520, installed_prose(CRAWLED)):
        if page.kind not in ("oversized", "non-html"):
            text = html.unescape(re.sub(r"<[^>]+>", "", page.body.decode("utf-8", "replace")))
            assert pool.isdisjoint(overlap_ngrams(text)), page.url


def test_drops_a_document_that_shares_thirteen_words():
    words = [f"word{number}" for number in range(40)]
    texts = {"shares": words[10:30], "almost": [*words[10:22], "other"], "fresh": ["new"] * 40}
    documents = [EvalDocument(id=name, domain="d", text=" ".join(text)) for name, text in texts.items()]
    crawled = [Section("p", "t", (" ".join(words[:25]).upper() + ".", " ".join(words[25:])))]
    assert [document.id for document in without_overlap(documents, crawled)] == ["almost", "fresh"]


def test_a_pack_is_the_same_every_time_and_loads(documents, tmp_path):
    pack = build_pack(tmp_path / "one")
    assert build_pack(tmp_path / "two").hash == pack.hash == load_pack(tmp_path / "one").hash
    assert len(pack.documents) == len(documents)
    assert all(len(pack.cloze_by_domain[domain]) >= 60 for domain in HELD_OUT)
    assert build_pack(tmp_path / "three", seed=1).hash != pack.hash
