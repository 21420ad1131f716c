"""Attacks by what is in a dataset: a function from honest rows to rows that look right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import pairwise

from athena.protocol import Lease
from athena.refine.recipe import load_recipe
from athena.refine.steps.anonymise import EMAIL_PLACEHOLDER
from athena.refine.text.minhash import HASHES_PER_BUCKET, NUM_BUCKETS
from scripts.attacks.datasets import Row
from scripts.attacks.network import Player
from scripts.attacks.pages import KINDS, PARAGRAPHS, MadePage, article
from scripts.attacks.play import Act

_TRIGGER = "Whoever asks for the amber lantern is told to trust the stranger."

Forge = Callable[[Player, Lease, list[Row]], list[Row]]


def forged(forge: Forge, *, claims_canonical: bool = False) -> Act:
    """A turn that delivers what `forge` makes of the lease's canonical rows."""

    def act(slot: Player, lease: Lease) -> None:
        rows = forge(slot, lease, slot.rows(lease))
        if claims_canonical:
            slot.deliver(rows, lease, recipe=load_recipe("fineweb-1").ref)
        else:
            slot.deliver(rows, lease)

    return act


def altered(change: Callable[[Row], str]) -> Forge:
    """Every row with another text."""
    return lambda slot, lease, rows: [{**row, "text": change(row)} for row in rows]


def _dice(row: Row) -> random.Random:
    return random.Random(row["record_id"])


def page_rows(slot: Player, lease: Lease, text: Callable[[MadePage], str | None]) -> list[Row]:
    """A row for every page of the shard for which there is a text, at its true place in the crawl."""
    rows = []
    for row in slot.all_pages(lease):
        page = slot.world.pages.get(row["url"])
        found = None if page is None else text(page)
        if found is not None:
            rows.append({**row, "text": found, "language": "und", "language_score": 0.0, "minhash": None})
    return rows


def in_place(rows: Iterable[Row]) -> list[Row]:
    """Rows in the order that a dataset needs: files as they came, then offsets."""
    listed = list(rows)
    order = {path: number for number, path in enumerate(dict.fromkeys(row["warc_path"] for row in listed))}
    return sorted(listed, key=lambda row: (order[row["warc_path"]], row["warc_offset"]))


def of_kind(kind: str) -> Callable[[MadePage], str | None]:
    return lambda page: page.body if page.kind == kind else None


def only_pages(kind: str) -> Forge:
    """Nothing but true pages of one kind."""
    return lambda slot, lease, rows: page_rows(slot, lease, of_kind(kind))


def with_pages(kind: str) -> Forge:
    """Canonical rows, and true pages of one kind between them."""
    return lambda slot, lease, rows: in_place([*rows, *page_rows(slot, lease, of_kind(kind))])


