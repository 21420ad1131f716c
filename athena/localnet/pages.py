"""The pages of the local crawl: mostly genuine articles, and what else a crawler brings home, in a drawn order."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from athena.errors import Misconfigured
from athena.localnet.articles import Article, articles_of
from athena.localnet.dice import Dice
from athena.localnet.foreign import foreign_sentences
from athena.localnet.prose import Section
from athena.localnet.sites import SHARED_SITES, Link, Site, address, paragraphs_html, render, site_of

Kind = Literal[
    "article", "near-duplicate", "personal-data", "encoding", "spam", "thin", "non-english", "non-html", "oversized"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
PERCENT: dict[Kind, int] = {
    "near-duplicate": 8, "personal-data": 3, "encoding": 3, "spam": 18, "thin": 9, "non-english": 10, "non-html": 2,
}  # fmt: skip
"""Of all pages; one page is oversized, and the rest are articles."""
ARTICLE_WORDS = (350, 1200)
OVERSIZED_BYTES = 9 * 2**20
_FIRST_CAPTURE = datetime(2026, 10, 5, 8, 0, tzinfo=UTC)
_SECONDS_BETWEEN_CAPTURES = 7

_PRODUCTS = ("watches", "sunglasses", "loans", "insurance", "replica bags", "diet pills", "essay writing", "backlinks")
_CITIES = ("London", "Berlin", "Austin", "Toronto", "Madrid", "Mumbai", "Sydney", "Lagos", "Osaka", "Lima")
_RESOLVERS = ("8.8.8.8", "1.1.1.1", "9.9.9.9", "208.67.222.222")  # public, and nobody's home
_TYPOGRAPHY = str.maketrans({"'": "\u2019", "-": "\u2013"})


@dataclass(frozen=True)
class Page:
    """One response of the made-up web: what the server at `url` answers with."""

    url: str
    kind: Kind
    content_type: str
    body: bytes
    captured: datetime


@dataclass(frozen=True)
class _Draft:
    """A page before its layout. `body` is HTML."""

    kind: Kind
    site: Site
    title: str
    body: str


def make_pages(seed: int, count: int, prose: Iterable[Section]) -> list[Page]:
    """`count` pages with distinct URLs in the order of their capture; equal arguments give equal bytes.

    Raises Misconfigured where `prose` does not suffice for that many articles.
    """
    numbers: dict[Kind, int] = {kind: count * percent // 100 for kind, percent in PERCENT.items()}
    numbers["oversized"] = 1
    numbers["article"] = count - sum(numbers.values())
    pool = articles_of(prose, Dice(seed, "articles"), *ARTICLE_WORDS)
    needed = numbers["article"] + numbers["personal-data"] + numbers["encoding"]
    if len(pool) < needed:
        raise Misconfigured(
            f"the installed packages hold prose for {len(pool)} articles, and {count} pages need {needed}",
            remedy="ask for fewer pages, or install athena-network[demo] in full",
        )
    drafts = [
        *_article_drafts(seed, pool, numbers),
        *(_spam(Dice(seed, "spam", str(i))) for i in range(numbers["spam"])),
        *(_thin(Dice(seed, "thin", str(i))) for i in range(numbers["thin"])),
        *(_foreign(Dice(seed, "foreign", str(i))) for i in range(numbers["non-english"])),
        *(_Draft("non-html", SHARED_SITES[0], f"data {i}", "") for i in range(numbers["non-html"])),
        _Draft("oversized", SHARED_SITES[2], "Complete log of all changes", ""),
    ]
    drafts = Dice(seed, "order").shuffled(drafts)
    links = [
        Link(address(draft.site, draft.title, i, Dice(seed, "url", str(i))), draft.title)
        for i, draft in enumerate(drafts)
    ]
    return [_page(seed, i, draft, links) for i, draft in enumerate(drafts)]


def _article_drafts(seed: int, pool: Sequence[Article], numbers: dict[Kind, int]) -> list[_Draft]:
    drafts: list[_Draft] = []
    kinds: list[Kind] = [kind for kind in ("article", "personal-data", "encoding") for _ in range(numbers[kind])]
    for i, (kind, article) in enumerate(zip(kinds, pool, strict=False)):
        dice = Dice(seed, "article", str(i))
        body = _article_html(article, dice)
        if kind == "personal-data":
            body += _contacts(dice)
        drafts.append(_Draft(kind, site_of(article.package, dice), article.title, body))
    for i in range(numbers["near-duplicate"]):
        dice = Dice(seed, "near-duplicate", str(i))
        drafts.append(_reprint(pool[i % numbers["article"]], dice))
    return drafts


def _article_html(article: Article, dice: Dice) -> str:
    blocks = []
    for number, (heading, paragraphs) in enumerate(article.parts):
        if number:
            blocks.append(f"<h2>{html.escape(heading)}</h2>")
        blocks.append(paragraphs_html(paragraphs, dice))
    return "\n".join(blocks)


def _reprint(article: Article, dice: Dice) -> _Draft:
    """The article on another site: one paragraph gone, another opening line."""
    paragraphs = article.paragraphs
    if len(paragraphs) > 8:
        del paragraphs[dice.between(1, len(paragraphs) - 1)]
    opening = f"This article on {article.package} first appeared elsewhere and is reprinted with kind permission."
    body = paragraphs_html([opening, *paragraphs], dice)
    return _Draft("near-duplicate", dice.choice(SHARED_SITES), f"{article.title} (reprint)", body)


def _contacts(dice: Dice) -> str:
    name = dice.choice(("maria.silva", "j.smith", "kofi_mensah", "yuki.tanaka"))
    server = dice.choice(_RESOLVERS)
    return (
        f"\n<p>Questions about this page are best sent to {name}@mail.fieldnotes.example or, at night, to the address "
        f"{name}+night@askwell.example by anyone who cannot wait.</p>\n<p>The name server at {server} was used for all "
        f"measurements, and the second one at {dice.choice(_RESOLVERS)} took over when it did not answer in time.</p>"
    )


def _spam(dice: Dice) -> _Draft:
    product, city = dice.choice(_PRODUCTS), dice.choice(_CITIES)
    host = f"www.best-{product.replace(' ', '-')}-{dice.between(1, 99)}.example"
    deal = f"Buy cheap {product} online in {city} with the best price and free delivery to your door today."
    stuffed = " ".join(
        f"{dice.choice(('cheap', 'best', 'discount', 'top', 'buy', 'online'))} {product} {dice.choice(_CITIES)}"
        for _ in range(dice.between(150, 500))
    )
    paragraphs = {
        0: [deal] * dice.between(40, 120),
        1: [stuffed, deal, stuffed],
        2: [
            deal.replace(city, dice.choice(_CITIES)) + " " + stuffed[: dice.between(80, 400)]
            for _ in range(dice.between(20, 50))
        ],
    }[dice.below(3)]
    title = f"{product} {city} - buy {product} online - cheap {product}"
    return _Draft("spam", Site(host, f"Best {product}", "blog"), title, "".join(f"<p>{p}</p>\n" for p in paragraphs))


def _thin(dice: Dice) -> _Draft:
    title, text = dice.choice((
        ("Log in", "Please enter your user name and password. Forgotten your password?"),
        ("Page not found", "Sorry, we could not find the page that you are looking for."),
        ("Coming soon", "We are working on something new. Leave your e-mail address to be told first."),
        ("Your basket", "Your basket is empty. Continue shopping."),
        ("Calendar", "Mon Tue Wed Thu Fri Sat Sun 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24"),
        ("Gallery", "Image 1 of 24. Next. Previous. Slideshow."),
    ))  # fmt: skip
    return _Draft("thin", dice.choice(SHARED_SITES), title, f"<p>{text}</p>")


def _foreign(dice: Dice) -> _Draft:
    known = foreign_sentences()
    language = dice.choice(sorted(known)) if known else "de"
    sentences = known.get(language) or ("Die Seite wird derzeit überarbeitet und ist bald wieder erreichbar.",)
    paragraphs = [
        " ".join(_closed(sentence) for sentence in dice.shuffled(sentences)) for _ in range(dice.between(3, 9))
    ]
    site = Site(f"www.nachrichten-{language}.example", f"Mundi {language.upper()}", dice.choice(("news", "blog")))
    return _Draft("non-english", site, sentences[0][:80], "".join(f"<p>{html.escape(p)}</p>\n" for p in paragraphs))


def _closed(sentence: str) -> str:
    return sentence if sentence[-1:] in ".!?。؟।" else f"{sentence}."


def _page(seed: int, number: int, draft: _Draft, links: Sequence[Link]) -> Page:
    dice = Dice(seed, "page", str(number))
    url = links[number].url
    captured = _FIRST_CAPTURE + timedelta(seconds=_SECONDS_BETWEEN_CAPTURES * number)
    if draft.kind == "non-html":
        return Page(url, draft.kind, *_data(dice), captured)
    body = draft.body
    if draft.kind == "oversized":
        row = "<tr><td>settings</td><td>changed one value in the table</td></tr>\n"
        body = f"<table>{row * (OVERSIZED_BYTES // len(row))}</table>"
    if draft.kind == "encoding":
        body = body.translate(_TYPOGRAPHY).replace("<p>The ", "<p>« The » ")
    date = f"{captured:%Y-%m-%d}"
    text = render(draft.site, draft.title, body, date, dice.sample(links, dice.between(6, 18)), dice)
    if draft.kind == "encoding":
        return Page(url, draft.kind, *_misencoded(text, dice), captured)
    return Page(url, draft.kind, "text/html; charset=utf-8", text.encode(), captured)


def _misencoded(text: str, dice: Dice) -> tuple[str, bytes]:
    """Content type and bytes that do not fit each other, in one of the three ways most seen."""
    western = text.encode("cp1252", "xmlcharrefreplace")
    way = dice.below(3)
    if way == 0:
        return "text/html; charset=utf-8", western  # Western bytes that claim to be UTF-8
    if way == 1:
        return "text/html", western.replace(b'<meta charset="utf-8">', b"")  # nobody says which
    return "text/html; charset=utf-8", text.encode().decode("latin-1").encode()  # encoded twice


def _data(dice: Dice) -> tuple[str, bytes]:
    values = [dice.below(1000) for _ in range(200)]
    return dice.choice((
        ("application/json", json.dumps({"values": values}).encode()),
        ("image/png", b"\x89PNG\r\n\x1a\n" + bytes(value % 256 for value in values)),
        ("text/plain; charset=utf-8", " ".join(map(str, values)).encode()),
        ("application/pdf", b"%PDF-1.7\n" + bytes(value % 256 for value in values)),
    ))  # fmt: skip
