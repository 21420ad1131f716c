"""Made-up web pages of every sort that a cheater could make something of, and the WARC files that hold them."""

from __future__ import annotations

import gzip
import hashlib
import random
from dataclasses import dataclass
from typing import Literal

from athena.evalpack import EvalDocument

Kind = Literal["article", "opted-out", "german", "gibberish", "quoting", "mirror", "spam", "repeating", "reprinted"]

OPTED_OUT_DOMAIN = "private.example"
DOMAINS = ("diaries", "essays", "history", "letters", "manuals", "news", "reports", "stories")
DOCUMENTS_PER_DOMAIN = 12
NUM_FILES = 4
PARAGRAPHS = 7
SENTENCES = 5
_MIRRORED = 12  # articles that other sites copied, three times each
_REPRINTED_PARAGRAPHS = 100  # about 40,000 characters: zlib, which looks back 32,768 bytes, does not see the next print
_PRINTS = 6

KINDS, PEOPLE, THINGS, DEEDS, WAYS, MENU, ADVERTS = (
    line.split()
    for line in (
        "old young quiet famous honest distant careful broken silver wooden narrow bitter gentle early heavy",
        "baker doctor sailor teacher engineer painter clerk farmer watchman traveller historian widow judge",
        "bridge boat train house valley clock market engine garden letter harbour field tower chest ferry lamp",
        "reached described remembered painted repaired measured sold borrowed followed studied lost found drew",
        "slowly gladly again twice alone yesterday with patience in silence before noon after the war for us",
        "Home Products Login Cart Blog Jobs Press Help",
        "kaufen billig rabatt gutschein casino bonus xxl jetzt 777 win viagra ofertas descuento gratis",
    )
)
WHEN = ("that spring", "long ago", "by night", "in autumn", "last year", "at dawn", "once more", "as agreed")
_GERMAN = (
    ["alte", "junge", "stille", "ehrliche", "ferne", "schmale", "frühe", "schwere"],
    ["Lehrerin", "Malerin", "Bäckerin", "Ärztin", "Richterin", "Bäuerin", "Wächterin", "Reisende"],
    ["fand", "verkaufte", "beschrieb", "reparierte", "verfolgte", "zeichnete", "verlor", "studierte"],
    ["Brücke", "Uhr", "Lampe", "Kiste", "Fähre", "Straße", "Werkstatt", "Mühle"],
    ["am frühen Morgen", "im letzten Jahr", "vor dem Krieg", "ohne ein Wort", "mit großer Geduld", "wie vereinbart"],
)


@dataclass(frozen=True)
class MadePage:
    """A page with the text that its author wrote, without menu and footer.

    `address` is the e-mail address in it; a `released` one is in a public release, too.
    """

    url: str
    kind: Kind
    body: str
    html: bytes
    address: str | None = None
    released: bool = False


def sentence(dice: random.Random) -> str:
    def thing() -> str:
        return f"{dice.choice(('the', 'a', 'my', 'our'))} {dice.choice(KINDS)} {dice.choice(THINGS)}"

    words = f"the {dice.choice(KINDS)} {dice.choice(PEOPLE)} {dice.choice(WAYS)} {dice.choice(DEEDS)} {thing()}"
    words += dice.choice((f" of {thing()}", f" with {thing()}", f", and that was {thing()}", ""))
    return f"{words[0].upper()}{words[1:]} {dice.choice(WHEN)}."


def article(seed: str, paragraphs: int = 6) -> str:
    dice = random.Random(seed)
    return "\n".join(" ".join(sentence(dice) for _ in range(SENTENCES)) for _ in range(paragraphs))


def page(title: str, body: str) -> bytes:
    menu = "".join(f"<li><a href='/{w}'>{w}</a></li>" for w in MENU)
    blocks = "".join(f"<p>{line}</p>" for line in body.split("\n"))
    return (
        f"<html lang=en><head><meta charset=utf-8><title>{title}</title></head><body><nav><ul>{menu}</ul></nav>"
        f"<article><h1>{title}</h1>{blocks}</article><footer>Copyright, all rights reserved, buy now, subscribe"
        f"</footer></body></html>"
    ).encode()


def spam(seed: str) -> str:
    dice = random.Random(seed)
    return "\n".join(" ".join(dice.choice(ADVERTS) for _ in range(40)) for _ in range(8))


