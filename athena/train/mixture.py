"""Which documents of the accepted datasets are candidates for training, and how many tokens each miner may fill. Pure.

Left out is what a domain asked to be left out, and what quotes an evaluation text. The choice among the rest, each text
once, is `athena.train.mixing`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import xxhash
from pydantic import Field, model_validator

from athena.evaluations.canaries import CanaryPlan
from athena.judge.words import OVERLAP_WORDS, Hashes, ngram_hashes, words
from athena.optout import LeftOut
from athena.protocol import DatasetRef, Hex32, Hotkey, Noun, RuleVersion
from athena.refine.text.minhash import buckets

Source = Literal["hotkey", "crawl"]
OTHER = "other"
"""What languages and crawls are counted under whose names have no usual form: miners may write anything there."""
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z][a-z]{3})?")
_FOLDER = re.compile(r"[A-Za-z0-9._=-]{1,64}")
_CRAWL = re.compile(r"(?:^|/)(?:(CC-MAIN-\d{4}-\d{2})|(CC-NEWS)/(\d{4})/(\d{2}))(?:/|$)")


class AcceptedDataset(Noun):
    """A dataset that consensus pays for. `incentive` is its miner's share of the epoch's emission, 0 to 1.

    `forecast` is the median effect, bits per byte, that the score sheets that passed it gave it under `rule_version`:
    null where none measured one, or where there is no sheet.
    """

    hotkey: Hotkey
    task_id: Hex32
    dataset: DatasetRef
    incentive: Annotated[float, Field(ge=0)]
    forecast: Annotated[float, Field(allow_inf_nan=False)] | None = None
    rule_version: RuleVersion | None = None


class MixtureRules(Noun):
    """`seed` draws which documents fill a share; tokens are those of the datasets' own token counts."""

    seed: int = 0
    max_tokens: Annotated[int, Field(ge=1)]
    max_miner_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    weighed_by: Source = "hotkey"
    """What `weights` are of."""
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """The proportions of the sources; by default miners are weighed by their incentive. A source that is not named is
    left out."""
    canaries: CanaryPlan | None = None
    """Sentences that are planted among the documents, as nobody's, to see later how well a model remembers them."""

    @model_validator(mode="after")
    def _something_weighs(self) -> Self:
        if self.weights is not None and not any(self.weights.values()):
            raise ValueError("no source has a positive weight")
        return self


@dataclass(frozen=True, slots=True)
class Candidate:
    """One document, reduced to what decides its fate."""

    dataset: int
    row: int
    hotkey: str
    warc_path: str
    offset: int
    tokens: int
    language: str
    text_hash: bytes
    bands: tuple[int, ...]


class HeldOut:
    """The 13-grams of the evaluation texts, eight bytes each."""

    def __init__(self, texts: Iterable[str]) -> None:
        grams = [ngram_hashes(words(text), OVERLAP_WORDS) for text in texts]
        self._hashes: Hashes = np.unique(np.concatenate([*grams, np.empty(0, dtype=np.uint64)]))

    def quoted_by(self, text: str) -> bool:
        """Whether a text shares a run of 13 words with one of them."""
        grams = ngram_hashes(words(text), OVERLAP_WORDS)
        if not len(self._hashes) or not len(grams):
            return False
        places = np.searchsorted(self._hashes, grams).clip(max=len(self._hashes) - 1)
        return bool((self._hashes[places] == grams).any())


def canonical_order(datasets: Iterable[AcceptedDataset]) -> list[AcceptedDataset]:
    """Best paid miner first, then by hotkey, task and root: the order that dataset indices refer to."""
    unique = {(d.hotkey, d.task_id, d.dataset.root): d for d in datasets}
    return sorted(unique.values(), key=lambda d: (-d.incentive, d.hotkey, d.task_id, d.dataset.root))


def candidates(
    dataset: int,
    hotkey: str,
    rows: Iterable[Mapping[str, Any]],
    held_out: HeldOut,
    left_out: LeftOut,
    dropped: Counter[str],
) -> Iterator[Candidate]:
    """The rows of one dataset that nobody asked to leave out, and that quote nothing of `held_out`.

    The others are counted in `dropped`.
    """
    for number, row in enumerate(rows):
        text: str = row["text"]
        if left_out.covers(row["url"]):
            dropped["opted out"] += 1
        elif held_out.quoted_by(text):
            dropped["contaminated"] += 1
        else:
            yield Candidate(
                dataset=dataset,
                row=number,
                hotkey=hotkey,
                warc_path=row["warc_path"],
                offset=row["warc_offset"],
                tokens=row["token_count"],
                language=row["language"] if _LANGUAGE.fullmatch(row["language"]) else OTHER,
                text_hash=hash_of(text),
                bands=_bands(row.get("minhash")),
            )


def hash_of(text: str) -> bytes:
    """What tells texts apart: 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _bands(minhash: Sequence[int] | None) -> tuple[int, ...]:
    if minhash is None:
        return ()
    return tuple(xxhash.xxh3_64_intdigest(band.tobytes(), seed=i) for i, band in enumerate(buckets(minhash)))


def crawl_of(warc_path: str) -> str:
    """The id of the crawl that a WARC path lies in; of other files the first segment of their path."""
    match = _CRAWL.search(warc_path)
    if match is None:
        folder = warc_path.partition("/")[0]
        return folder if _FOLDER.fullmatch(folder) else OTHER
    return match[1] or "-".join(match.group(2, 3, 4))


def allocate(
    available: Mapping[str, int], weights: Mapping[str, float], budget: int, max_share: float
) -> dict[str, int]:
    """Tokens that each miner may fill: in proportion to `weights`, no more than it has, and all of them together the
    most that keeps each one within `max_share` of the sum and the sum within `budget`.

    Needs max_share >= 1 / number of miners and positive weights.
    """
    total = min(float(budget), _largest_total(sorted(available.values(), reverse=True), max_share))
    bound = {m: min(float(tokens), max_share * total) for m, tokens in available.items()}
    given = dict.fromkeys(available, 0.0)
    open_miners = set(available)
    while open_miners:
        rest = total - sum(given[m] for m in available if m not in open_miners)
        scale = rest / sum(weights[m] for m in sorted(open_miners))
        full = {m for m in open_miners if weights[m] * scale >= bound[m]}
        for m in full or open_miners:
            given[m] = bound[m] if full else weights[m] * scale
        open_miners -= full or open_miners
    return {m: int(tokens + 1e-6) for m, tokens in given.items()}


def _largest_total(descending: list[int], max_share: float) -> float:
    """The largest S with S = Σ min(available, max_share · S): the k best supplied miners are held at the share."""
    rest = float(sum(descending))
    for capped, largest in enumerate(descending):
        if (room := 1 - capped * max_share) > 0 and largest <= max_share * (total := rest / room) * (1 + 1e-12):
            return total
        rest -= largest
    return 0.0
