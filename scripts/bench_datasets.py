"""Datasets of known order for `bench_judge.py`, and equally refined samples for `bench_null.py`.

All sets of a draw are made of one part of the corpus, as all miners of a task refine the same pages; the parts of up to
DISJOINT_DRAWS draws share no page. German pages are few: each draw takes the same ones in another order.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice, takewhile

from bench_corpus import Corpus, part_of
from bench_spam import spam

from athena import draw
from athena.judge.proxy.comparison import shuffled_words
from athena.refine.text.bpe import load_tokenizer

CANONICAL, CLASSIFIER, RAW, SHUFFLED_WORDS = "canonical", "canonical-classifier", "raw", "shuffled-words"
SPAM = {"spam-10": 0.1, "spam-30": 0.3, "spam-60": 0.6}
"""Share of the set's tokens that is spam, by name."""
TIERS = {
    CANONICAL: 1, CLASSIFIER: 1, "spam-10": 2, "spam-30": 3, RAW: 3, "spam-60": 4, "repeated-tenth": 4,
    "shuffled-sentences": 4, "other-language": 5, SHUFFLED_WORDS: 5, "gibberish": 5,
}  # fmt: skip
"""The known order: a set of a lower tier is better than one of a higher tier, and nothing is said within a tier."""
DISJOINT_DRAWS = 5
REPEATS = 10
CLASSIFIER_THRESHOLD = 0.5
MARKOV_ORDER = 3
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def datasets(corpus: Corpus, number: int, seed: bytes) -> dict[str, list[str]]:
    """The texts of each set of TIERS, for draw `number`; `seed` decides what is drawn."""
    part = number % DISJOINT_DRAWS
    canonical = [page.text for page in corpus.canonical if part_of(page.url, DISJOINT_DRAWS) == part]
    made = {
        CANONICAL: canonical,
        CLASSIFIER: [text for text in canonical if corpus.classifier.probability(text) >= CLASSIFIER_THRESHOLD],
        **{name: mixed(canonical, share, draw.seed_of(seed.hex(), name)) for name, share in SPAM.items()},
        RAW: [page.text for page in corpus.raw if part_of(page.url, DISJOINT_DRAWS) == part],
        "repeated-tenth": repeated_tenth(canonical, draw.seed_of(seed.hex(), "repeated")),
        "shuffled-sentences": shuffled_sentences(canonical, draw.seed_of(seed.hex(), "sentences")),
        "other-language": shuffled([page.text for page in corpus.german], draw.seed_of(seed.hex(), "german")),
        SHUFFLED_WORDS: shuffled_words(canonical, draw.seed_of(seed.hex(), "words")),
        "gibberish": gibberish(canonical, draw.seed_of(seed.hex(), "gibberish")),
    }
    return {name: made[name] for name in TIERS}


def samples(corpus: Corpus, count: int, seed: bytes) -> list[list[str]]:
    """The canonical text dealt to `count` disjoint samples with documents of the same lengths, drawn by `seed`."""
    ordered = sorted((page.text for page in corpus.canonical), key=lambda text: (len(text), text))
    dealt: list[list[str]] = [[] for _ in range(count)]
    for start in range(0, len(ordered) - count + 1, count):
        hand = shuffled(ordered[start : start + count], draw.seed_of(seed.hex(), "hand", str(start)))
        for sample, text in zip(dealt, hand, strict=True):
            sample.append(text)
    return dealt


def tokens_of(texts: Sequence[str]) -> list[int]:
    """Tokens of each text, as manifests count them."""
    return [len(encoded.ids) for encoded in load_tokenizer().encode_batch(list(texts))]


def shuffled(texts: Sequence[str], seed: bytes) -> list[str]:
    return [texts[index] for index in draw.sample(seed, len(texts), len(texts))]


def mixed(texts: Sequence[str], share: float, seed: bytes) -> list[str]:
    """About as many tokens as `texts` have, `share` of them spam and the rest drawn whole documents of theirs."""
    total = sum(tokens_of(texts))
    kept = first_tokens(shuffled(texts, seed), (1 - share) * total)
    pages = spam(seed.hex())
    added, size = list[str](), 0
    while size < share * total:
        added += islice(pages, 32)
        size += sum(tokens_of(added[-32:]))
    return shuffled([*kept, *first_tokens(added, share * total)], draw.seed_of(seed.hex(), "mix"))


def first_tokens(texts: Sequence[str], limit: float) -> list[str]:
    """The first texts that have at most `limit` tokens together."""
    ends = accumulate(tokens_of(texts))
    return [text for text, _ in zip(texts, takewhile(lambda end: end <= limit, ends), strict=False)]


def repeated_tenth(texts: Sequence[str], seed: bytes) -> list[str]:
    """Drawn documents with a tenth of the tokens, each REPEATS times."""
    kept = first_tokens(shuffled(texts, seed), sum(tokens_of(texts)) / REPEATS)
    return shuffled(kept * REPEATS, draw.seed_of(seed.hex(), "repeats"))


def shuffled_sentences(texts: Sequence[str], seed: bytes) -> list[str]:
    """Documents with as many sentences as before, each sentence from anywhere in the set: none says more of another."""
    split = [_SENTENCE_END.split(text) for text in texts]
    drawn = iter(shuffled([sentence for sentences in split for sentence in sentences], seed))
    return [" ".join(next(drawn) for _ in sentences) for sentences in split]


def gibberish(texts: Sequence[str], seed: bytes) -> list[str]:
    """Texts as long as these of a Markov chain over their characters: letters that follow each other, hardly a word."""
    follow: defaultdict[str, list[str]] = defaultdict(list)
    for text in texts:
        for index in range(len(text) - MARKOV_ORDER):
            follow[text[index : index + MARKOV_ORDER]].append(text[index + MARKOV_ORDER])
    chance = random.Random(seed)
    opening = texts[0][:MARKOV_ORDER]
    return [_markov(follow, opening, len(text), chance) for text in texts]


def _markov(follow: dict[str, list[str]], opening: str, length: int, chance: random.Random) -> str:
    letters = list(opening)
    while len(letters) < length:
        after = follow.get("".join(letters[-MARKOV_ORDER:]))
        letters += chance.choice(after) if after else opening
    return "".join(letters)[:length]


def spam_share(texts: Iterable[str], canonical: Iterable[str]) -> float:
    """Share of the tokens that lie in texts which are no canonical ones."""
    known, listed = set(canonical), list(texts)
    sizes = tokens_of(listed)
    return sum(size for text, size in zip(listed, sizes, strict=True) if text not in known) / sum(sizes)
