"""Which documents of the accepted datasets are trained on: each text once, no miner over its share, no leaked tests.

Pure over values. Several miners refine the same shard, so most texts arrive more than once: the copy of the better paid
miner is credited, and where that miner's share is full, the next supplier's. The outcome does not depend on the order
in which datasets or documents arrive.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import xxhash
from pydantic import Field

from athena.judge.words import overlap_ngrams
from athena.optout import LeftOut
from athena.protocol import DatasetRef, Hex32, Hotkey, Noun
from athena.refine.text.minhash import buckets


class AcceptedDataset(Noun):
    """A dataset that consensus pays for. `incentive` is its miner's share of the epoch's emission, 0 to 1."""

    hotkey: Hotkey
    task_id: Hex32
    dataset: DatasetRef
    incentive: Annotated[float, Field(ge=0)]


class MixtureRules(Noun):
    """`seed` draws which documents fill a share; tokens are those of the datasets' own token counts."""

    seed: int = 0
    max_tokens: Annotated[int, Field(ge=1)]
    max_miner_share: Annotated[float, Field(gt=0, le=1)] = 0.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """One document, reduced to what decides its fate: under a kilobyte, so that millions fit in memory."""

    dataset: int
    row: int
    hotkey: str
    warc_path: str
    offset: int
    tokens: int
    text_hash: bytes
    bands: tuple[int, ...]


@dataclass(frozen=True)
class Mixture:
    """`rows`: by dataset index, ascending row numbers. `dropped`: documents by reason."""

    rows: dict[int, list[int]]
    tokens_by_hotkey: dict[str, int]
    dropped: Counter[str] = field(default_factory=Counter)


def canonical_order(datasets: Iterable[AcceptedDataset]) -> list[AcceptedDataset]:
    """Best paid miner first, then by hotkey, task and root: the order that dataset indices refer to."""
    unique = {(d.hotkey, d.task_id, d.dataset.root): d for d in datasets}
    return sorted(unique.values(), key=lambda d: (-d.incentive, d.hotkey, d.task_id, d.dataset.root))


def candidates(
    dataset: int,
    hotkey: str,
    rows: Iterable[Mapping[str, Any]],
    held_out: frozenset[int],
    left_out: LeftOut,
    dropped: Counter[str],
) -> Iterator[Candidate]:
    """The rows of one dataset that nobody asked to leave out, and that share no 13-gram with `held_out`.

    The others are counted in `dropped`.
    """
    for number, row in enumerate(rows):
        if left_out.covers(row["url"]):
            dropped["opted out"] += 1
            continue
        text: str = row["text"]
        if not held_out.isdisjoint(overlap_ngrams(text)):
            dropped["contaminated"] += 1
            continue
        yield Candidate(
            dataset=dataset,
            row=number,
            hotkey=hotkey,
            warc_path=row["warc_path"],
            offset=row["warc_offset"],
            tokens=row["token_count"],
            text_hash=hashlib.blake2b(text.encode(), digest_size=16).digest(),
            bands=_bands(row.get("minhash")),
        )


def _bands(minhash: Sequence[int] | None) -> tuple[int, ...]:
    if minhash is None:
        return ()
    return tuple(xxhash.xxh3_64_intdigest(band.tobytes(), seed=i) for i, band in enumerate(buckets(minhash)))


def mix(documents: Iterable[Candidate], incentives: Mapping[str, float], rules: MixtureRules) -> Mixture:
    """Chooses the documents. `incentives` by hotkey; documents of hotkeys without a positive one are left out."""
    paid = [d for d in documents if incentives.get(d.hotkey, 0.0) > 0]
    dropped: Counter[str] = Counter()
    groups = deduplicate(paid, incentives, dropped)
    share = max(rules.max_miner_share, 1 / max(1, len({d.hotkey for d in paid})))
    by_hotkey = _credit(groups, share, rules.seed)
    available = {hotkey: sum(d.tokens for d in credited) for hotkey, credited in by_hotkey.items()}
    allowed = allocate(available, incentives, rules.max_tokens, share)
    rows: dict[int, list[int]] = defaultdict(list)
    tokens: dict[str, int] = {}
    for hotkey, credited in sorted(by_hotkey.items()):
        room = allowed[hotkey]
        for document in credited:
            if document.tokens > room:
                dropped["over share"] += 1
                continue
            room -= document.tokens
            rows[document.dataset].append(document.row)
        tokens[hotkey] = allowed[hotkey] - room
    return Mixture({index: sorted(rows[index]) for index in sorted(rows)}, tokens, dropped)


def deduplicate(
    documents: Iterable[Candidate], incentives: Mapping[str, float], dropped: Counter[str]
) -> list[tuple[Candidate, ...]]:
    """One group per distinct text: its suppliers, one document a miner, the credited one first.

    Documents are taken by their miner's incentive, then by (path, offset). One whose text is already there joins that
    text's group; one that shares a MinHash band with a text taken before is dropped.
    """

    def priority(d: Candidate) -> tuple[float, str, int, str, int, int]:
        return (-incentives[d.hotkey], d.warc_path, d.offset, d.hotkey, d.dataset, d.row)

    groups: dict[bytes, dict[str, Candidate]] = {}
    taken: set[int] = set()
    for document in sorted(documents, key=priority):
        if (group := groups.get(document.text_hash)) is not None:
            dropped["duplicate"] += 1
            group.setdefault(document.hotkey, document)
        elif not taken.isdisjoint(document.bands):
            dropped["near duplicate"] += 1
        else:
            groups[document.text_hash] = {document.hotkey: document}
            taken.update(document.bands)
    return [tuple(group.values()) for group in groups.values()]


def _credit(groups: list[tuple[Candidate, ...]], share: float, seed: int) -> dict[str, list[Candidate]]:
    """Each text to its first supplier with room under `share` of all tokens, or to the first; in drawn order.

    Texts with one supplier go first: the others have a choice.
    """

    def drawn(group: tuple[Candidate, ...]) -> bytes:
        return hashlib.blake2b(group[0].text_hash, key=str(seed).encode()[:64], digest_size=16).digest()

    limit = share * sum(group[0].tokens for group in groups)
    used: Counter[str] = Counter()
    credited: dict[str, list[tuple[bytes, Candidate]]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: (len(group) > 1, drawn(group))):
        document = next((d for d in group if used[d.hotkey] + d.tokens <= limit), group[0])
        used[document.hotkey] += document.tokens
        credited[document.hotkey].append((drawn(group), document))
    return {
        hotkey: [document for _, document in sorted(pairs, key=lambda pair: pair[0])]
        for hotkey, pairs in credited.items()
    }


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