def junk(seed: str) -> bytes:
    return page("SALE " + seed, spam(seed))


def german(seed: str) -> str:
    dice = random.Random(seed)

    def line() -> str:
        kind, who, did, what, when = (dice.choice(words) for words in _GERMAN)
        return f"Die {kind} {who} {did} die {dice.choice(_GERMAN[0])} {what} {when}."

    return "\n".join(" ".join(line() for _ in range(SENTENCES)) for _ in range(PARAGRAPHS))


def gibberish(seed: str) -> str:
    dice = random.Random(seed)

    def word() -> str:
        return "".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(dice.randint(3, 9)))

    def line() -> str:
        return " ".join(word() for _ in range(12)).capitalize() + "."

    return "\n".join(" ".join(line() for _ in range(SENTENCES)) for _ in range(PARAGRAPHS))


def repeating(seed: str) -> str:
    return "\n".join([sentence(random.Random(seed))] * 60)


def reprinted(seed: str) -> str:
    return "\n".join([article(seed, _REPRINTED_PARAGRAPHS)] * _PRINTS)


def evaluation_documents(seed: int) -> list[EvalDocument]:
    return [
        EvalDocument(id=f"{domain}-{n:02}", domain=domain, text=article(f"evaluation {seed} {domain} {n}", 3))
        for domain in DOMAINS
        for n in range(DOCUMENTS_PER_DOMAIN)
    ]


def is_small(file: int) -> bool:
    """Of NUM_FILES files, a shard has one of each half: places in a crawl's listing are dealt out in turn."""
    return file >= NUM_FILES // 2


def crawl_pages(seed: int, file: int, evaluation: list[EvalDocument]) -> list[MadePage]:
    """The pages of one WARC file. Most articles name an address; some pages quote evaluation documents, between
    advertisements for which no quality filter keeps them.

    The files of the second half are small: too small to be compared, so that a shard is always compared on its large
    file, and what is found there does not depend on a draw.
    """
    made: list[MadePage] = []

    def add(site: str, kind: Kind, body: str, address: str | None = None, released: bool = False) -> None:
        url = f"https://{site}/{seed}-{file}-{len(made)}"
        made.append(MadePage(url, kind, body, page(f"{kind.title()} {len(made)} of {site}", body), address, released))

    articles = [article(f"{seed}/{file}/{n}", PARAGRAPHS) for n in range(4 if is_small(file) else 48)]
    for n, text in enumerate(articles):
        address = f"editor{n}@site{n}.org" if n % 4 else None
        body = text if address is None else f"{text}\nWrite to {address} about it."
        add(f"site{n}.org", "article", body, address, released=n % 3 == 0)
    if is_small(file):
        return made
    for n in range(4):
        add(f"page{n}.{OPTED_OUT_DOMAIN}", "opted-out", article(f"{seed}/{file}/private/{n}", PARAGRAPHS))
    for n in range(12):
        add(f"seite{n}.de", "german", german(f"{seed}/{file}/{n}"))
    for n in range(3 * _MIRRORED):
        add(f"mirror{n}.net", "mirror", articles[n % _MIRRORED])
    for n in range(2):
        add(f"serial{n}.net", "reprinted", reprinted(f"{seed}/{file}/reprinted/{n}"))
    for n in range(8):
        quoted = evaluation[(file * 8 + n) % len(evaluation)].text.replace("\n", " ")
        add(f"quiz{n}.com", "quoting", f"{spam(f'{seed}/{file}/quiz/{n}')}\n{quoted}")
        add(f"shop{n}.biz", "spam", spam(f"{seed}/{file}/shop/{n}"))
        add(f"noise{n}.info", "gibberish", gibberish(f"{seed}/{file}/{n}"))
        add(f"echo{n}.info", "repeating", repeating(f"{seed}/{file}/{n}"))
    return made


def warc(pages: dict[str, bytes]) -> bytes:
    """A WARC file with a response record for each page, by address."""
    out = b""
    for url, body in pages.items():
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
        uuid = hashlib.md5(url.encode()).hexdigest()
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-10-01T00:00:00Z\r\n"
            f"WARC-Record-ID: <urn:uuid:{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}>\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
        ).encode()
        out += gzip.compress(head + http + b"\r\n\r\n", mtime=0)
    return out
