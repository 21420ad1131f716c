"""What the gates compute, without a dataset around it."""

import pytest

from athena.errors import Misconfigured, Unavailable
from athena.evalpack import EvalDocument, EvalPack, PackInfo
from athena.judge.gates.contamination import held_out, quotes
from athena.judge.gates.duplicates import unique, unique_share
from athena.judge.verdicts import guarded, passed
from athena.judge.words import ngrams, words


def text(start: int, count: int = 60) -> str:
    return " ".join(f"word{i}" for i in range(start, start + count))


def test_unique_marks_copies_of_all_that_came_before():
    first, second = text(0), text(100)
    half = f"{text(0, 30)} {text(500, 30)}"
    assert unique([first, second, first, half, f"{first} {second}"]) == [True, True, False, True, False]


def test_unique_share_is_by_length():
    assert unique_share([text(0), text(0)]) == 0.5
    assert unique_share([]) == 1.0


def test_short_texts_count_once():
    assert unique(["hello", "hello", "", "good bye"]) == [True, False, False, True]


def pack(*texts: str) -> EvalPack:
    documents = tuple(EvalDocument(id=str(i), domain="web", text=t) for i, t in enumerate(texts))
    return EvalPack(PackInfo(name="p", domains=("web",), documents=len(documents), sha256="0" * 64), documents)


def test_a_quotation_of_twenty_words_is_found_whatever_its_case():
    leaked = held_out(pack(text(0), text(200)))
    inside = f"{text(900)} {text(5, 20).upper()}, {text(700)}"
    assert quotes(inside, leaked, 8)
    assert not quotes(inside.replace("WORD15", "other"), leaked, 8)


def test_what_several_evaluation_documents_share_is_no_leak():
    licence = text(0, 40)
    leaked = held_out(pack(f"{licence} {text(100)}", f"{licence} {text(200)}"))
    assert not quotes(licence, leaked, 1)
    assert quotes(text(100), leaked, 8)


def test_ngrams_of_fewer_words_are_none():
    assert list(ngrams(words("one two"), 5)) == []
    assert len(list(ngrams(words("a b c d e f"), 5))) == 2


@pytest.mark.parametrize(
    "error", [Unavailable("503"), Misconfigured("no model"), OSError(28, "disk full"), MemoryError()]
)
def test_own_faults_are_no_verdict(error):
    def check():
        raise error

    assert guarded("form", check).outcome == "none"
    assert guarded("form", lambda: passed("form", rows=1)).outcome == "pass"


def test_bugs_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        guarded("form", lambda: passed("form", rows=1 // 0))