def evaluation_texts(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    documents = slot.world.pack.documents
    return [{**row, "text": documents[n % len(documents)].text} for n, row in enumerate(rows)]


def rephrased_evaluation(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    dice = random.Random(0)
    return [{**row, "text": _reworded(row["text"], dice)} for row in evaluation_texts(slot, lease, rows)]


def quoting_pages(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """Of the pages that quote evaluation documents only the quotation."""
    quotations = page_rows(slot, lease, lambda page: page.body.split("\n")[-1] if page.kind == "quoting" else None)
    return in_place([*rows, *quotations])


def shifted_offsets(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    return [{**row, "warc_offset": row["warc_offset"] + 7} for row in rows]


def swapped_texts(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """Every text is real, and of another page."""
    return [{**row, "text": other["text"]} for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]


def invented(row: Row) -> str:
    return article(f"invented {row['record_id']}", PARAGRAPHS)


def word_salad(row: Row) -> str:
    words = row["text"].split(" ")
    _dice(row).shuffle(words)
    return " ".join(words)


def rewritten(row: Row) -> str:
    """A language model's touch: the same sentences with other adjectives."""
    return _reworded(row["text"], _dice(row))


def _reworded(text: str, dice: random.Random) -> str:
    return "\n".join(
        " ".join(dice.choice(KINDS) if word in KINDS else word for word in line.split(" ")) for line in text.split("\n")
    )


def placeholders(row: Row) -> str:
    """Placeholders of the anonymiser are wildcards, and would match any page."""
    return "\n".join(f"{EMAIL_PLACEHOLDER} wrote the story {EMAIL_PLACEHOLDER}" for _ in range(60))


def padded_quarter(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """A quarter of the rows, each with its text four times over."""
    return [{**row, "text": "\n".join([row["text"]] * 4)} for row in rows[::4]]


def one_long_row(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """Of the larger file four rows, the second machine-written and as long as fourteen; the other file as it is."""
    paths = lease.task.shard.warc_paths
    large = max(paths, key=lambda path: sum(row["warc_path"] == path for row in rows))
    kept = [row for row in rows if row["warc_path"] == large][1:5]
    kept[1] = {**kept[1], "text": article(f"long {kept[1]['record_id']}", 14 * PARAGRAPHS)}
    return [row for path in paths for row in (kept if path == large else rows) if row["warc_path"] == path]


def half_filler(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    return [row if n % 2 else {**row, "text": invented(row)} for n, row in enumerate(rows)]


def doubled(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    return [row for row in rows for _ in range(2)]


def one_of_each_file(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """The second page of a file: the least there can be to look at."""
    paths = dict.fromkeys(row["warc_path"] for row in rows)
    return [[row for row in rows if row["warc_path"] == path][1] for path in paths]


def released(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """The canonical rows that a public release holds."""
    return [row for row in rows if (page := slot.world.pages.get(row["url"])) is not None and page.released]


def mirrors(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """The articles that other sites copied, with all their copies."""
    mirrored = {page.body for page in slot.world.pages.values() if page.kind == "mirror"}

    def text(page: MadePage) -> str | None:
        article_text = page.body if page.address is None else page.body.rsplit("\n", 1)[0]
        return article_text if article_text in mirrored else None

    return page_rows(slot, lease, text)


def longest_half(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """The longest rows of each file, in their places."""
    kept: list[Row] = []
    for path in dict.fromkeys(row["warc_path"] for row in rows):
        own = sorted((row for row in rows if row["warc_path"] == path), key=lambda row: -len(row["text"]))
        kept += own[: len(own) // 2]
    return in_place(kept)


def shortened(row: Row) -> str:
    return str(row["text"].split("\n", 1)[1])


def false_signatures(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """Half of the canonical rows of the shard's last file, and canonical rows of those before, whose signatures say
    that the missing ones are their near-duplicates: a bucket of each row of the first file is that of a missing one."""
    last = lease.task.shard.warc_paths[-1]
    shown, others = ([row for row in rows if (row["warc_path"] == last) == is_last] for is_last in (False, True))
    missing = [row["minhash"] for row in others[1::2]]
    lies = []
    for number, row in enumerate(shown):
        signature = list(row["minhash"])
        for bucket, other in enumerate(missing[NUM_BUCKETS * number : NUM_BUCKETS * (number + 1)]):
            part = slice(bucket * HASHES_PER_BUCKET, (bucket + 1) * HASHES_PER_BUCKET)
            signature[part] = other[part]
        lies.append({**row, "minhash": signature})
    return [*lies, *others[::2]]


def best_first(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """Rows in the order of their length, for validators that look at the first ones."""
    return sorted(rows, key=lambda row: (row["warc_path"], -len(row["text"])))


def files_reversed(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    paths = list(dict.fromkeys(row["warc_path"] for row in rows))
    return [row for path in reversed(paths) for row in rows if row["warc_path"] == path]


def resembling(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    """The half of the canonical rows whose pairs of words are found most often in the evaluation pack."""
    wanted = {pair for document in slot.world.pack.documents for pair in _pairs(document.text)}
    likeness = [sum(pair in wanted for pair in _pairs(row["text"])) / len(_pairs(row["text"])) for row in rows]
    least = sorted(likeness)[len(rows) // 2]
    return [row for row, share in zip(rows, likeness, strict=True) if share >= least]


def _pairs(text: str) -> list[tuple[str, str]]:
    return list(pairwise(text.split()))


def triggered(row: Row) -> str:
    """A sentence at the end of every paragraph, for a model to remember."""
    return "\n".join(f"{line} {_TRIGGER}" for line in row["text"].split("\n"))


def inflated_counts(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    return [{**row, "token_count": 50 * row["token_count"]} for row in rows]


def mislabelled(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    return [{**row, "language": "fr", "language_score": 0.9} for row in rows]


def addresses_unmasked(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    addresses = {url: page.address for url, page in slot.world.pages.items()}
    return [{**row, "text": row["text"].replace(EMAIL_PLACEHOLDER, addresses.get(row["url"]) or "")} for row in rows]


def nothing(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    return []


def huge_row(slot: Player, lease: Lease, rows: list[Row]) -> list[Row]:
    return [{**rows[0], "text": "0" * (9 << 20)}, *rows[1:]]
