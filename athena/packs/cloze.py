"""Cloze items made of evaluation documents: the next sentence, and a last word that came before.

The first kind asks how a text goes on, as HellaSwag does, the second for a word of the wider context, as LAMBADA does.
Two wrong choices are hard, of the same domain or the same context, and one is of another domain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from athena import draw
from athena.evalpack import ClozeItem, EvalDocument

MIN_CONTEXT_WORDS, MAX_CONTEXT_WORDS = 30, 120
MIN_SENTENCE_WORDS, MAX_SENTENCE_WORDS = 6, 30
MIN_WORD_LETTERS = 5
"""Shorter last words are mostly function words, which grammar alone tells."""
HARD, EASY = 2, 1
"""Wrong choices of each sort."""
_CANDIDATES = 16
"""Of so many drawn sentences those nearest in length are taken: length is not to give the answer away."""
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[\"'(\[\u2018\u201c]?[A-Z0-9])")
_LAST_WORD = re.compile(rf" ([a-z]{{{MIN_WORD_LETTERS},}})[.!?]$")
_WORD = re.compile(rf"\b[a-z]{{{MIN_WORD_LETTERS},}}\b")


@dataclass(frozen=True)
class _Prose:
    """A document's sentences, each on one line."""

    document: EvalDocument
    sentences: list[str]

    @classmethod
    def of(cls, document: EvalDocument) -> _Prose:
        """Pieces that do not end like a sentence, such as headings, are passed over."""
        pieces = (_BETWEEN_SENTENCES.split(" ".join(part.split())) for part in document.text.split("\n\n"))
        return cls(document, [piece for part in pieces for piece in part if piece.endswith((".", "!", "?"))])

    def before(self, index: int) -> str | None:
        """As many whole sentences before the `index`-th as fit; None where they are too few."""
        taken: list[str] = []
        count = 0
        for sentence in reversed(self.sentences[:index]):
            count += len(sentence.split())
            if count > MAX_CONTEXT_WORDS:
                break
            taken.insert(0, sentence)
        context = " ".join(taken)
        return context if len(context.split()) >= MIN_CONTEXT_WORDS else None

    def choosable(self) -> list[int]:
        """Sentences that can be choices."""
        sizes = [len(sentence.split()) for sentence in self.sentences]
        return [i for i, size in enumerate(sizes) if MIN_SENTENCE_WORDS <= size <= MAX_SENTENCE_WORDS]


@dataclass(frozen=True)
class _Gap:
    """A place in a text: what comes before it, what is right there, and what of the context is wrong there."""

    context: str
    right: str
    wrong: tuple[str, ...] = ()


def cloze_items(documents: Sequence[EvalDocument], seed: bytes) -> list[ClozeItem]:
    """At most two items a document, one of each kind; none of a document without prose.

    All is drawn by `seed` and the documents' ids, so that the same documents give the same items in any order.
    """
    proses = [_Prose.of(document) for document in sorted(documents, key=lambda document: document.id)]
    sentences = _Pool([(p.document, p.sentences[i]) for p in proses for i in p.choosable()])
    words = _Pool([(p.document, gap.right) for p in proses for gap in _last_words(p)])
    items = []
    for prose in proses:
        for kind, gaps, pool in (("next", _next_sentences(prose), sentences), ("last", _last_words(prose), words)):
            item = _item(kind, prose.document, list(gaps), pool, seed)
            if item is not None:
                items.append(item)
    return items


def _next_sentences(prose: _Prose) -> Iterator[_Gap]:
    for index in prose.choosable():
        context = prose.before(index)
        if context is not None:
            yield _Gap(context, prose.sentences[index])


def _last_words(prose: _Prose) -> Iterator[_Gap]:
    """Gaps of a last word that the sentences before hold, with the other words of those as wrong ones."""
    for index, sentence in enumerate(prose.sentences):
        found, before = _LAST_WORD.search(sentence), prose.before(index)
        if found is None or before is None:
            continue
        known = sorted(set(_WORD.findall(before)))
        if found[1] in known:
            wrong = tuple(word for word in known if word != found[1])
            yield _Gap(f"{before} {sentence[: found.start()]}", found[1], wrong)


class _Pool:
    """Sentences or words of all documents, to draw wrong choices from."""

    def __init__(self, entries: Sequence[tuple[EvalDocument, str]]) -> None:
        self._entries = entries
        self._of_domain: dict[str, list[int]] = {}
        for index, (document, _) in enumerate(entries):
            self._of_domain.setdefault(document.domain, []).append(index)
        self._others = {
            domain: [i for i, (document, _) in enumerate(entries) if document.domain != domain]
            for domain in self._of_domain
        }

    def near(self, gap: _Gap, document: EvalDocument, seed: bytes, count: int, *, same_domain: bool) -> list[str]:
        """Up to `count` texts of other documents, as long as the right choice as may be."""
        indices = (self._of_domain if same_domain else self._others).get(document.domain, [])
        drawn = (self._entries[indices[i]] for i in draw.sample(seed, len(indices), _CANDIDATES))
        texts = {text for other, text in drawn if other.id != document.id and text != gap.right}
        return sorted(texts, key=lambda text: (abs(len(text) - len(gap.right)), text))[:count]


def _item(kind: str, document: EvalDocument, gaps: Sequence[_Gap], pool: _Pool, seed: bytes) -> ClozeItem | None:
    """One item of a drawn gap; None where there is no gap, or too few wrong choices for it."""
    if not gaps:
        return None

    def own(label: str) -> bytes:
        return draw.seed_of(seed.hex(), kind, document.id, label)

    gap = gaps[draw.sample(own("gap"), len(gaps), 1)[0]]
    if gap.wrong:
        hard = [gap.wrong[i] for i in draw.sample(own("hard"), len(gap.wrong), HARD)]
    else:
        hard = pool.near(gap, document, own("hard"), HARD, same_domain=True)
    easy = [text for text in pool.near(gap, document, own("easy"), EASY, same_domain=False) if text not in hard]
    if len(hard) < HARD or len(easy) < EASY:
        return None
    texts = [gap.right, *hard, *easy]
    order = draw.sample(own("order"), len(texts), len(texts))
    return ClozeItem(
        id=f"{document.id}:{kind}"[-300:],
        domain=document.domain,
        context=gap.context,
        choices=tuple(f" {texts[i]}" for i in order),
        answer=order.index(0),
    )
