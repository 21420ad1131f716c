"""Texts with labelled personal data, and texts with what looks like it, made from a fixed seed for bench_anonymise.py.

Nothing here is anybody's: numbers are drawn, telephone numbers vary libphonenumber's examples, domains are reserved.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import random
import string
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import phonenumbers

from athena.refine.steps.anonymise import Span

SEED = 20260101
PER_KIND = 120
LOOKALIKE_TEXTS = 900
ALPHANUMERIC = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
HOME = ("US", "GB")
ABROAD = ("DE", "FR", "ES", "IT", "IN", "BR", "AU", "JP", "ZA", "MX", "SE", "PL", "NG")
FILLER = (
    "The meeting was moved to the second floor because the heating had failed again. ",
    "Nobody remembered who had painted the old gate, but everybody liked the colour. ",
    "It takes about twenty minutes on foot, less by bicycle, and parking is difficult. ",
    "The committee will publish its minutes after the summer break. ",
)
EMAIL_FRAMES = (
    ("Write to ", " before Friday. "),
    ("Contact: ", "\n"),
    ("(", ") answers. "),
    ("<", "> wrote: "),
    ("mailto:", ". "),
)
IP_FRAMES = (
    ("The host ", " is down. "),
    ("from [", "] at noon. "),
    ("Received from ", ", then nothing. "),
    ("IP: ", "\n"),
)
PHONE_FRAMES = (
    ("Call ", " today. "),
    ("Tel: ", "\n"),
    ("Phone ", ", ask for Jo. "),
    ("", " is the front desk. "),
    ("| ", " | "),
)
IBAN_FRAMES = (("IBAN: ", "\n"), ("Please pay to ", " by May. "), ("account ", ", thank you. "))
CARD_FRAMES = (("Card ", " was declined. "), ("She read out ", ", slowly. "), ("Visa/MC: ", "\n"), ("paid with ", ". "))
KEY_FRAMES = (
    ("export TOKEN=", "\n"),
    ('api_key = "', '"\n'),
    ("Authorization: Bearer ", "\n"),
    ("We used ", " for the test. "),
)
IBANS = (
    ("DE", 0, 18),
    ("GB", 4, 14),
    ("FR", 0, 23),
    ("NL", 4, 10),
    ("ES", 0, 20),
    ("NO", 0, 11),
    ("CH", 0, 17),
    ("MT", 4, 23),
)
CARDS = (
    ("4", (4, 4, 4, 4)), ("53", (4, 4, 4, 4)), ("2305", (4, 4, 4, 4)), ("37", (4, 6, 5)), ("6011", (4, 4, 4, 4)),
    ("36", (4, 6, 4)), ("3530", (4, 4, 4, 4)), ("62", (4, 4, 4, 4)),
)  # fmt: skip
Framed = tuple[str, str, str]  # what stands before, the value, what stands behind


@dataclass(frozen=True)
class Labelled:
    """A text, and what stands in it that should be replaced."""

    text: str
    spans: tuple[Span, ...]


def labelled_texts(seed: int = SEED) -> list[Labelled]:
    """The same texts for the same seed and version of libphonenumber."""
    draw = random.Random(seed)
    texts = []
    for kind, make in MAKERS.items():
        for _ in range(PER_KIND):
            before, value, after = make(draw)
            head = draw.choice(FILLER) + before
            label = Span(len(head), len(head) + len(value), kind)
            texts.append(Labelled(head + value + after + draw.choice(FILLER), (label,)))
    for _ in range(LOOKALIKE_TEXTS):
        texts.append(Labelled(draw.choice(FILLER) + draw.choice(LOOKALIKES)(draw) + draw.choice(FILLER), ()))
    return texts


def framed(draw: random.Random, value: str, frames: Sequence[tuple[str, str]]) -> Framed:
    before, after = draw.choice(frames)
    return before, value, after


def some(draw: random.Random, alphabet: str, size: int) -> str:
    return "".join(draw.choices(alphabet, k=size))


def digits(draw: random.Random, size: int) -> str:
    return some(draw, string.digits, size)


def email(draw: random.Random) -> Framed:
    first, last = (
        draw.choice(("jane", "omar", "li", "søren", "maría", "k")),
        draw.choice(("doe", "haddad", "o'neil", "wei")),
    )
    local = draw.choice(
        (f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{draw.randint(1, 99)}", f"{first}+news")
    )
    domain = draw.choice(
        ("mail.example.org", "example.co.uk", "uni-koeln.example.de", "bücher.example", "a1.example.com")
    )
    at, dot = draw.choice((("@", "."),) * 9 + (("[at]", "[dot]"), (" (at) ", " (dot) "), (" at ", " dot ")))
    return framed(draw, local + at + (domain if dot == "." else domain.replace(".", dot)), EMAIL_FRAMES)


def ip(draw: random.Random) -> Framed:
    if draw.random() < 0.6:
        while not (address := ipaddress.IPv4Address(draw.getrandbits(32))).is_global or address.is_multicast:
            pass
        return framed(draw, str(address), IP_FRAMES)
    prefix = draw.choice((0x2A00, 0x2600, 0x2400, 0x2A02)) << 112
    low = draw.choice((draw.getrandbits(112), draw.getrandbits(16), draw.getrandbits(96) << 16 | 1))
    address6 = ipaddress.IPv6Address(prefix | low)
    text = draw.choice((address6.compressed, address6.exploded, address6.compressed.upper()))
    return framed(draw, text, IP_FRAMES)


def phone(draw: random.Random) -> Framed:
    """Half of them as dialled inside the United States and Britain, in shapes or behind a word that announces them."""
    region = draw.choice(HOME * 6 + ABROAD)
    kind = draw.choice((phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE))
    example = phonenumbers.example_number_for_type(region, kind)
    national = str(example.national_number)
    number = phonenumbers.PhoneNumber(
        country_code=example.country_code,
        national_number=int(national[:-3] + digits(draw, 3)),
        italian_leading_zero=example.italian_leading_zero,
    )
    if region in HOME and draw.random() < 0.7:
        text = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
        bare = text.replace("(", "").replace(")", "")
        text = draw.choice((text, bare, bare.replace(" ", "-"), bare.replace(" ", ".").replace("-", ".")))
        return framed(draw, text, PHONE_FRAMES)
    spelling = draw.choice((phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.E164))
    text = phonenumbers.format_number(number, spelling)
    zeros = text.replace("+", "00", 1) if " " in text else text
    return framed(draw, draw.choice((text, text, text.replace(" ", "-"), text.replace(" ", "."), zeros)), PHONE_FRAMES)


def iban_number(draw: random.Random, *, right: bool) -> str:
    country, letters, numbers = draw.choice(IBANS)
    account = some(draw, string.ascii_uppercase, letters) + digits(draw, numbers)
    check = 98 - int("".join(str(int(c, 36)) for c in account + country + "00")) % 97
    whole = f"{country}{check if right else (check + draw.randint(1, 90) - 2) % 97 + 2:02}{account}"
    return draw.choice((whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))))


def iban(draw: random.Random) -> Framed:
    return framed(draw, iban_number(draw, right=True), IBAN_FRAMES)


def card_number(draw: random.Random, *, right: bool) -> str:
    prefix, groups = draw.choice(CARDS)
    body = prefix + digits(draw, sum(groups) - len(prefix) - 1)
    total = sum(int(c) if i % 2 else sum(divmod(2 * int(c), 10)) for i, c in enumerate(reversed(body)))
    whole = iter(body + str((-total + (0 if right else draw.randint(1, 9))) % 10))
    return draw.choice(("", " ", "-")).join("".join(islice(whole, size)) for size in groups)


def card(draw: random.Random) -> Framed:
    return framed(draw, card_number(draw, right=True), CARD_FRAMES)


def key(draw: random.Random) -> Framed:
    """A credential and what stands around it; some are known by that alone."""
    before, value, after = draw.choice(KEYS)(draw)
    return (before, value, after) if before or after else framed(draw, value, KEY_FRAMES)


def jwt(draw: random.Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": digits(draw, 10), "name": some(draw, ALPHANUMERIC, 12)})
    packed = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*packed, some(draw, ALPHANUMERIC + "-_", 43)])


def slack_hook(draw: random.Random) -> str:
    return f"T{some(draw, UPPER, 10)}/B{some(draw, UPPER, 10)}/{some(draw, ALPHANUMERIC, 24)}"


def private_key(draw: random.Random) -> str:
    label = draw.choice(("RSA ", "EC ", "OPENSSH ", ""))
    lines = "\n".join(some(draw, ALPHANUMERIC + "+/", 64) for _ in range(8))
    return f"-----BEGIN {label}PRIVATE KEY-----\n{lines}\n-----END {label}PRIVATE KEY-----"


KEYS: tuple[Callable[[random.Random], Framed], ...] = (
    lambda d: ("", d.choice(("AKIA", "ASIA")) + some(d, string.ascii_uppercase + "234567", 16), ""),
    lambda d: ("aws_secret_access_key = ", some(d, ALPHANUMERIC + "+/", 40), "\n"),
    lambda d: ("", d.choice(("ghp_", "gho_", "ghs_")) + some(d, ALPHANUMERIC, 36), ""),
    lambda d: ("", f"github_pat_{some(d, ALPHANUMERIC, 22)}_{some(d, ALPHANUMERIC, 59)}", ""),
    lambda d: ("", "glpat-" + some(d, ALPHANUMERIC, 20), ""),
    lambda d: ("", f"xoxb-{digits(d, 12)}-{digits(d, 12)}-{some(d, ALPHANUMERIC, 24)}", ""),
    lambda d: ("https://hooks.slack.com/services/", slack_hook(d), " is the hook. "),
    lambda d: ("", "AIza" + some(d, ALPHANUMERIC + "-_", 34) + "x", ""),
    lambda d: ("", d.choice(("sk_live_", "rk_live_", "sk_test_")) + some(d, ALPHANUMERIC, 24), ""),
    lambda d: ("", d.choice(("sk-proj-", "sk-")) + some(d, ALPHANUMERIC, 48), ""),
    lambda d: ("", "sk-ant-api03-" + some(d, ALPHANUMERIC, 80), ""),
    lambda d: ("", "hf_" + some(d, ALPHANUMERIC, 34), ""),
    lambda d: ("", "npm_" + some(d, ALPHANUMERIC, 36), ""),
    lambda d: ("", f"SG.{some(d, ALPHANUMERIC, 22)}.{some(d, ALPHANUMERIC, 43)}", ""),
    lambda d: ("bot token ", f"{digits(d, 10)}:AA{some(d, ALPHANUMERIC, 33)}", ". "),
    lambda d: ("", jwt(d), ""),
    lambda d: ("The file reads\n", private_key(d), "\n"),
    lambda d: ("postgres://", f"app{digits(d, 2)}:{some(d, ALPHANUMERIC, 14)}", "@db.example.org/main is it. "),
    lambda d: ("it sent the header x-custom-token ", some(d, ALPHANUMERIC, 32), ". "),
    lambda d: ("the password is ", some(d, ALPHANUMERIC, 12), ". "),
)  # fmt: skip

MAKERS: dict[str, Callable[[random.Random], Framed]] = {
    "key": key, "email": email, "iban": iban, "card": card, "ip": ip, "phone": phone,
}  # fmt: skip


def isbn(draw: random.Random) -> str:
    body = "978" + digits(draw, 9)
    whole = body + str(-sum(int(c) * (3 if i % 2 else 1) for i, c in enumerate(body)) % 10)
    ten = digits(draw, 9) + draw.choice("0123456789X")
    return draw.choice(
        (
            whole,
            f"{whole[:3]}-{whole[3]}-{whole[4:7]}-{whole[7:12]}-{whole[12]}",
            f"{ten[0]}-{ten[1:4]}-{ten[4:9]}-{ten[9]}",
        )
    )


LOOKALIKES: tuple[Callable[[random.Random], str], ...] = (
    lambda d: f"Version {d.randint(1, 20)}.{d.randint(0, 9)}.{d.randint(0, 99)}.{d.randint(0, 255)} fixes it. ",
    lambda d: f"Chrome/{d.randint(60, 140)}.0.{d.randint(1000, 9999)}.{d.randint(10, 200)} Safari/537.36 was blocked. ",
    lambda d: f"The printer at 192.168.{d.randint(0, 255)}.{d.randint(1, 254)} and the router at 10.0.0.1 agree. ",
    lambda d: f"See section {d.randint(1, 9)}.{d.randint(1, 9)}.{d.randint(1, 9)}.{d.randint(1, 9)} of the manual. ",
    lambda d: f"{d.randint(1, 9)}.{d.randint(1, 12)}.{d.randint(1, 9)}.{d.randint(1, 9)} Scope of this document\n",
    lambda d: f"ISBN {isbn(d)}, second edition. ",
    lambda d: f"Order {digits(d, 3)}-{digits(d, 7)}-{digits(d, 7)} has shipped. ",
    lambda d: f"Your order number is {digits(d, d.choice((10, 12, 16)))}. ",
    lambda d: f"Invoice no. {digits(d, 3)}-{digits(d, 3)}-{digits(d, 4)} is due. ",
    lambda d: f"On 20{digits(d, 2)}-0{d.randint(1, 9)}-1{d.randint(0, 9)} 12:{d.randint(10, 59)}:12 it rained. ",
    lambda d: f"From 0{d.randint(1, 9)}.1{d.randint(0, 2)}.1980 to 1{d.randint(0, 9)}.12.1999 he was away. ",
    lambda d: f"doi:10.{digits(d, 4)}/{some(d, string.ascii_lowercase, 6)}.{digits(d, 4)}.{digits(d, 7)} says so. ",
    lambda d: f"The digest is {some(d, '0123456789abcdef', d.choice((32, 40, 64)))}. ",
    lambda d: f"Its id is {uuid.UUID(int=d.getrandbits(128))}. ",
    lambda d: f"Commit {some(d, '0123456789abcdef', 40)} broke the build. ",
    lambda d: f"IBAN {iban_number(d, right=False)} was refused. ",
    lambda d: f"Card {card_number(d, right=False)} was refused. ",
    lambda d: f"The item {digits(d, 16)} is out of stock. ",
    lambda d: f"Use icon@{d.randint(2, 3)}x.png and react@{d.randint(15, 19)}.{d.randint(0, 9)}.0 in the header. ",
    lambda d: f"See https://medium.example/@{some(d, string.ascii_lowercase, 8)}/post and root@localhost there. ",
    lambda d: f"MAC 00:1b:{some(d, '0123456789abcdef', 2)}:44:11:3a, time 12:30:4{d.randint(0, 9)}, ratio 3:2. ",
    lambda d: f"In C++, std::vector and a::b compile; addresses like fe80::{digits(d, 1)} and ::1 are local. ",
    lambda d: f"Some {d.randint(1, 99)} {digits(d, 3)} {digits(d, 3)} in 1970, +{d.randint(1, 9)} 000 000 since. ",
    lambda d: f"Coordinates 5{d.randint(0, 9)}.{digits(d, 6)}, -0{d.randint(0, 9)}.{digits(d, 6)}; 1.{digits(d, 9)}. ",
    lambda d: f"Years 1914 1918 1939 1945 20{digits(d, 2)}; pages 203-{d.randint(204, 399)}, 410. ",
    lambda d: f"The class sk-loading-icon-of-{some(d, string.ascii_lowercase, 8)}-page-{d.randint(1, 9)} is gone. ",
    lambda d: f"A blob: {base64.b64encode(d.randbytes(60)).decode()} ends. ",
    lambda d: f"The timestamp 17{digits(d, 11)} and the part {some(d, UPPER, 4)}-{digits(d, 5)}-{some(d, UPPER, 3)}. ",
    lambda d: f"Patent US {d.randint(5, 11)},{digits(d, 3)},{digits(d, 3)} B2 and EAN 4{digits(d, 12)}. ",
    lambda d: f"Form 000-12-{digits(d, 4)}, model 0{digits(d, 2)} {digits(d, 4)} {digits(d, 4)}. ",
    lambda d: f"Write AKIA with the token ghp_short or eyJub3Q.a-token, {some(d, string.ascii_lowercase, 12)}. ",
)  # fmt: skip
